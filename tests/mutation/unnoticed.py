"""Why a mutant need not be noticed: where it is, what the line became, and the reason. Both are patterns.

What does not belong here: a reason for a check that is gone or off by one. That takes a test.
"""

import re

REASONS: tuple[tuple[str, str, str], ...] = (
    # words
    (
        "",
        r"(expect_(subset|threshold|ascending|size|items)|reconstruct)\(.*['\"](XX|[A-Z][A-Z _-]+['\"])",
        "a name that stands in the words of an error only",
    ),
    (
        r"secagg\.messages\..*__post_init__",
        r"^for name in",
        "a name that is looked up: another one raises for every message",
    ),
    (
        r"updates\._names|plan\.(Infeasible|_reason)|stack\.Stack\.__post_init__|revealing\.Revealing\.close",
        r"join\(|nothing|NOTHING|relax|RELAX|infeasible|^demand|^got =|^who =",
        "the words of an error; its type and cause are tested",
    ),
    (r"record\.RunRecord\.append", r"raise OSError", "the words of an error that is caught two lines below"),
    (r"expect_subset", r"\[:6\]", "how many strangers the words of an error list"),
    (
        r"errors\.DealerBlamed|unmasking\.unmask",
        r"DealerBlamed\(.*['\"](XX|SELF|MASK)",
        "the words of an error; whom it names is tested",
    ),
    # the same by another way
    ("", r"'SHA256'", "another spelling of the same algorithm"),
    ("", r"copy=(None|True)|astype\('<u2'\)|astype\(np\.uint16\)", "copying or not changes speed only"),
    (
        r"secagg\.shamir\._points",
        r"^ascending|places\[",
        "the quick way to see that points are distinct; the slow one behind it decides",
    ),
    (r"secagg\.sealing\.unseal", r"<= OVERHEAD", "an empty box does not open either way"),
    (r"secagg\.key_agreement\.info", r"first < second", "one name with itself has one order"),
    (r"unmasking\._pairs|masking\.Masking\._masked", r"<= ", "a client is no neighbour of itself"),
    (
        r"server\.opening|reuse\.releasing",
        r"(came|waiting)\[\w+\] = False",
        "the keys are looked at, the values are not",
    ),
    (r"server\.opening\.Opening\._keep", r"> threshold", "one share more gives the same secret"),
    (r"server\.opening\.pledged", r"return b'XXXX'", "neither is the digest of anything"),
    (
        r"masking\.Masking\._open|guarding\.Guarding\._open",
        r"str\(None\)",
        "the error is caught here; the complaint names the dealer",
    ),
    (
        r"unmasking\.unmask|certified_keys|advertising\.Advertising\.close",
        r"(parse|check_certificate)\(.*(str\(None\)|'XXXX')",
        "these keys were parsed, with their owner's name, when they came",
    ),
    (
        r"quantise\.Quantiser\.(encode|decode)",
        r"np\.asarray\(|astype\(None\)",
        "callers pass that dtype already",
    ),
    (
        r"quantise\.Quantiser|stack\.Numbers",
        r"<= 33",
        "the same range is checked a second time, where the quantiser is made",
    ),
    (
        r"quantise\.Quantiser\.__post_init__",
        r"0 <= self\.step|<= math\.inf",
        "zero and infinity are no powers of two",
    ),
    (
        r"stack\.RoundPlan\.(encode|_digits)|stack\._block",
        r"None\)|np\.asarray\(vector\)|np\.array\(\[[^\]]*\]\)|np\.zeros\(c\.size|np\.asarray\(coordinates",
        "whole numbers of 64 bits either way",
    ),
    (r"stack\.RoundPlan\._digits", r"value / base", "the fraction is cut off where it becomes whole"),
    (
        r"stack\.RoundPlan\.digest",
        r"quantiser else 1|quantiser and False|self\.quantiser\.step if",
        "without a quantiser its bits are a constant, and the step is the signal's",
    ),
    (
        r"summation\.centred",
        r"copy|astype|modulus (==|\|)|modulus & modulus",
        "powers of two may take the general way too",
    ),
    (r"summation\.centred", r"/ 2\)", "a whole number either way"),
    (
        r"updates\.(flatten|_reals)",
        r"reshape\((None|-2)\)",
        "NumPy takes any negative length, or none, as the rest",
    ),
    (r"updates\._reals", r"or True", "a real array viewed as its own type"),
    (r"identity\.Identity\.load", r"4097", "a bound on what is read: a key has some hundred bytes"),
    (r"identity\.Identity\.save", r"write_atomic", "0600 is the default"),
    (
        r"identity\.SignedRoster\.(save|to_json)",
        r"421|indent",
        "how a file that people read is laid out, or a bit that executes nothing",
    ),
    (
        r"store\.base\.Transaction",
        r"XXXX|to_bytes\(9",
        "what is stored behind a mark or before a counter is not looked at",
    ),
    (r"record\.RunRecord\.append", r">= MAX_LINE", "a bound on the length of a line, one byte earlier"),
    (
        r"codec\.",
        r"count\(max\(|, (5|2|1)\)$|cls\(v\)\.value",
        "a count is bounded by the bytes that came; the items then end with them",
    ),
    (
        r"secagg\.packing\._add_long",
        r"count =|octets\) - 8,\)",
        "fewer elements go through the compiled loop and more through the plain one; the loop checks no bounds",
    ),
    (
        r"secagg\.credentials\.Credentials\.simulated",
        r"XX|AUTHORITY|SIMULATED|str\(None\)|, 2, members",
        "labels of throwaway identities in a simulation",
    ),
    (
        r"secagg\.parameters\.calibration",
        r"['\"](XX\w+XX|[AB])['\"]",
        "names of the parties whose work is timed",
    ),
    (
        r"secagg\.stating|PlainSum\.protection",
        r"^(text =|return text \+ '(XX|OVER))|mechanism=",
        "the wording of a statement; its numbers are tested",
    ),
    (r"runtime\.Runtime\.__init__", r"^$", "the default of an option; both values are tested"),
)


LENGTHS = "the lengths were compared when the message was decoded, or are equal by construction"


def reason(place: str, before: str, after: str) -> str:
    """The first reason that fits, or nothing."""
    if after in (before.replace(", strict=True", ""), before.replace("strict=True", "strict=False")):
        return LENGTHS
    if before.count(", 'big'") and after in without_big(before):
        return '"big" is the default of the language'
    for where, change, why in REASONS:
        if re.search(where, place) and re.search(change, after):
            return why
    return ""


def without_big(line: str) -> list[str]:
    """The line without one of its byte orders."""
    word = ", 'big'"
    return [line[: m.start()] + line[m.end() :] for m in re.finditer(word, line)]
