"""What a loopback deployment starts ends with it, also when whoever started it was killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from examples.flower.loopback import Process, command_of

STARTER = """
import os, sys, time
from pathlib import Path
from examples.flower.loopback import Process
one = Process("one", [sys.executable, "-c", "import time; time.sleep(600)"], Path(sys.argv[1]), dict(os.environ))
one.start()
print(one.popen.pid, flush=True)
time.sleep(600)
"""


def ended(pid: int, seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while command_of(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_processes_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(tmp_path / "log")],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    with starter:
        assert starter.stdout is not None
        child = int(starter.stdout.readline())
        assert command_of(child)
        starter.kill()
    assert ended(child)


def test_a_paused_process_is_stopped_too(tmp_path: Path) -> None:
    one = Process(
        "one", [sys.executable, "-c", "import time; time.sleep(600)"], tmp_path / "log", dict(os.environ)
    )
    one.start()
    one.signal(signal.SIGSTOP)
    (pid,) = one.family()
    one.stop()
    assert not one.alive
    assert ended(pid)
