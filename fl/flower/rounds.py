"""One round's public arithmetic, computed alike by the server and by every client from what all of them see.

What belongs here: the model as Flower's arrays <-> the flat reference, the plan of the round, the digest that enters
the session's context. What does not: messages, sessions, anything private.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord
from numpy.typing import NDArray

from fl.metrics import PREFIX as METRIC
from fl.metrics import coordinates as metric_coordinates
from fl.round.broadcast import require_no_statistics
from protocols.errors import Misuse, WireError
from protocols.layers import Coordinate, Public, RoundFacts, RunFacts
from protocols.roundplan import RoundPlan
from protocols.stack import Stack
from protocols.updates import Flat, Schema, flatten, schema_of, unflatten

COUNTERS, CAPPED = "counters", "weights-capped"
"""Exact coordinates: the differences of integer arrays that are summed, and who had to cap its weight."""

COUNTER_BOUND = 1 << 24


@dataclass(frozen=True, eq=False)
class Reference:
    """The public model a round starts from. digest: SHA-256 over its schema and every bit of it."""

    schema: Schema
    flat: Flat
    digest: bytes


def to_numpy(name: str, array: Array) -> NDArray[Any]:
    """Return an Array's content. Raises WireError, before anything is allocated, if it is not a plain NumPy array."""
    stream = io.BytesIO(array.data)
    try:
        major, _ = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except (ValueError, OSError):  # whose text may quote the content
        raise WireError(f"{name}: not an array in NumPy's format") from None
    count = int(np.prod(shape, dtype=object))
    left = len(array.data) - stream.tell()
    if array.stype != "numpy.ndarray" or dtype.hasobject or count * dtype.itemsize != left:
        raise WireError(f"{name}: expected {count} items of {dtype}, {left} bytes came")
    if (array.dtype, tuple(array.shape)) != (str(dtype), shape):  # the content is what the session binds
        raise WireError(
            f"{name}: expected the labels {dtype} and {shape} that the content has, got {array.dtype} and {array.shape}"
        )
    flat = np.frombuffer(array.data, dtype, count, stream.tell())
    return flat.reshape(shape, order="F" if fortran else "C")


def tree_of(arrays: ArrayRecord) -> dict[str, NDArray[Any]]:
    """Return name -> array."""
    return {name: to_numpy(name, array) for name, array in arrays.items()}


def arrays_of(tree: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    """Return the ArrayRecord of a tree."""
    return ArrayRecord({name: Array(np.ascontiguousarray(a).reshape(a.shape)) for name, a in tree.items()})


def reference_of(tree: Mapping[str, NDArray[Any]], integers: str = "keep") -> Reference:
    """Return the reference of a model. Raises Misuse for dtypes without a rule, NaN and infinity, by name."""
    schema = schema_of(tree, integers)
    digest = hashlib.sha256(b"secagg flower model v1\0" + schema.encode())
    for leaf in schema.leaves:
        array = np.asarray(tree[leaf.path[0]])
        digest.update(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False)).tobytes())
    return Reference(schema, flatten(tree, schema), digest.digest())


def plan_round(
    stack: Stack,
    run: RunFacts,
    number: int,
    clients: tuple[str, ...],
    public: Public,
    reference: Reference,
    metrics: Sequence[str],
) -> RoundPlan:
    """Return the round's arithmetic. `stack` must have been planned for `run`. Raises StackError, CapacityError."""
    require_no_statistics(stack, reference.schema)
    seed = hashlib.sha256(b"secagg flower seed v1\0" + reference.digest + number.to_bytes(8, "big")).digest()
    facts = RoundFacts(run, number, clients, seed, public)
    exact = [*metric_coordinates(metrics, stack.weight_cap(run)), Coordinate(CAPPED, 1, 1)]
    if reference.schema.counters:
        exact.append(Coordinate(COUNTERS, reference.schema.counters, COUNTER_BOUND))
    return stack.round(facts, reference.flat.vector, exact)


def require_summed(plan: RoundPlan, reference: Reference, metrics: Sequence[str]) -> None:
    """Raises Misuse if a layer leaves out what was asked for by name: nothing exact goes beside its noise."""
    sums = {c.name for c in plan.summed.coordinates}
    by = next(
        (
            layer.name
            for layer, gives in zip(plan.layers, plan.signals[1:], strict=False)
            if not gives.exact_coordinates
        ),
        "the stack",
    )
    if missing := [name for name in metrics if METRIC + name not in sums]:
        raise Misuse(
            f"metrics: {missing[0]!r} is not summed beside {by}, whose noise does not cover it: leave it out"
        )
    if reference.schema.counters and COUNTERS not in sums:
        raise Misuse(
            f'integers: "sum" adds up integer arrays exactly, which {by} does not allow: say "keep" or "refuse"'
        )


def model_digest(plan: RoundPlan, reference: Reference, config: ConfigRecord | None) -> bytes:
    """Return what enters the session's context: the model, the training configuration and all else that was shown."""
    plain = None if config is None else dict(config)  # none is not an empty one
    shown = json.dumps(plain, sort_keys=True, default=_tagged).encode()
    return plan.digest(hashlib.sha256(reference.digest + hashlib.sha256(shown).digest()).digest())


def averaged(
    reference: Reference, vector: NDArray[np.float64], counters: NDArray[np.int64] | None = None
) -> dict[str, NDArray[Any]]:
    """Return the model `reference + vector` (the mean update), each array in its own dtype and shape."""
    kept = reference.flat.counters if counters is None else reference.flat.counters + counters
    moved = Flat(reference.flat.vector + vector, kept, reference.flat.kept)
    return unflatten(moved, reference.schema)


def like(tree: Mapping[str, NDArray[Any]], schema: Schema) -> dict[str, NDArray[Any]]:
    """Return the tree with each array in the schema's dtype: Flower's means turn integers into floats.

    Raises Misuse if a name or a shape changed.
    """
    wanted = {leaf.path[0]: leaf for leaf in schema.leaves}
    if wanted.keys() != tree.keys():
        raise Misuse("the model's names changed between rounds")
    result = {}
    for name, array in tree.items():
        leaf = wanted[name]
        if array.shape != leaf.shape:
            raise Misuse(f"{name}: expected shape {leaf.shape}, got {array.shape}")
        whole = np.dtype(leaf.dtype).kind in "iu" and array.dtype.kind == "f"
        result[name] = (np.rint(array) if whole else array).astype(leaf.dtype)
    return result


def _tagged(value: object) -> dict[str, str]:
    """Return bytes as no other value of a ConfigRecord looks in JSON: they hold no dicts. Raises Misuse for others."""
    if not isinstance(value, bytes):
        raise Misuse(
            f"expected a configuration of numbers, texts, bytes and lists of them, got {type(value).__name__}"
        )
    return {"bytes": value.hex()}
