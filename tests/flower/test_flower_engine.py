"""Flower's simulation engine, the examples, and what `flwr run` would pack: each as a user starts it."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

from fl.cli import invoke
from protocols.record import FILE_NAME, verify_record

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "flower"


def run(*command: object, cwd: Path = ROOT, seconds: float = 400.0) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FLWR_TELEMETRY_ENABLED": "0"}
    environment |= {
        "RAY_USAGE_STATS_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_HOME": str(cwd / "flwr-home"),
    }
    words = [str(word) for word in command]
    done = subprocess.run(
        words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_simulation_engine_gives_the_in_memory_runs_model_bit_for_bit(tmp_path: Path) -> None:
    given = ["--data", "digits", "--clients", 3, "--rounds", 2, "--privacy", "secagg+", "--json"]
    out = [*given, "--engine", "flower-simulation", "--output", tmp_path / "flower-simulation"]
    run(sys.executable, "-m", "fl.cli", "run", *out, cwd=tmp_path)
    out = [*given, "--engine", "memory", "--output", tmp_path / "memory"]
    assert invoke(["run", *(str(word) for word in out)]) == 0
    for engine in ("memory", "flower-simulation"):
        assert len(verify_record(tmp_path / engine / FILE_NAME).entries) == 2
    memory, simulated = (
        (tmp_path / e / "model.safetensors").read_bytes() for e in ("memory", "flower-simulation")
    )
    assert memory == simulated


def test_the_two_line_example_runs_in_the_simulation(tmp_path: Path) -> None:
    printed = run(sys.executable, EXAMPLE / "wrapped.py", cwd=tmp_path)
    assert "Hidden: every client's vector within the sum" in printed
    assert "simulated nodes: one machine played them all" in " ".join(printed.split())
    # (0*10 + 1*20 + 2*30 + 3*40) / 100 = 2, of which two half steps reach 3/4
    assert "average [1.5" in printed


def test_the_bundle_that_flower_sends_to_nodes_holds_source_alone(tmp_path: Path) -> None:
    run(Path(sysconfig.get_path("scripts")) / "flwr", "build", "--app", EXAMPLE, cwd=tmp_path)
    (bundle,) = tmp_path.glob("*.fab")
    with zipfile.ZipFile(bundle) as archive:
        names = [name for name in archive.namelist() if not name.startswith(".info")]
    assert "digits_app/client.py" in names
    assert {Path(name).suffix for name in names} <= {".py", ".toml", ".md", ""}
