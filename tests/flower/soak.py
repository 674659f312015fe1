"""A soak: many rounds on a real deployment with a random fault in every round on average.

    python -m tests.flower.soak build/soak --rounds 200 --nodes 10      # hours: docs/flower.md says how many

Faults: a SuperNode killed, paused past the stage's time or restarted; the ServerApp killed; the SuperLink killed and
restarted with its database. Cut off, it goes on where it was when it is called again, which counts as a fault of its
own: everything ends with it. It ends with `summary.json`, and fails if that names anything wrong (`soaked`).
What does not belong here: what a soak's files say (`soaked`), single faults at every stage (`test_flower_matrix`).
"""

import argparse
import json
import os
import random
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.flower.deployed import Deployed, free_again, until
from tests.flower.soaked import AGAIN, FAULTS_FILE, LOOKS_FILE, SUMMARY_FILE, Fault, faults_in, summary

FAULTS = {
    "kill a node": 4,
    "pause a node": 3,
    "restart a node": 3,
    "kill the ServerApp": 1,
    "restart the SuperLink": 1,
}
"""How often each is drawn, relative to the others."""
SERVER = ("kill the ServerApp", "restart the SuperLink")
WAIT_SECONDS = 10.0
"""The longest wait before a fault, so that it hits any stage of a round."""
STILL = 5
"""After how many runs that ended without a round the soak gives up."""
TICKS = os.sysconf("SC_CLK_TCK")


class Soak:
    """One soak in `folder`. seconds: of a stage."""

    def __init__(self, folder: Path, nodes: int, rounds: int, seconds: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.d = Deployed(folder, nodes=nodes, privacy="soak", seconds=seconds)
        self.folder, self.rounds, self.random = folder, rounds, random.SystemRandom()

    def play(self) -> None:
        """Run all rounds that are left."""
        if self.d.rounds_done():
            self._note(Fault(self.d.rounds_done(), AGAIN, "server"))
        with self.d as d:
            d.submit(rounds=self.rounds)
            while (done := d.rounds_done()) < self.rounds:
                self._look(done)
                if len(faults_in(self.folder)) <= done:
                    self._hurt(done)
                else:
                    self._go_on(done)
            d.it.wait(d.run or 0, 900.0 * d.patience)
            self._look(d.rounds_done())

    def _go_on(self, done: int) -> None:
        """Wait for a round, or for the run's end; submit the run again where its server is gone."""
        d = self.d

        def over() -> bool:
            return d.rounds_done() > done or d.it.ended(d.run or 0)

        for _ in range(STILL):
            until(over, 80 * d.seconds * d.patience, f"round {done + 1} is over")
            if d.rounds_done() > done:
                return
            d.submit(rounds=self.rounds)
        raise RuntimeError(f"{STILL} runs ended without round {done + 1}:\n{d.it.logs(d.run or 0)[-3000:]}")

    def _hurt(self, done: int) -> None:
        """Draw a fault, wait for a random moment, do it, and note how many rounds it lasted."""
        what = self.random.choices(list(FAULTS), list(FAULTS.values()))[0]
        node = self.random.choice([n.name for n in self.d.it.files.nodes])
        whom = "server" if what in SERVER else node
        time.sleep(self.random.uniform(0.0, WAIT_SECONDS))
        after = self.d.rounds_done()
        print(f"{after} of {self.rounds} rounds: {what} ({whom})", flush=True)
        self._note(Fault(after, what, whom))
        self._do(what, node)
        self._note(Fault(after, what, whom, until=self.d.rounds_done()))

    def _note(self, fault: Fault) -> None:
        with (self.folder / FAULTS_FILE).open("a") as log:
            log.write(json.dumps(fault._asdict()) + "\n")

    def _do(self, what: str, node: str) -> None:
        it, process = self.d.it, self.d.it.nodes[node]
        if what == "kill a node":
            process.kill()
            it.restart(node)
        elif what == "restart a node":
            process.stop()
            it.restart(node)
        elif what == "pause a node":
            process.signal(signal.SIGSTOP)
            time.sleep(1.2 * self.d.seconds)
            process.signal(signal.SIGCONT)
        elif what == "kill the ServerApp":
            for pid in it.serverapps():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        else:
            it.superlink.kill()
            until(lambda: free_again(it.port), 60, "the port is free")
            it.superlink.start()
            it.wait_for_superlink()
        if what in SERVER:
            self.d.submit(rounds=self.rounds)

    def _look(self, done: int) -> None:
        """Note, for every long-running process, its resident KiB and the processor seconds of it and its children."""
        found: dict[str, Any] = {}
        for name, process in {"superlink": self.d.it.superlink, **self.d.it.nodes}.items():
            with suppress(OSError, IndexError):  # or it has just ended
                family = process.family()
                found[f"{name} {family[0]}"] = resident(family[0]), sum(processor(family))
        for pid in self.d.it.serverapps():
            with suppress(OSError):
                found[f"serverapp {pid}"] = resident(pid), 0.0  # its seconds are the SuperLink's
        with (self.folder / LOOKS_FILE).open("a") as log:
            log.write(json.dumps({"at": time.time(), "rounds": done, "processes": found}) + "\n")


def resident(pid: int) -> int:
    """The resident KiB of a process, from /proc (Linux)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS")), 0)


def processor(pids: Iterable[int]) -> Iterable[float]:
    """The processor seconds of each process and of its children that have ended, from /proc (Linux)."""
    for pid in pids:
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            yield sum(map(int, fields[11:15])) / TICKS


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=20.0, help="of a stage, on a quiet machine")
    given = parser.parse_args()
    folder = given.folder.resolve()
    Soak(folder, given.nodes, given.rounds, given.seconds).play()
    found = summary(folder)
    (folder / SUMMARY_FILE).write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
