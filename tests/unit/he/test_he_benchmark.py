"""The suite's command gives one JSON object with every figure that the docs and others read."""

import json
import subprocess
import sys

import pytest

FIGURES = {"encrypt_s", "add_s", "decrypt_s", "bytes_per_value", "exact", "peak_rss_mb", "naive", "ratios"}


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", "he", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)


@pytest.mark.parametrize("arrangement", ["keyholder", "shared", "threshold-2-of-2"])
def test_paillier(arrangement: str) -> None:
    small = ("--values", "80", "--clients", "3", "--key-bits", "2048", "--naive-sample", "2")
    done = run("--scheme", "paillier", "--arrangement", arrangement, *small, "--json")
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert set(outcome["figures"]) >= FIGURES
    assert outcome["figures"]["exact"] is True
    assert outcome["arguments"]["arrangement"] == arrangement
    assert set(outcome["figures"]["ratios"]) == {"encrypt", "add", "decrypt", "bytes_per_value"}
    assert ("partial_s" in outcome["figures"]) == arrangement.startswith("threshold")


@pytest.mark.parametrize(
    "options", [("--scheme", "rsa"), ("--key-bits", "1024"), ("--arrangement", "nobody")]
)
def test_a_wrong_request_is_said_and_ends_with_2(options: tuple[str, ...]) -> None:
    done = run(*options, "--values", "10")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "expected" in done.stderr
