"""The CKKS benchmark gives one JSON object with every figure, exact, beside the library's plain use."""

import json
import subprocess
import sys

import pytest

FIGURES = {"encrypt_s", "add_s", "decrypt_s", "bytes_per_value", "exact", "peak_rss_mb", "naive", "ratios"}


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", "he", "--scheme", "ckks", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)


@pytest.mark.parametrize("arrangement", ["keyholder", "shared"])
def test_ckks(arrangement: str) -> None:
    done = run("--arrangement", arrangement, "--values", "5000", "--clients", "3", "--json")
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert set(outcome["figures"]) >= FIGURES
    assert outcome["figures"]["exact"] is True
    assert outcome["arguments"]["arrangement"] == arrangement
    assert set(outcome["figures"]["ratios"]) == {"encrypt", "add", "decrypt", "bytes_per_value"}
    assert outcome["figures"]["ratios"]["bytes_per_value"] > 5


@pytest.mark.parametrize("options", [("--key-bits", "2048"), ("--arrangement", "threshold")])
def test_what_ckks_does_not_have_is_said(options: tuple[str, ...]) -> None:
    done = run(*options, "--values", "10")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "CKKS" in done.stderr
