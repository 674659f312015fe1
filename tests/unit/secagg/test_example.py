"""The example of reused keys runs and shows what it claims: three trips once, two from then on."""

import runpy
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "reused_keys.py"


def test_reused_keys(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert [line.count(" -> ") for line in lines[:4]] == [2, 1, 1, 1]
    assert "4 of 5 clients" in lines[1]
