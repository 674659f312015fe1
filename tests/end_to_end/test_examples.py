"""The examples run as a user runs them, in processes of their own, and check what they claim themselves."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(example: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "examples" / example), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_an_own_loop_averages_in_secret(tmp_path: Path) -> None:
    ran = run("secure_average.py", folder=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count("accuracy") == 4
    assert "round 2: " in ran.stdout
    assert "4 survivors" in ran.stdout


def test_a_federation_around_an_own_module(tmp_path: Path) -> None:
    ran = run("federation.py", folder=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Bit for bit" in ran.stdout
    assert "the sum itself can reveal an update" in ran.stdout
