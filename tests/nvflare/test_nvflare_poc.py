"""A provisioned deployment on loopback over mutual TLS: real processes, certificates, a kill; and the simulator."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("nvflare", reason="the extra nvflare is not installed")

from examples.wards.loopback import (
    admit,
    environment,
    free_port,
    provision,
    session,
    started,
    submit,
    wait_for,
)
from fl import checkpoint
from fl.nvflare import private_job
from protocols.record import FILE_NAME, verify_record

pytestmark = pytest.mark.slow
SITES = ["site-1", "site-2", "site-3"]
PLACE = "ward:federation"
SECONDS = 900.0


def job_processes(kit: Path) -> list[int]:
    """The processes that play a job for one party, by the folder in their command line."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if str(kit) in command and any("runner_process" in word for word in command):
            found.append(int(entry.name))
    return found


def test_a_provisioned_deployment_plays_a_job_is_killed_and_goes_on(tmp_path: Path) -> None:
    kits = provision(tmp_path, SITES, free_port())
    for name in ("server", *SITES):
        admit(kits / name, PLACE)
    run = kits / "server" / "local" / "secagg" / "runs" / "run"
    with started(tmp_path, kits, ["server", *SITES]):
        admin = session(kits)
        wait_for(admin, len(SITES))
        job = private_job("wards", PLACE, 40, clients=SITES, timeout=120.0)
        submit(admin, tmp_path, job)
        ends = time.monotonic() + SECONDS
        while not checkpoint.rounds_in(run):
            assert time.monotonic() < ends
            time.sleep(0.5)
        (process,) = job_processes(kits / "server")
        os.kill(process, signal.SIGKILL)
        before = checkpoint.load_run(run)
        assert before is not None
        assert 1 <= before.rounds < 40
        rounds = before.rounds + 3
        again = submit(admin, tmp_path, private_job("again", PLACE, rounds, clients=SITES, timeout=120.0))
        assert admin.wait_for_job(again, timeout=SECONDS)["status"] == "FINISHED:COMPLETED"
        admin.close()
    kept = checkpoint.load_run(run)
    assert kept is not None
    assert [result.number for result in kept.history] == list(range(1, rounds + 1))
    assert kept.history[before.rounds + 1].survivors == tuple(SITES)
    assert sum(result.abandoned is not None for result in kept.history) <= 1
    verify_record(run / FILE_NAME)


def test_the_example_runs_in_the_simulator(tmp_path: Path) -> None:
    program = Path(__file__).parents[2] / "examples" / "wards" / "simulate.py"
    ran = subprocess.run(
        [sys.executable, str(program), str(tmp_path)],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    kept = checkpoint.load_run(Path(ran.stdout.splitlines()[-1]))
    assert kept is not None
    assert [result.survivors for result in kept.history] == [tuple(SITES)] * 2
    shutil.rmtree(tmp_path / "wards")
