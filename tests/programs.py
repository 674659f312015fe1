"""Programs that tests start as processes of their own. What belongs here: starting one, what it said, its end.

A program that trains spends seconds of processor on importing torch alone, and some tests start six. These are forked
from a process that has imported the heavy libraries and nothing else, and has run nothing. What needs a new interpreter
(imports, the command's start-up, what a kill leaves half imported) starts one itself.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

HEAVY = [
    "pytest",
    "torch",
    "torch.utils.data",
    "numba",
    "scipy.stats",
    "scipy.optimize",
    "dp_accounting.pld",
    "opacus.grad_sample",
]
OURS = ["fl.federation", "fl.average", "fl.cli.run", "dp", "dp.sample.layer", "secagg.protocol"]
FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload([*HEAVY, *OURS])


class Program:
    """A process that runs a module (`python -m`) or a file, in `folder`, with what it prints in files."""

    def __init__(
        self, what: str | Path, *arguments: str, folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self._kept = tempfile.TemporaryDirectory()
        self.out, self.err = Path(self._kept.name, "out"), Path(self._kept.name, "err")
        words = [str(what), *arguments]
        given = words, folder, {**os.environ, **(environment or {})}, self.out, self.err
        self._process = FORK.Process(target=_become, args=given)
        self.out.touch()
        self.err.touch()
        self._process.start()

    def line(self, seconds: float = 120.0) -> str:
        """Wait for its first line and return it."""
        deadline = time.monotonic() + seconds
        while "\n" not in (said := self.out.read_text()):
            assert self._process.exitcode is None, self.err.read_text()
            assert time.monotonic() < deadline, "it said nothing"
            time.sleep(0.01)
        return said.partition("\n")[0]

    def send(self, number: signal.Signals) -> None:
        os.kill(self._process.pid or 0, number)

    def end(self, seconds: float = 300.0) -> subprocess.CompletedProcess[str]:
        """Wait for its end. After so many seconds it is killed, and AssertionError says what it had printed."""
        self._process.join(seconds)
        if late := self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        code = self._process.exitcode
        assert code is not None
        said = self.out.read_text(), self.err.read_text()
        self._kept.cleanup()
        assert not late, f"it did not end within {seconds:.0f} s: {''.join(said)}"
        return subprocess.CompletedProcess([], code, *said)


def ran(
    what: str | Path, *arguments: str, folder: Path, seconds: float = 300.0
) -> subprocess.CompletedProcess[str]:
    """Run a module or a file in `folder` to its end."""
    return Program(what, *arguments, folder=folder).end(seconds)


def _become(words: list[str], folder: Path, environment: dict[str, str], out: Path, err: Path) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = words
    if words[0].endswith(".py"):
        sys.path.insert(0, str(Path(words[0]).parent))
        runpy.run_path(words[0], run_name="__main__")
    else:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
