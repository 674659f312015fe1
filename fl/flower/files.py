"""A run's files on the server: the model, the statement, the metrics and the signed record, in an order
that survives kills.

What does not belong here: the server's sealed state (`server`), what a round does.
"""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl.flower.server import ProtectedRounds, Report
from protocols.identity import Identity
from protocols.record import FILE_NAME, RunRecord, file_digest
from protocols.store import write_atomic

MODEL, STATEMENT, METRICS = "model.npz", "statement.json", "metrics.jsonl"
_ROUNDS = "__rounds__"


class RunFiles:
    """The files of one run in `folder`, which is made. Every file is replaced whole; the record comes last."""

    def __init__(self, folder: Path, signer: Identity | None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.record = RunRecord.open(folder / FILE_NAME, signer)

    def save(
        self,
        done: int,
        planned: int,
        tree: Mapping[str, NDArray[Any]],
        rounds: ProtectedRounds,
        report: Report | None,
    ) -> str:
        """Save the state after `done` rounds and return the record's new head."""
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **{_ROUNDS: np.array(done)}, **dict(tree))
        write_atomic(self.folder / MODEL, buffer.getbuffer(), 0o644)
        names = [MODEL]
        facts: dict[str, Any] = {"round": done, "of": planned}
        if report is not None:
            statement = rounds.statement()
            text = json.dumps(statement.to_json(), indent=2) + "\n"
            write_atomic(self.folder / STATEMENT, text.encode(), 0o644)
            self._add_metrics(done, report)
            names += [STATEMENT, METRICS]
            facts |= round_facts(report, rounds) | {"statement": statement.digest().hex()}
        return self.record.append({**facts, "files": {n: file_digest(self.folder / n) for n in names}})

    def note(self, facts: Mapping[str, Any]) -> str:
        """Add an entry that is no round."""
        return self.record.append(facts)

    def close(self) -> None:
        self.record.close()

    def _add_metrics(self, done: int, report: Report) -> None:
        path = self.folder / METRICS
        before = path.read_bytes().splitlines(keepends=True)[: max(0, done - 1)] if path.exists() else []
        line = json.dumps({"round": done, **round_line(report)}).encode() + b"\n"
        write_atomic(path, b"".join([*before, line]), 0o644)


def load_model(folder: Path) -> tuple[dict[str, NDArray[Any]], int] | None:
    """Return the saved model and how many rounds are done, or None if there is none. Nothing is unpickled."""
    path = folder / MODEL
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as file:
        tree = {name: file[name] for name in file.files if name != _ROUNDS}
        return tree, int(file[_ROUNDS])


def round_facts(report: Report, rounds: ProtectedRounds) -> dict[str, Any]:
    """Return what the record keeps of a round: counts and digests, no names."""
    stack = rounds.options.stack
    return {
        "number": report.number,
        "session": report.session,
        "asked": len(report.asked),
        "survivors": len(report.survivors),
        "abandoned": report.abandoned,
        "secure_sum": stack.secure_sum.tag,
        "layers": [layer.name for layer in stack.layers],
        "epsilon": rounds.account.price(),
    }


def round_line(report: Report) -> dict[str, Any]:
    """Return a round's line of metrics.jsonl."""
    return {
        "asked": len(report.asked),
        "survivors": len(report.survivors),
        "abandoned": report.abandoned,
        "metrics": report.metrics,
        "clipped": report.clipped,
        "seconds": report.seconds,
        "trips": [
            {
                "stage": t.stage,
                "seconds": t.seconds,
                "node": t.node,
                "train": t.train,
                "server": t.server,
                "waiting": t.waiting,
                "asked": t.asked,
                "answered": t.answered,
                "up": t.up,
                "down": t.down,
            }
            for t in report.trips
        ],
    }
