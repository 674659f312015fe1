"""A soak: many rounds on a real deployment with a random fault in every round on average.

    python -m tests.flower.soak build/soak --rounds 200 --nodes 10      # about an hour and a half on a quiet machine

Faults: a SuperNode killed, paused past the stage's time or restarted; the ServerApp killed; the SuperLink killed and
restarted with its database. Cut off, it goes on where it was when it is called again. It ends with `summary.json`, and
fails unless every round that could have been saved was, no update left twice, memory is flat and the ledgers are exact.
What does not belong here: single faults at every stage (`test_flower_matrix`).
"""

import argparse
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from dp import Ledger
from fl.flower.files import MODEL
from protocols.identity import Identity
from protocols.record import FILE_NAME, verify_record
from tests.flower.deployed import Deployed, free_again, until

FAULTS = {
    "kill a node": 4,
    "pause a node": 3,
    "restart a node": 3,
    "kill the ServerApp": 1,
    "restart the SuperLink": 1,
}
"""How often each is drawn, relative to the others."""
SERVER = ("kill the ServerApp", "restart the SuperLink")
STOPPED = "stopped after inputs had been asked for"
GROWTH = 1.5
"""By how much a process may grow between its first and its last look."""


class Soak:
    """One soak in `folder`. seconds: of a stage. Faults so far lie in `faults.json`, a line per fault: after how many
    rounds it came, what it was, whom it hit.
    """

    def __init__(self, folder: Path, nodes: int, rounds: int, seconds: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.d = Deployed(folder, nodes=nodes, privacy="soak", seconds=seconds)
        self.folder, self.rounds, self.random = folder, rounds, random.SystemRandom()
        self.log, self.memory = folder / "faults.json", dict[str, list[int]]()

    def faults(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def play(self) -> dict[str, Any]:
        """Run all rounds that are left, and return the summary."""
        with self.d as d:
            d.submit(rounds=self.rounds)
            while d.rounds_done() < self.rounds:
                self._look()
                self._hurt(d.rounds_done())
                self._go_on()
            d.it.wait(d.run or 0, 900.0 * d.patience)
            self._look()
        return self.summary()

    def _go_on(self) -> None:
        """Wait for a round, or for the run's end; submit the run again where its server is gone."""
        d, done = self.d, self.d.rounds_done()

        def over() -> bool:
            return d.rounds_done() > done or d.it.ended(d.run or 0)

        until(over, 8 * self.d.seconds * d.patience * 10, f"round {done + 1} is over")
        if d.rounds_done() < self.rounds and d.it.ended(d.run or 0):
            d.submit(rounds=self.rounds)

    def _hurt(self, done: int) -> None:
        """Draw a fault, wait for a random moment, and do it."""
        what = self.random.choices(list(FAULTS), list(FAULTS.values()))[0]
        node = self.random.choice([n.name for n in self.d.it.files.nodes])
        time.sleep(self.random.uniform(0.0, 10.0))
        with self.log.open("a") as log:
            whom = "server" if what in SERVER else node
            log.write(json.dumps({"after": done, "fault": what, "whom": whom}) + "\n")
        print(f"{done} of {self.rounds} rounds: {what} ({whom})", flush=True)
        self._do(what, node)

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

    def _look(self) -> None:
        """Note how much memory the long-running processes hold, in KiB."""
        for name, process in {"superlink": self.d.it.superlink, **self.d.it.nodes}.items():
            with suppress(OSError, AttributeError):
                status = Path(f"/proc/{process.popen.pid}/status").read_text()  # type: ignore[union-attr]  # or it is gone
                self.memory.setdefault(f"{name} {process.popen.pid}", []).append(
                    resident(status.splitlines())
                )  # type: ignore[union-attr]  # as above

    def summary(self) -> dict[str, Any]:
        """Return what the run's files say, and what is wrong."""
        lines, faults = self.d.lines(), self.faults()
        key = Identity.load(self.d.it.files.server_identity).public
        entries = verify_record(self.d.run_folder / FILE_NAME, key).entries
        numbers = [e.body["number"] for e in entries if "number" in e.body]
        lost = [line for line in lines if line["abandoned"] is not None]
        hurt = Counter(f["after"] + 1 for f in faults if f["fault"] not in SERVER)
        spared = len(self.d.it.files.nodes) // 5  # drop-outs that SecAggPlus() is planned for
        wrong = [
            f"round {line['round']}: {line['abandoned']}"
            for line in lost
            if STOPPED not in str(line["abandoned"])
            and hurt[line["round"]] + hurt[line["round"] - 1] <= spared
        ]
        servers = sum(f["fault"] in SERVER for f in faults)
        if len(stopped := [line for line in lost if STOPPED in str(line["abandoned"])]) > servers:
            wrong.append(f"{len(stopped)} rounds were lost with the server, which was hurt {servers} times")
        if numbers != sorted(set(numbers)):
            wrong.append("a session's number came twice in the record")
        wrong += [f"{name}: {first} to {last} KiB" for name, first, last in self._grown()]
        wrong += self._ledgers(lines)
        if not (self.d.run_folder / MODEL).exists():
            wrong.append("there is no model")
        return {
            "rounds": len(lines),
            "closed": len(lines) - len(lost),
            "abandoned": dict(Counter(str(line["abandoned"]).partition(":")[0] for line in lost)),
            "faults": dict(Counter(f["fault"] for f in faults)),
            "nodes": len(self.d.it.files.nodes),
            "trips_per_round": sum(len(line["trips"]) for line in lines) / max(1, len(lines)),
            "wrong": wrong,
        }

    def _grown(self) -> Iterable[tuple[str, int, int]]:
        """Processes that grew by more than they may, from their second look on: before, not everything is loaded."""
        for name, sizes in self.memory.items():
            if len(sizes) > 3 and sizes[-1] > GROWTH * sizes[1]:
                yield name, sizes[1], sizes[-1]

    def _ledgers(self, lines: list[dict[str, Any]]) -> Iterable[str]:
        """The server charges every round once, one that was stopped before inputs were asked for once more when it is
        played again; a node at most once per session, and at least for each that it sent its input in.
        """
        charged = Counter(entry.round for entry in Ledger(self.folder / "server.ledger").entries())
        missing = [
            line["round"] for line in lines if line["abandoned"] is None and not charged[line["round"]]
        ]
        if missing:
            yield f"server.ledger: round {missing[0]} was closed and not charged"
        again = sum(charged.values()) - len(charged)
        if again > sum(f["fault"] in SERVER for f in self.faults()):
            yield f"server.ledger: {again} rounds were charged again"
        for node in self.d.it.files.nodes:
            path = node.identity.parent / "own.ledger"
            own = (
                Counter(entry.round for entry in Ledger(path).entries()) if path.exists() else Counter[int]()
            )
            if any(count > 1 + charged[number] for number, count in own.items()):
                yield f"{node.name}: a round was charged too often"


def resident(status: Iterable[str]) -> int:
    """The resident KiB of /proc/PID/status."""
    return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=20.0, help="of a stage, on a quiet machine")
    given = parser.parse_args()
    soak = Soak(given.folder.resolve(), given.nodes, given.rounds, given.seconds)
    found = soak.play()
    (given.folder / "summary.json").write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
