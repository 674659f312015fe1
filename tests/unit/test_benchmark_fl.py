"""The suite `fl`: it runs, compares every stack with none in one run, and says what it had to leave out."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_overhead_compares_each_stack_with_none() -> None:
    command = [sys.executable, "-m", "benchmarks", "fl", "overhead", "--json", "--repeats", "1"]
    command += ["--clients", "4", "--model", "logistic", "--stack", "secagg", "--stack", "no-such-layer"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    rows = found["figures"]["rows"]
    assert [row["stack"] for row in rows] == ["none", "secagg"]
    assert rows[0]["over_none"] == 1
    assert rows[1]["client_s"] > 0
    assert rows[1]["kib_up"] > 0
    assert found["figures"]["parameters"] == 650
    assert "No privacy layer is named" in found["figures"]["left_out"]["no-such-layer"]
