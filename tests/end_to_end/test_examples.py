"""The examples run as a user runs them, in processes of their own, and check what they claim themselves."""

from pathlib import Path

from tests.programs import ran

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_an_own_loop_averages_in_secret(tmp_path: Path) -> None:
    done = ran(EXAMPLES / "secure_average.py", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("accuracy") == 4
    assert "round 2: " in done.stdout
    assert "4 survivors" in done.stdout


def test_a_federation_around_an_own_module(tmp_path: Path) -> None:
    done = ran(EXAMPLES / "federation.py", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Bit for bit" in done.stdout
    assert "the sum itself can reveal an update" in done.stdout
