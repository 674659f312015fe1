"""Writes docs/mutation.md from the last `make mutation`: what survived, and why no test can or need tell.

    python -m tests.mutants

Reasons are rules over the changed line; a survivor that no rule explains is printed as UNEXPLAINED and ends the
run with 1.
"""

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "mutation.md"
WORDS = r"Misuse\(|raise |PolicyRefusal\(|ProtocolViolation\(|WireError\(|None,$|f\"|^\"|expected"
RULES = (
    (r"copy=|astype\([^)]*, \)", "copying or not changes speed only"),
    (r"^ascending|places\[", "the quick way to see that points are distinct; the slow one behind it decides"),
    (r"to_bytes\(4, \)", '"big" is the default of the language'),
    (r"<= OVERHEAD", "an empty box does not open either way"),
    (r"first < second", "one name with itself has one order"),
    (r"np\.asarray\((vector|total), ?(None)?\)|astype\(None\)", "callers pass that dtype already"),
    (r"<= 33|<= 32", "the same range is checked a second time, where the quantiser is made"),
    (r"0 <= self\.step|<= math\.inf", "zero and infinity are no powers of two"),
    (r'"NONE"|XXnoneXX', "a plain sum has no threshold to judge"),
    (WORDS, "the words of an error; its type and cause are tested"),
)


def mutmut(*arguments: str) -> str:
    command = [str(Path(sys.executable).with_name("mutmut")), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def changed(name: str) -> tuple[str, str]:
    """The line before and after."""
    lines = mutmut("show", name).splitlines()
    sides = [
        " ".join(
            line[1:].strip() for line in lines if line.startswith(sign) and not line.startswith(sign * 3)
        )
        for sign in "-+"
    ]
    return sides[0], sides[1]


def reason(before: str, after: str) -> str:
    for pattern, why in RULES:
        if re.search(pattern, after) or (pattern is WORDS and re.search(pattern, before)):
            return why
    return "UNEXPLAINED"


def main() -> int:
    """Write the page; 1 if a survivor is not explained."""
    results = mutmut("results", "--all", "true").splitlines()
    outcomes = [line.rsplit(":", 1) for line in results if ":" in line]
    counts = {kind: sum(o.strip() == kind for _, o in outcomes) for kind in ("killed", "survived", "timeout")}
    rows, unexplained = [], 0
    for name in (n.strip() for n, o in outcomes if o.strip() == "survived"):
        before, after = changed(name)
        why = reason(before, after)
        unexplained += why == "UNEXPLAINED"
        place = name.split("__mutmut")[0].replace("ǁ", ".").replace("x_", "").replace(".x.", ".")
        cell = after.replace("|", "\\|").replace("`", "'")[:100]
        rows.append(f"| {place} | `{cell}` | {why} |")
    PAGE.write_text(
        "# Mutants\n\nMade by `make mutation` and `python -m tests.mutants`: small changes to the parts of "
        "`secagg` and `protocols` that `[tool.mutmut]` in pyproject.toml names, each of which some test should "
        "notice. "
        f"{counts['killed'] + counts['timeout']} were noticed, {counts['survived']} were not. A sample, not the "
        "whole: the states of both roles are judged by planted defects instead ([table](audit-defects.md)).\n\n"
        "| where | what it became | why it survives |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    )
    print(counts, f"{unexplained} unexplained")
    return int(unexplained > 0)


if __name__ == "__main__":
    raise SystemExit(main())
