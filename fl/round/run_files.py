"""What a run keeps on disk, so that a killed one goes on: one checkpoint, replaced whole, from which all else follows.

What belongs here: `checkpoint.npz`, what follows from it (the model's file, metrics.jsonl, statement.json, the record's
entry) and their order, which survives a kill at any point. What does not: torch. Other versions are refused by name.

The checkpoint is written first; the record's entry, which names the digests of all other files, comes last. A run that
was killed in between writes what is missing when it is started again. The checkpoint holds the body of its entry and
not its head, so that the entry can name the checkpoint.
"""

import io
import json
import math
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl.round.reference import Tree
from fl.round.result import RoundResult, Trip
from protocols.errors import RecordError, SecAggError
from protocols.guarantee import Guarantee, price_shown
from protocols.identity import Identity
from protocols.randomness import SystemRandom
from protocols.record import FILE_NAME, RunRecord, file_digest
from protocols.stack import Stack
from protocols.statement import PrivacyEvent, Statement
from protocols.store import write_atomic

CHECKPOINT, METRICS, STATEMENT, CONFIG = "checkpoint.npz", "metrics.jsonl", "statement.json", "config.toml"
VERSION = 2
_FIRST = "checkpoint.safetensors"
"""The checkpoint of version 1."""
_FACTS, _SALT, _MODEL, _STRATEGY, _LAYER = "__facts__", "__salt__", "model/", "strategy/", "layer/"
_PLAIN = ("kind", "made_with", "layers", "run", "session", "entry", "statement")
"""Fields of `KeptRun` that are JSON as they are."""
Json = dict[str, Any]


@dataclass
class KeptRun:
    """A run after `len(history)` rounds.

    model: exactly as its owner holds it. strategy: the server's arrays from round to round. kind: the strategy's
    class, where that matters. made_with: settings that a resumed run must share. layers: each layer's state, by name:
    JSON values, and arrays, which nobody but the run's owner may read.
    events, run: the account's, and its name in a ledger. session: number of the last session (0: none). entry,
    statement: what the record and statement.json say of the last round, None where they say nothing.
    """

    history: list[RoundResult]
    model: Tree = field(repr=False)
    strategy: Tree = field(repr=False)
    kind: str = ""
    made_with: Json = field(default_factory=dict)
    layers: dict[str, Json] = field(default_factory=dict)
    events: tuple[PrivacyEvent, ...] = ()
    run: str = ""
    session: int = 0
    entry: Json | None = None
    statement: Json | None = None

    @property
    def rounds(self) -> int:
        return len(self.history)

    @property
    def secrets(self) -> Tree:
        """The arrays of layers' states."""
        return {
            f"{_LAYER}{name}/{key}": value
            for name, state in self.layers.items()
            for key, value in state.items()
            if isinstance(value, np.ndarray)
        }


def entry_of(result: RoundResult, planned: int, stack: Stack, statement: Statement | None) -> Json:
    """Return what the record keeps of a round: counts and digests, no names."""
    return {
        "round": result.number,
        "of": planned,
        **({"number": result.session_number} if result.session_number else {}),
        "session": result.session,
        **_counts(result),
        "clipped_share": result.clipped_share,
        "weights_capped": result.weights_capped,
        "empty_clients": result.empty_clients,
        "abandoned": result.abandoned,
        "secure_sum": stack.secure_sum.tag,
        "layers": [layer.name for layer in stack.layers],
        **_price(result),
        **({} if statement is None else {"statement": statement.digest().hex()}),
    }


def line_of(result: RoundResult) -> Json:
    """Return a round as an object of metrics.jsonl; null stands for numbers that JSON does not have."""
    line = {
        "round": result.number,
        **result.metrics,
        "train": result.train_metrics,
        **_counts(result),
        "bytes_up_per_client": None if result.withheld else result.bytes_up_per_client,
        "bytes_down_per_client": None if result.withheld else result.bytes_down_per_client,
        "seconds": result.seconds,
        **({"waited": result.waited} if result.waited else {}),
        "clipped_share": result.clipped_share,
        "weights_capped": result.weights_capped,
        "clipped_tensors": result.clipped_tensors,
        "empty_clients": result.empty_clients,
        **_price(result),
        "abandoned": result.abandoned,
        "trips": [{**asdict(trip), "waiting": trip.waiting} for trip in result.trips],
    }
    return dict(_finite(line))


def _counts(result: RoundResult) -> Json:
    """How many were asked and survived; null where that is withheld."""
    told = not result.withheld
    return {
        "asked": len(result.asked) if told else None,
        "survivors": len(result.survivors) if told else None,
    }


def _price(result: RoundResult) -> Json:
    """Return the guarantees, and the epsilon of the only one; "several" where there are more, since no one number is
    all of theirs.
    """
    return {"epsilon": price_shown(result.guarantees), "guarantees": _lines(result)}


def _lines(result: RoundResult) -> list[Json]:
    return [line.to_json() for line in result.guarantees]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def encode(kept: KeptRun) -> bytes:
    """Return the bytes of a checkpoint, with 32 secret ones beside layers' secret arrays."""
    history = [asdict(result) | {"guarantees": _lines(result)} for result in kept.history]
    facts = {name: getattr(kept, name) for name in _PLAIN}
    facts |= {"version": VERSION, "history": history, "events": [asdict(event) for event in kept.events]}
    facts["layers"] = {
        name: {key: value for key, value in state.items() if f"{_LAYER}{name}/{key}" not in kept.secrets}
        for name, state in kept.layers.items()
    }
    arrays = {_FACTS: np.frombuffer(json.dumps(facts).encode(), np.uint8)}
    arrays |= {_MODEL + name: array for name, array in kept.model.items()} | dict(kept.secrets)
    if kept.secrets:  # or the digest in the public record would let anybody try what they may be
        arrays[_SALT] = np.frombuffer(SystemRandom().bytes(32), np.uint8)
    return npz(arrays | {_STRATEGY + name: array for name, array in kept.strategy.items()})


def npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the bytes of an npz file. np.savez keeps some names for itself; nothing is pickled."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for key, array in arrays.items():
            with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
    return buffer.getvalue()


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of an npz file; nothing is unpickled. Raises SecAggError for one that cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise SecAggError(f"{path} is gone: put it back, or begin in another folder") from None
    except (EOFError, KeyError, OSError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise SecAggError(
            f"{path} is not a checkpoint of this toolkit: {error}; put it back, or begin in another folder"
        ) from None


def load(folder: Path) -> KeptRun | None:
    """Return the run in `folder`, None if it holds no checkpoint. Nothing is unpickled.

    Raises SecAggError for a damaged checkpoint or one of another version.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        if (folder / _FIRST).exists():
            raise _other_version(folder / _FIRST, 1)
        return None
    arrays = read_npz(path)
    try:
        facts = json.loads(arrays.pop(_FACTS).tobytes())
        if facts["version"] != VERSION:
            raise _other_version(path, facts["version"])
        history = [result_from_json(entry) for entry in facts["history"]]
        events = tuple(PrivacyEvent(**event) for event in facts["events"])
        model, strategy = under(arrays, _MODEL), under(arrays, _STRATEGY)
        for place, array in under(arrays, _LAYER).items():
            layer, _, key = place.partition("/")
            facts["layers"].setdefault(layer, {})[key] = array
        return KeptRun(history, model, strategy, events=events, **{name: facts[name] for name in _PLAIN})
    except (KeyError, TypeError, ValueError) as error:
        raise SecAggError(f"{path} is not a checkpoint of this toolkit: {error}") from None


def _other_version(path: Path, found: object) -> SecAggError:
    return SecAggError(
        f"{path}: expected a checkpoint of version {VERSION}, got {found!r}: begin in another folder"
    )


def under(arrays: Tree, prefix: str) -> Tree:
    """Return the arrays whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def result_from_json(entry: Json) -> RoundResult:
    """Inverse of a RoundResult's JSON; what this version does not know is passed over."""
    known = {f.name for f in fields(RoundResult)}
    kept = {k: v for k, v in entry.items() if k in known}
    kept["guarantees"] = tuple(Guarantee.from_json(line) for line in entry["guarantees"])
    kept["trips"] = tuple(Trip(**trip) for trip in entry["trips"])
    return RoundResult(**{**kept, "asked": tuple(entry["asked"]), "survivors": tuple(entry["survivors"])})


def last_entry(folder: Path) -> Json | None:
    """Return the last whole entry of the record in `folder`, None without one. Whether the record holds is checked
    where it is opened.
    """
    try:
        entry = json.loads((folder / FILE_NAME).read_bytes().split(b"\n")[-2])
    except (OSError, IndexError, ValueError):
        return None
    return entry if isinstance(entry, dict) else None


class RunFiles:
    """The files of one run in `folder`, which is made. Every file is replaced whole; the record comes last.

    model, encoder: the name of the model's file, and what makes its bytes of the model. signer: signs the record.
    first: the first round that gets an entry (0: the state before round 1 does too).
    """

    def __init__(
        self,
        folder: Path,
        signer: Identity | None,
        model: str,
        encoder: Callable[[KeptRun], bytes],
        first: int = 1,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.model, self.encoder, self.first = folder, model, encoder, first
        self.record = RunRecord.open(folder / FILE_NAME, signer)

    def begin(self, kept: KeptRun) -> str:
        """Save a run that has not played a round. Raises RecordError beside a record that holds rounds already."""
        self._require_recorded(kept, self.first - 1)
        return self.save(kept)

    def hold(self, kept: KeptRun) -> str:
        """Save a run's checkpoint, from which all else can be made; return the record's head, which stays."""
        write_atomic(self.folder / CHECKPOINT, encode(kept), 0o600 if kept.secrets else 0o644)
        return self.record.head

    def save(self, kept: KeptRun) -> str:
        """Save a run and return the record's head."""
        self.hold(kept)
        return self._follow(kept) if kept.rounds >= self.first else self.record.head

    def catch_up(self, kept: KeptRun) -> str:
        """Write what a process that was killed right after its checkpoint did not; return the record's head.

        Raises RecordError for a checkpoint or a record that was changed, removed or put back from a copy.
        """
        if self._require_recorded(kept, kept.rounds, kept.rounds - 1) < kept.rounds:
            return self._follow(kept)
        self.record.require_file(self.folder / CHECKPOINT)
        self._write_metrics(kept)
        return self.record.head

    def _require_recorded(self, kept: KeptRun, *expected: int) -> int:
        """Return the last round that the record holds. Raises RecordError unless it is an expected one."""
        last = self.record.last
        recorded = self.first - 1 if last is None else int(last.body["round"])
        if recorded not in expected:
            held = "nothing" if last is None else f"{recorded} rounds"
            raise RecordError(
                f"{self.record.path} holds {held} and the checkpoint beside it {kept.rounds}: one of them was removed "
                "or replaced; put it back, or begin in another folder"
            )
        return recorded

    def close(self) -> None:
        self.record.close()

    def _follow(self, kept: KeptRun) -> str:
        if any(result.abandoned is None for result in kept.history):  # else it is no result
            write_atomic(self.folder / self.model, self.encoder(kept), 0o644)
        self._write_metrics(kept)
        if kept.statement is not None:
            text = json.dumps(kept.statement, indent=2) + "\n"
            write_atomic(self.folder / STATEMENT, text.encode(), 0o644)
        names = [CHECKPOINT, self.model, METRICS, STATEMENT, CONFIG]
        files = {name: file_digest(self.folder / name) for name in names if (self.folder / name).exists()}
        return self.record.append({**(kept.entry or {}), "files": files})

    def _write_metrics(self, kept: KeptRun) -> None:
        lines = [json.dumps(line_of(result), allow_nan=False).encode() + b"\n" for result in kept.history]
        if lines:
            write_atomic(self.folder / METRICS, b"".join(lines), 0o644)
