"""The way of a round is written once: nothing in `fl` outside `fl/round` plans one, makes its session or decodes it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = sorted(path for path in (ROOT / "fl").rglob("*.py") if path.parent.name != "round")
STEPS = {
    "plans a round": r"\bstack\.round\(",
    "makes a session": r"secure_sum\.session\(\s*(?!\[str)",
    "decodes a sum": r"\bplan\.decode\(",
    "digests a model": r"schema\.encode\(",
    "digests what is shown": r"plan\.digest\(",
    "writes a checkpoint": r"\.write_array\(\s*member",
}


@pytest.mark.parametrize("step", STEPS)
def test_each_step_of_a_round_is_taken_in_one_place(step: str) -> None:
    found = re.compile(STEPS[step])
    assert [str(path.relative_to(ROOT)) for path in OUTSIDE if found.search(path.read_text())] == []
    inside = [path for path in (ROOT / "fl" / "round").glob("*.py") if found.search(path.read_text())]
    assert len(inside) == 1, "the pattern finds the one place"
