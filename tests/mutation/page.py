"""Writes docs/mutation.md, a table of outcomes and a line per reason, and survivors.md beside this file, a line per
survivor.

Reasons are in `unnoticed`; a survivor that none of them fits is listed as not explained, and ends the run with 1,
as does a mutant that was not met.
"""

import ast
import difflib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.mutation.stillborn import WORDS, functions, original
from tests.mutation.unnoticed import reason

PAGE = Path(__file__).resolve().parents[2] / "docs" / "mutation.md"
SURVIVORS = Path(__file__).with_name("survivors.md")
OUTCOMES = {0: "survived", 1: "noticed", 33: "no test", -24: "timeout", -14: "timeout"}  # else: crashed
COLUMNS = ("types", "words", "noticed", "timeout", "crashed", "survived", "no test", "not met")
OPEN = ("survived", "no test")
PACKAGES = ("protocols", "secagg", "dp", "fl/round")
INTRODUCTION = """\
# Mutants

`make mutation` changes the functions of `protocols`, `secagg`, `dp` and `fl.round` one small change at a time (by
mutmut); something should notice each change. mypy refuses {types} of {total} mutants, and {words} change only the
words of an error. The tests that reach the changed function ran against {met} others, the quick ones first, up to
three processor seconds: {noticed} were noticed, {survived} survived. No test of the selection reaches {no test}.
**{not met} were not met yet**, and **{unexplained} of the unnoticed are not explained yet**. Every survivor is listed
in `tests/mutation/survivors.md`, its reason in `tests/mutation/unnoticed.py`.

Noticed includes {timeout} on which a test ran without end, and {crashed} that ended the process. Left alone are:
`protocols.audit`, `dp.audit` and the `audit_hooks`, which are test tooling themselves and are judged by planted
defects ([table](audit-defects.md)); compiled loops (known answers judge those); constants, properties and other
decorated functions, which mutmut does not change. Whole checks left out of a protocol are planted as defects: a
mutant changes a check, it seldom removes it.
"""


@dataclass(frozen=True)
class Mutant:
    """path: of the changed file. place: module and function. outcome: one of COLUMNS."""

    path: str
    place: str
    outcome: str
    before: str
    after: str

    @property
    def why(self) -> str:
        """Why it need not be noticed; empty if nobody has said."""
        return reason(self.place, self.before, self.after)


def outcomes(folder: Path) -> dict[str, str]:
    """Mutant -> outcome, of all that were set aside or met. A later verdict replaces an earlier one."""
    found = {}
    for line in (folder / "aside.jsonl").read_text().splitlines():
        aside = json.loads(line)
        found[aside["mutant"]] = "words" if aside["why"] == WORDS else "types"
    for kept in sorted(folder.glob("verdicts*.jsonl")):
        for line in kept.read_text().splitlines():
            met = json.loads(line)
            found[met["mutant"]] = OUTCOMES.get(met["code"], "crashed")
    return found


def changed(before: ast.FunctionDef, after: ast.FunctionDef) -> tuple[str, str]:
    """The lines before and after, as the parser writes them; arguments and their defaults are the first."""
    old, new = ([f"({ast.unparse(f.args)})", *ast.unparse(f.body).splitlines()] for f in (before, after))  # type: ignore[arg-type]  # a list of statements is written too
    sides: tuple[list[str], list[str]] = ([], [])
    for line in difflib.unified_diff(old, new, n=0, lineterm=""):
        if line[0] in "-+" and line[:3] not in ("---", "+++"):
            sides[line[0] == "+"].append(line[1:].strip())
    return " ".join(sides[0]), " ".join(sides[1])


def place(name: str) -> str:
    """protocols.kernel.xǁStateǁreceive__mutmut_3 -> protocols.kernel.State.receive."""
    module, function = name.split("__mutmut")[0].rsplit(".", 1)
    return module + "." + function.removeprefix("xǁ").removeprefix("x_").replace("ǁ", ".")


def read(folder: Path) -> Iterator[Mutant]:
    found = outcomes(folder)
    for meta in sorted(meta for package in PACKAGES for meta in folder.glob(f"{package}/**/*.meta")):
        path = meta.with_suffix("")
        written = {f.name: f for f in functions(ast.parse(path.read_text()).body)}
        for name in json.loads(meta.read_text())["exit_code_by_key"]:
            what = found.get(name, "not met")
            sides = ("", "")
            if what in OPEN:
                function = name.rsplit(".", 1)[1]
                sides = changed(written[original(function)], written[function])
            yield Mutant(str(path.relative_to(folder)), place(name), what, *sides)


def room(path: str) -> str:
    """The folder of a file: protocols/store, secagg/client."""
    return path.rpartition("/")[0]


def counts(mutants: list[Mutant]) -> list[str]:
    """A table of outcomes by folder."""
    lines = ["| folder | mutants | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 2) + "|"]
    for name in [*sorted({room(m.path) for m in mutants}), ""]:
        seen = Counter(m.outcome for m in mutants if name in ("", room(m.path)))
        cells = [str(seen[c] or "") for c in COLUMNS]
        lines.append(f"| {name or 'all'} | {seen.total()} | " + " | ".join(cells) + " |")
    return lines


def reasons(mutants: list[Mutant]) -> list[str]:
    """A line per reason, the most frequent first."""
    seen = Counter((m.why or "not explained yet").replace("\n", " ") for m in mutants)
    return [f"- {why} ({count})" for why, count in sorted(seen.items(), key=lambda item: (-item[1], item[0]))]


def code(text: str) -> str:
    return "`" + text.replace("|", "\\|").replace("`", "'")[:160] + "`"


def listing(mutants: list[Mutant]) -> list[str]:
    """Survivors by reason: a line for each."""
    lines = ["# Mutants that no test notices", ""]
    for why in sorted({m.why for m in mutants}, key=lambda w: (bool(w), w)):
        those = [m for m in mutants if m.why == why]
        lines += [f"## {why or 'Not explained yet'} ({len(those)})".replace("\n", " "), ""]
        lines += [f"- {m.place}: {code(m.after)}" for m in those] + [""]
    return lines


def write(folder: Path) -> int:
    """Write the page; 1 if a survivor is not explained or a mutant was not met."""
    mutants = list(read(folder))
    seen = Counter(m.outcome for m in mutants)
    unnoticed = [m for m in mutants if m.outcome in OPEN]
    explained = sum(bool(m.why) for m in unnoticed)
    left = len(unnoticed) - explained
    noticed = seen["noticed"] + seen["timeout"] + seen["crashed"]
    numbers = {name: seen[name] for name in COLUMNS} | {
        "total": len(mutants),
        "noticed": noticed,
        "met": noticed + seen["survived"],
        "explained": explained,
        "unexplained": left,
    }
    page = [INTRODUCTION.format(**numbers), *counts(mutants), "", "## Why some need not be noticed", ""]
    PAGE.write_text("\n".join(page + reasons(unnoticed)).rstrip() + "\n")
    SURVIVORS.write_text("\n".join(listing(unnoticed)).rstrip() + "\n")
    print(dict(seen), f"{left} unexplained")
    return int(left > 0 or seen["not met"] > 0)
