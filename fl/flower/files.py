"""A run's files on the server: checkpoint, model, statement, metrics, signed record, in an order that survives kills.

What does not belong here: the server's sealed state (`server`), what a round does.

checkpoint.npz is the truth and replaced whole: the arrays exactly as the strategy's loop holds them, what the strategy
keeps, and the facts of the round. Model, statement, metrics and the record's entry follow from it, the record last; a
server that was killed in between writes them when it is started again. The checkpoint holds the facts of its entry and
not its head, so that the entry can name the checkpoint's digest.
"""

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl.flower.rounds import like
from fl.flower.server import ProtectedRounds, Report
from protocols.errors import Misuse, RecordError, SecAggError
from protocols.guarantee import price_to_json
from protocols.identity import Identity
from protocols.record import FILE_NAME, RunRecord, file_digest
from protocols.store import write_atomic
from protocols.updates import Schema

CHECKPOINT, MODEL, STATEMENT, METRICS = "checkpoint.npz", "model.npz", "statement.json", "metrics.jsonl"
_ROUNDS, _FACTS = "__rounds__", "__facts__"
_ARRAYS, _STRATEGY = "arrays/", "strategy/"
VERSION = 1

Tree = dict[str, NDArray[Any]]


@dataclass
class Saved:
    """A run after `done` rounds. number: of the last session (0: none yet). kind: the strategy's class.

    arrays: as the strategy's loop holds them. strategy: what it keeps.
    entry, line, statement: what the record, metrics.jsonl and statement.json say of the last round; None for round 0.
    """

    done: int
    number: int
    kind: str
    arrays: Tree = field(repr=False)
    strategy: Tree = field(repr=False)
    entry: dict[str, Any]
    line: dict[str, Any] | None = None
    statement: dict[str, Any] | None = None


def load(folder: Path) -> Saved | None:
    """Return the run in `folder`, or None if there is none. Nothing is unpickled.

    Raises SecAggError for a damaged checkpoint, Misuse for a folder that holds a model and no checkpoint.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        if (folder / MODEL).exists():
            raise Misuse(f"{folder} holds a {MODEL} and no {CHECKPOINT} to go on from: name another folder")
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            read = {name: file[name] for name in file.files}
        facts = json.loads(read.pop(_FACTS).tobytes())
        if facts.pop("version") != VERSION:
            raise SecAggError(f"{path}: expected a checkpoint of version {VERSION}")
        return Saved(arrays=_under(read, _ARRAYS), strategy=_under(read, _STRATEGY), **facts)
    except (KeyError, TypeError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise SecAggError(f"{path} is not a checkpoint of this toolkit: {error}") from None


class RunFiles:
    """The files of one run in `folder`, which is made. Every file is replaced whole; the record comes last.

    schema: the model's own dtypes and shapes, in which model.npz is written.
    """

    def __init__(self, folder: Path, signer: Identity | None, schema: Schema) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.schema = schema
        self.record = RunRecord.open(folder / FILE_NAME, signer)

    def save(self, run: Saved) -> str:
        """Save a run and return the record's new head."""
        facts = {
            name: getattr(run, name) for name in ("done", "number", "kind", "entry", "line", "statement")
        }
        text = json.dumps({"version": VERSION, **facts}).encode()
        entries: Tree = {_FACTS: np.frombuffer(text, np.uint8)}
        for prefix, tree in ((_ARRAYS, run.arrays), (_STRATEGY, run.strategy)):
            entries |= {prefix + name: array for name, array in tree.items()}
        self._write(CHECKPOINT, entries)
        return self._follow(run)

    def catch_up(self, run: Saved) -> str:
        """Write what a server that was killed right after its checkpoint did not; return the record's head.

        Raises RecordError for a checkpoint or a record that was changed, removed or put back from a copy.
        """
        if self.record.length == run.done:
            return self._follow(run)
        if self.record.length != run.done + 1:
            raise RecordError(
                f"{self.record.path} holds {self.record.length} entries and the checkpoint beside it {run.done + 1}: "
                "one of them was removed or replaced; put it back, or begin in another folder"
            )
        self.record.require_file(self.folder / CHECKPOINT)
        return self.record.head

    def close(self) -> None:
        self.record.close()

    def _follow(self, run: Saved) -> str:
        self._write(MODEL, {_ROUNDS: np.array(run.done), **like(run.arrays, self.schema)})
        names = [CHECKPOINT, MODEL]
        if run.line is not None:
            self._add_metrics(run.done, run.line)
            names.append(METRICS)
        if run.statement is not None:
            text = json.dumps(run.statement, indent=2) + "\n"
            write_atomic(self.folder / STATEMENT, text.encode(), 0o644)
            names.append(STATEMENT)
        return self.record.append(
            {**run.entry, "files": {name: file_digest(self.folder / name) for name in names}}
        )

    def _write(self, name: str, entries: Mapping[str, NDArray[Any]]) -> None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(
            buffer, "w", zipfile.ZIP_STORED
        ) as archive:  # np.savez keeps some names for itself
            for key, array in entries.items():
                with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
        write_atomic(self.folder / name, buffer.getbuffer(), 0o644)

    def _add_metrics(self, done: int, line: Mapping[str, Any]) -> None:
        path = self.folder / METRICS
        before = path.read_bytes().splitlines(keepends=True)[: max(0, done - 1)] if path.exists() else []
        text = json.dumps({"round": done, **line}).encode() + b"\n"
        write_atomic(path, b"".join([*before, text]), 0o644)


def describe(run: Saved, planned: int, rounds: ProtectedRounds, report: Report | None) -> Saved:
    """Fill in what the record, the metrics and the statement are to say of the last round."""
    run.entry = {"round": run.done, "of": planned}
    if report is None:
        return run
    run.number = report.number or run.number
    run.entry |= round_facts(report, rounds)
    run.line = round_line(report)
    if rounds.protection is not None:
        statement = rounds.statement()
        run.statement = statement.to_json()
        run.entry["statement"] = statement.digest().hex()
    return run


def round_facts(report: Report, rounds: ProtectedRounds) -> dict[str, Any]:
    """Return what the record keeps of a round: counts and digests, no names. number: of its session, if it had one."""
    stack = rounds.options.stack
    return {
        **({"number": report.number} if report.number else {}),
        "session": report.session,
        "asked": len(report.asked),
        "survivors": len(report.survivors),
        "abandoned": report.abandoned,
        "secure_sum": stack.secure_sum.tag,
        "layers": [layer.name for layer in stack.layers],
        "epsilon": price_to_json(rounds.account.price()),
    }


def round_line(report: Report) -> dict[str, Any]:
    """Return a round's line of metrics.jsonl."""
    return {
        "asked": len(report.asked),
        "survivors": len(report.survivors),
        "abandoned": report.abandoned,
        "metrics": report.metrics,
        "clipped": report.clipped,
        "weights_capped": report.weights_capped,
        "seconds": report.seconds,
        "trips": [{**asdict(trip), "waiting": trip.waiting} for trip in report.trips],
    }


def _under(read: Mapping[str, NDArray[Any]], prefix: str) -> Tree:
    return {name.removeprefix(prefix): array for name, array in read.items() if name.startswith(prefix)}
