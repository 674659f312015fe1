"""What a soak's files say: how many rounds were lost and to what, and what is wrong.

`python -m tests.flower.soaked FOLDER` prints it, also of a soak that still plays; `--save` keeps it for docs/flower.md.

Wrong is: a round lost although enough nodes were left alone, or with a server that nobody hurt; a session's number that
came twice, an update that left twice; a process that grew; a ledger that is not exact. What does not belong here:
playing one (`soak`).
"""

import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness import result, write
from dp import Ledger
from examples.flower.keys import Deployment, deployment_in
from fl.flower.files import MODEL
from protocols.identity import Identity
from protocols.record import FILE_NAME, verify_record

FAULTS_FILE, LOOKS_FILE, SUMMARY_FILE, APP_FILE = "faults.jsonl", "looks.jsonl", "summary.json", "app.jsonl"
AGAIN = "the soak itself, stopped and called again"
STOPPED = "stopped after inputs had been asked for"
DEMANDED = re.compile(r"answers of at least (\d+) clients")
GROWTH = 1.5
"""By how much a process may grow between its second and its last look."""


class Fault(NamedTuple):
    """What was done to whom ("server", or a node's name): after how many rounds it began, and after how many it was
    over (-1: the soak was stopped before that).
    """

    after: int
    fault: str
    whom: str
    until: int = -1

    def meets(self, number: int) -> bool:
        """Whether a round went on meanwhile, or was the one after: a node that is back may have lost its messages."""
        return self.after < number <= max(self.after, self.until) + 1


def faults_in(folder: Path) -> list[Fault]:
    """Return the faults so far, in order. The line at a fault's end stands in place of the one at its begin."""
    found: list[Fault] = []
    for row in _lines(folder / FAULTS_FILE):
        fault = Fault(**row)
        if fault.until >= 0 and found and found[-1][:3] == fault[:3]:
            found.pop()
        found.append(fault)
    return found


def summary(folder: Path) -> dict[str, Any]:
    """Return what a soak's files say, and what is wrong."""
    files, rounds, faults = (
        deployment_in(folder / "keys"),
        _lines(folder / "run/metrics.jsonl"),
        faults_in(folder),
    )
    looks = _lines(folder / LOOKS_FILE)
    lost = [line for line in rounds if line["abandoned"] is not None]
    apps = [app for node in files.nodes for app in _lines(node.identity.parent / APP_FILE)]
    wrong = [
        *_lost(lost, faults),
        *_twice(folder, files),
        *_grown(looks),
        *_server_ledger(folder, rounds, faults),
        *(said for node in files.nodes for said in _node_ledger(node.identity.parent)),
    ]
    if not (folder / "run" / MODEL).exists():
        wrong.append("there is no model")
    return {
        "rounds": len(rounds),
        "closed": len(rounds) - len(lost),
        "lost": dict(Counter(str(line["abandoned"]).partition(":")[0] for line in lost)),
        "faults": dict(Counter(fault.fault for fault in faults)),
        "nodes": len(files.nodes),
        "trips_per_round": sum(len(line["trips"]) for line in rounds) / max(1, len(rounds)),
        **_costs(looks, len(rounds), apps),
        "wrong": wrong,
    }


def _lost(lost: Sequence[dict[str, Any]], faults: Sequence[Fault]) -> Iterable[str]:
    """Rounds that could have been saved: too few nodes were hurt to explain them, or no server was."""
    for line in lost:
        number, why = line["round"], str(line["abandoned"])
        met = {fault.whom for fault in faults if fault.meets(number)}
        demanded, asked = DEMANDED.search(why), [trip["asked"] for trip in line["trips"]][:1]
        if "server" in met and STOPPED in why:
            continue
        if demanded is None or not asked or asked[0] - len(met - {"server"}) >= int(demanded[1]):
            yield f"round {number}, with {sorted(met) or 'nobody'} hurt: {why}"


def _twice(folder: Path, files: Deployment) -> Iterable[str]:
    """Numbers of sessions that came twice in the record, and updates that left a node twice."""
    key = Identity.load(files.server_identity).public
    numbers = [e.body.get("number") for e in verify_record(folder / "run" / FILE_NAME, key).entries]
    if (taken := [n for n in numbers if n is not None]) != sorted(set(taken)):
        yield "a session's number came twice in the record"
    for node in files.nodes:
        apps = _lines(node.identity.parent / APP_FILE)
        update = {app["context"]: app["update"] for app in apps if app["update"]}
        left = Counter(update[a["context"]] for a in apps if a["stage"] == "masked-input" and a["answered"])
        if again := sum(count - 1 for count in left.values()):
            yield f"{node.name}: {again} updates left twice"


def _grown(looks: Sequence[dict[str, Any]]) -> Iterable[str]:
    """Processes that grew by more than they may, from their second look on: before, not everything is loaded."""
    sizes: dict[str, list[int]] = defaultdict(list)
    for look in looks:
        for name, (kib, _) in look["processes"].items():
            sizes[name].append(kib)
    for name, kib in sizes.items():
        if len(kib) > 3 and kib[-1] > GROWTH * kib[1]:
            yield f"{name}: {kib[1]} to {kib[-1]} KiB"


def _server_ledger(folder: Path, rounds: Sequence[dict[str, Any]], faults: Sequence[Fault]) -> Iterable[str]:
    """The server charges every round once, and one that was stopped before inputs were asked for again when it is
    played again.
    """
    charged = Counter(entry.round for entry in Ledger(folder / "server.ledger").entries())
    missing = [line["round"] for line in rounds if line["abandoned"] is None and not charged[line["round"]]]
    if missing:
        yield f"server.ledger: round {missing[0]} was closed and not charged"
    again, servers = charged.total() - len(charged), sum(fault.whom == "server" for fault in faults)
    if again > servers:
        yield f"server.ledger: {again} rounds were charged again, the server was hurt {servers} times"


def _node_ledger(site: Path) -> Iterable[str]:
    """A node charges once for every session that it begins; one that it was killed in may be charged or not."""
    path, starts = site / "own.ledger", [app for app in _lines(site / APP_FILE) if app["round"]]
    charged = Counter(entry.round for entry in Ledger(path).entries()) if path.exists() else Counter[int]()
    asked = Counter(app["round"] for app in starts if app["answered"] is None)
    begun = Counter(app["round"] for app in starts if app["answered"])
    for number in sorted({*charged, *asked}):
        if not begun[number] <= charged[number] <= asked[number]:
            yield (
                f"{site.name}: round {number} was begun {begun[number]} times, asked for {asked[number]} times and "
                f"charged {charged[number]} times"
            )


def _costs(looks: Sequence[dict[str, Any]], rounds: int, apps: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Seconds of a round, of processors in all, and of these what the nodes' app processes took until they answered."""
    most: dict[str, float] = {}
    for look in looks:
        for name, (_, seconds) in look["processes"].items():
            most[name] = max(seconds, most.get(name, 0.0))
    seconds = sum(b["at"] - a["at"] for a, b in pairwise(looks) if set(a["processes"]) & set(b["processes"]))
    answered = [app["processor"] for app in apps if app["answered"] is not None]
    counted = max(1, rounds)
    return {
        "seconds_per_round": round(seconds / counted, 1),
        "processor_per_round": round(sum(most.values()) / counted, 1),
        "apps_per_round": round(len(answered) / counted, 1),
        "processor_per_app": round(sum(answered) / max(1, len(answered)), 2),
    }


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def save(found: dict[str, Any]) -> Path:
    """Keep a summary where the page of Flower reads it."""
    rows = [{"fault": name, "times": times} for name, times in found["faults"].items()]
    rows += [{"fault": f"round lost: {why}", "times": times} for why, times in found["lost"].items()]
    figures = {**found, "rows": rows, "wrong": len(found["wrong"])}
    arguments = {name: found[name] for name in ("nodes", "rounds")}
    return write(result("flower", "soak", arguments=arguments, figures=figures))


if __name__ == "__main__":
    here = summary(Path(sys.argv[1]))
    print(json.dumps(here, indent=2))
    if "--save" in sys.argv:
        print(save(here), file=sys.stderr)
