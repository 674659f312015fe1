"""The example of the privacy account runs as a user runs it."""

from pathlib import Path

from tests.programs import ran

ROOT = Path(__file__).resolve().parents[3]


def test_the_example_spends_its_budget_and_no_more(tmp_path: Path) -> None:
    done = ran(ROOT / "examples" / "privacy_account.py", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "round 6: the next step would bring" in done.stdout
    assert "| example | every one | DiscreteGaussianSum" in done.stdout
    assert "passed" in done.stdout
    assert list(tmp_path.iterdir()) == []
