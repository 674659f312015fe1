"""The example of the privacy account runs as a user runs it."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_the_example_spends_its_budget_and_no_more(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "privacy_account.py")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert ran.returncode == 0, ran.stderr
    assert "round 6: the next step would bring" in ran.stdout
    assert "| example | every one | DiscreteGaussianSum" in ran.stdout
    assert "passed" in ran.stdout
    assert list(tmp_path.iterdir()) == []
