"""Writes docs/mutation.md, a table of outcomes and a line per reason, and survivors.md beside this file, a line per
survivor.

Outcomes are kept by folder in figures.json, with the commit whose functions were changed, so that a folder can be met
again by itself. Reasons are in `unnoticed`; a survivor that none of them fits is listed as not explained, and ends the
run with 1, as does a mutant that was not met.
"""

import ast
import difflib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.mutation.stillborn import WORDS, functions, original
from tests.mutation.unnoticed import reason

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "mutation.md"
SURVIVORS = Path(__file__).with_name("survivors.md")
FIGURES = Path(__file__).with_name("figures.json")
OUTCOMES = {0: "survived", 1: "noticed", 33: "no test", -24: "timeout", -14: "timeout"}  # else: crashed
COLUMNS = ("types", "words", "noticed", "timeout", "crashed", "survived", "no test", "not met")
OPEN = ("survived", "no test")
OFTEN = 10
Survivor = tuple[str, str, str]  # place, the line as changed, why it need not be noticed
PACKAGES = ("protocols", "secagg", "dp", "fl/round")
INTRODUCTION = """\
# Mutants

`make mutation` changes the functions of `protocols`, `secagg`, `dp` and `fl.round` one small change at a time (by
mutmut); something should notice each change. mypy refuses {types} of {total} mutants, and {words} change only the
words of an error. The tests that reach the changed function ran against {met} others, the quick ones first, up to
three processor seconds: {noticed} were noticed, {survived} survived. No test of the selection reaches {no test}.
**{not met} were not met yet**, and **{unexplained} of the unnoticed are not explained yet**. Every survivor is listed
in `tests/mutation/survivors.md`, its reason in `tests/mutation/unnoticed.py`. A folder's line names the commit whose
functions were changed: `python -m tests.mutation FOLDER` meets one folder again. Folders that no run has met: {never}.

Noticed includes {timeout} on which a test ran without end, and {crashed} that ended the process. Left alone are:
`protocols.audit`, `dp.audit`, `dp.sample.audit` and the `audit_hooks`, which are test tooling themselves and are
judged by planted defects ([table](audit-defects.md)); compiled loops (known answers judge those); constants,
properties and other decorated functions, which mutmut does not change. Whole checks left out of a protocol are planted
as defects: a mutant changes a check, it seldom removes it.
"""


@dataclass(frozen=True)
class Mutant:
    """path: of the changed file. place: module and function. outcome: one of COLUMNS."""

    name: str
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


def read(folder: Path, rooms: list[str]) -> Iterator[Mutant]:
    found = outcomes(folder)
    for meta in sorted(meta for name in rooms for meta in folder.glob(f"{name}/*.meta")):
        path = meta.with_suffix("")
        written = {f.name: f for f in functions(ast.parse(path.read_text()).body)}
        for name in json.loads(meta.read_text())["exit_code_by_key"]:
            what = found.get(name, "not met")
            sides = ("", "")
            if what in OPEN:
                function = name.rsplit(".", 1)[1]
                sides = changed(written[original(function)], written[function])
            yield Mutant(name, str(path.relative_to(folder)), place(name), what, *sides)


def puzzles(folder: Path, rooms: list[str]) -> list[str]:
    """The mutants that no test has noticed and nobody has explained, by name."""
    return [m.name for m in read(folder, rooms) if m.outcome in OPEN and not m.why]


def room(path: str) -> str:
    """The folder of a file: protocols/store, secagg/client."""
    return path.rpartition("/")[0]


def rooms_of_code() -> set[str]:
    """The folders whose functions are changed."""
    files = [path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return {room(str(path)) for path in files if "audit" not in path.parts}


def seen_in(folder: Path, rooms: list[str]) -> dict[str, dict[str, Any]]:
    """Room -> commit, outcomes and what nobody noticed, of the mutants in `folder`."""
    commit, found = (folder / "commit").read_text().strip(), dict[str, dict[str, Any]]()
    for mutant in read(folder, rooms):
        at = found.setdefault(room(mutant.path), {"commit": commit, "outcomes": Counter(), "unnoticed": []})
        at["outcomes"][mutant.outcome] += 1
        if mutant.outcome in OPEN:
            at["unnoticed"].append([mutant.place, mutant.after, mutant.why])
    return found


def table(figures: dict[str, dict[str, Any]]) -> list[str]:
    """Outcomes by room; the last line is their sum."""
    lines = ["| folder | commit | mutants | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 3) + "|"]
    for name, at in [*sorted(figures.items()), ("all", {"commit": "", "outcomes": total(figures)})]:
        cells = [str(at["outcomes"].get(column) or "") for column in COLUMNS]
        lines.append(
            f"| {name} | {at['commit']} | {sum(at['outcomes'].values())} | " + " | ".join(cells) + " |"
        )
    return lines


def total(figures: dict[str, dict[str, Any]]) -> Counter[str]:
    return sum((Counter(at["outcomes"]) for at in figures.values()), Counter())


def reasons(unnoticed: list[Survivor]) -> list[str]:
    """A line for each of the most frequent reasons, and what the others are together."""
    seen = Counter((why or "not explained yet").replace("\n", " ") for _, _, why in unnoticed)
    often = sorted(seen.items(), key=lambda item: (-item[1], item[0]))
    rest = f"- {len(often[OFTEN:])} other reasons ({sum(count for _, count in often[OFTEN:])})"
    return [*(f"- {why} ({count})" for why, count in often[:OFTEN]), *([rest] if often[OFTEN:] else [])]


def code(text: str) -> str:
    return "`" + text.replace("|", "\\|").replace("`", "'")[:160] + "`"


def listing(unnoticed: list[Survivor]) -> list[str]:
    """Survivors by reason: a line for each."""
    lines = ["# Mutants that no test notices", ""]
    for why in sorted({why for _, _, why in unnoticed}, key=lambda w: (bool(w), w)):
        those = [(place, after) for place, after, other in unnoticed if other == why]
        lines += [f"## {why or 'Not explained yet'} ({len(those)})".replace("\n", " "), ""]
        lines += [f"- {place}: {code(after)}" for place, after in those] + [""]
    return lines


def write(folder: Path, rooms: list[str]) -> int:
    """Keep the outcomes of `rooms`, not of folders that are gone, and write the page; 1 if a survivor is not explained
    or a mutant was not met.
    """
    seen_now = seen_in(folder, rooms) if (folder / "commit").is_file() else {}
    known, there = json.loads(FIGURES.read_text()) | seen_now, rooms_of_code()
    figures = {name: at for name, at in sorted(known.items()) if name in there}
    FIGURES.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")
    unnoticed = [(*each,) for at in figures.values() for each in at["unnoticed"]]
    seen, left = total(figures), sum(not why for _, _, why in unnoticed)
    noticed = seen["noticed"] + seen["timeout"] + seen["crashed"]
    numbers = {name: seen[name] for name in COLUMNS} | {
        "total": seen.total(),
        "noticed": noticed,
        "met": noticed + seen["survived"],
        "unexplained": left,
        "never": ", ".join(sorted(there - figures.keys())) or "none",
    }
    page = [INTRODUCTION.format(**numbers), *table(figures), "", "## Why some need not be noticed", ""]
    PAGE.write_text("\n".join(page + reasons(unnoticed)).rstrip() + "\n")
    SURVIVORS.write_text("\n".join(listing(unnoticed)).rstrip() + "\n")
    print(dict(seen), f"{left} unexplained")
    return int(left > 0 or seen["not met"] > 0)
