"""The store against what happens to real processes: kills at any moment, full disks, two writers at once."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from protocols.store import FileStore

ROOT = Path(__file__).parents[3]

GROW = """
import sys
from protocols.store import FileStore
store = FileStore(sys.argv[1], "alice")
n = int(store.get("n") or b"0")
print("ready", flush=True)
while True:
    n += 1
    with store.transaction() as t:
        t.put("n", str(n).encode())
        t.put("check", str(-n).encode() * 2000)
    print(n, flush=True)
"""

FILL = """
import resource, signal, sys
from protocols.errors import StoreError
from protocols.store import FileStore
store = FileStore(sys.argv[1], "alice")
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    with store.transaction() as t:
        t.put("n", b"after")
        t.put("big", bytes(100_000))
except StoreError as error:
    print("refused:", error)
"""

COUNT = """
import sys
from protocols.store import AlreadyDone, FileStore
store = FileStore(sys.argv[1], "alice")
won = 0
for i in range(25):
    try:
        store.mark_once(f"update/{i}")
        won += 1
    except AlreadyDone:
        pass
print(won)
"""

HOLD = """
import sys, time
from protocols.store import FileStore
with FileStore(sys.argv[1], "alice").transaction():
    print("held", flush=True)
    time.sleep(600)
"""


def start(code: str, path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )


def test_a_kill_at_any_moment_leaves_what_was_acknowledged(tmp_path: Path) -> None:
    path, moments = tmp_path / "state", random.Random(1)
    for _ in range(8):
        process = start(GROW, path)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(moments.uniform(0.0, 0.05))
        process.kill()
        lines = process.stdout.read().split("\n")
        process.wait(60)
        acknowledged = int(lines[-2]) if len(lines) > 1 else 0
        with FileStore(path, "alice").transaction() as t:
            n = int(t.get("n") or b"0")
            assert n >= acknowledged
            assert (t.get("check") or b"") == str(-n).encode() * 2000 or n == 0


def test_a_full_disk_leaves_the_previous_state_whole(tmp_path: Path) -> None:
    path = tmp_path / "state"
    store = FileStore(path, "alice")
    store.put("n", b"before")
    process = start(FILL, path)
    output, _ = process.communicate(timeout=300)
    assert output.startswith("refused:")
    assert "whole" in output
    assert process.returncode == 0
    assert store.get("n") == b"before"
    assert store.version == 1
    assert not list(tmp_path.glob("*.new"))


def test_two_processes_never_both_do_what_is_done_once(tmp_path: Path) -> None:
    workers = [start(COUNT, tmp_path / "state") for _ in range(3)]
    won = [int(worker.communicate(timeout=300)[0]) for worker in workers]
    assert sum(won) == 25


@pytest.mark.parametrize("stop", [signal.SIGSTOP, signal.SIGKILL])
def test_a_stopped_holder_is_not_waited_for_without_end_and_a_killed_one_not_at_all(
    tmp_path: Path, stop: signal.Signals
) -> None:
    process = start(HOLD, tmp_path / "state")
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        os.kill(process.pid, stop)
        store = FileStore(tmp_path / "state", "alice", timeout=0.3)
        if stop is signal.SIGKILL:
            process.wait(60)
            assert store.get("a") is None
        else:
            with pytest.raises(Exception, match="held by another process"):
                store.get("a")
    finally:
        process.kill()
        process.wait(60)
        process.stdout.close()
