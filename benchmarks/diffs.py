"""Pairs of examples, a loop before and after it was wrapped: how many lines changed, and their diff for a page.

What does not belong here: pages (`tables`), what the examples do.
"""

from difflib import SequenceMatcher, unified_diff
from pathlib import Path

from benchmarks.machine import ROOT


class Pair:
    """NAME_before.py and NAME_after.py. name: their common path from the root of the checkout. Raises ValueError where
    one of them does not exist.
    """

    def __init__(self, name: str) -> None:
        self.before, self.after = (_lines(ROOT / f"{name}_{when}.py") for when in ("before", "after"))

    @property
    def changed(self) -> int:
        """Lines changed: of each place that differs, the lines removed or the lines added, whichever are more."""
        matched = SequenceMatcher(None, self.before, self.after, autojunk=False).get_opcodes()
        return sum(max(i2 - i1, j2 - j1) for tag, i1, i2, j1, j2 in matched if tag != "equal")

    def markdown(self) -> str:
        """The diff without its header, fenced."""
        lines = list(unified_diff(self.before, self.after, lineterm="", n=1))[2:]
        shown = "\n".join("..." if line.startswith("@@") else line for line in lines)
        return f"```diff\n{shown}\n```\n"


def _lines(path: Path) -> list[str]:
    if not path.exists():
        raise ValueError(f"no file {path.relative_to(ROOT)}")
    return path.read_text(encoding="utf-8").splitlines()
