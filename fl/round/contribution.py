"""What one client makes of a broadcast: from its trained model to its integer vector. Private; runs where it lives.

What does not belong here: training (a `Work` does it), sending.
"""

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fl import metrics as metric
from fl.round import counts as count
from fl.round.broadcast import CAPPED, COUNTERS, EMPTY, WHERE, Broadcast
from fl.round.reference import exact_difference
from protocols.errors import Misuse
from protocols.layers import Contribution, RoundFacts
from protocols.quantise import Quantiser
from protocols.roundplan import RoundPlan
from protocols.updates import Flat, Schema


def contribution_of(
    broadcast: Broadcast,
    trained: Flat,
    weight: int,
    reported: Mapping[str, float] | None = None,
    *,
    client: str = "",
    empty: bool = False,
    counts: Mapping[str, int] | None = None,
    blocks: Mapping[str, NDArray[np.float64]] | None = None,
    vector: NDArray[np.float64] | None = None,
    source: bytes | None = None,
) -> Contribution:
    """Return a client's contribution: the difference to the reference, its weight and its exact coordinates.

    trained: the model after the local computation. weight: what the client counts with, >= 0 (its examples, 1 where
    all count alike); beyond the public cap it is capped, and that is counted. reported: training metrics. client: its
    name, needed with a manifest. empty: it has no examples. counts, blocks: as the broadcast and the run declare them.
    vector: what is sent in place of the difference (float64 [dimension]). source: names the update behind it.

    Raises Misuse for a weight that is none, for other counts than declared, for a vector of another shape or not
    finite, and for a client that the manifest does not name.
    """
    plan, before = broadcast.plan, broadcast.reference.flat
    cap = plan.signals[0].weight_cap
    if not isinstance(weight, int | np.integer) or weight < 0:
        raise Misuse(f"weight: expected an integer from 0 to the public cap {cap}, got {weight!r}")
    counted = int(min(weight, cap))
    exact = metric.encode(reported or {}, broadcast.metrics, counted)
    exact |= count.encode(broadcast.counts, counts or {})
    exact[CAPPED] = np.array([cap > 1 and weight > cap], np.int64)
    exact[EMPTY] = np.array([empty], np.int64)
    exact[COUNTERS] = exact_difference(trained.counters, before.counters)
    summed = {c.name for c in plan.summed.coordinates}  # a DP layer drops what would be exact
    difference = (
        trained.vector - before.vector if vector is None else _checked(vector, before.vector.size, plan)
    )
    if broadcast.manifest is not None:
        version = broadcast.manifest.version(client)
        if source is None:  # what its age makes of it is no other update
            source = version.digest + difference.tobytes()
        difference *= version.factor
    if WHERE in summed and plan.quantiser is not None:
        exact[WHERE] = clipped_where(difference, broadcast.reference.schema, plan.quantiser)
    coordinates = {name: block for name, block in exact.items() if name in summed}
    return Contribution(difference, counted, coordinates, dict(blocks or {}), source)


def _checked(vector: NDArray[np.float64], size: int, plan: RoundPlan) -> NDArray[np.float64]:
    """Return a copy of what a strategy sends in place of the difference, which a layer may count as zero."""
    if vector.shape != (size,) or not (plan.counts_broken_as_zero or np.isfinite(vector).all()):
        raise Misuse(f"expected a finite vector of shape ({size},) from the strategy, got another")
    return np.array(vector, np.float64)


def clipped_where(difference: NDArray[np.float64], schema: Schema, quantiser: Quantiser) -> NDArray[np.int64]:
    """Return 1 for each tensor of the vector in which a value will be clipped, else 0."""
    found = np.zeros(len(schema.protected), np.int64)
    if not difference.size or max(-float(difference.min()), float(difference.max())) <= quantiser.range:
        return found
    beyond = np.flatnonzero(np.abs(np.rint(difference / quantiser.step)) > quantiser.bound)
    if beyond.size:
        ends = np.cumsum([leaf.floats for leaf in schema.protected])
        found[np.searchsorted(ends, beyond, side="right")] = 1
    return found


def encoded(
    broadcast: Broadcast, contribution: Contribution, own: RoundFacts
) -> tuple[NDArray[np.int64], bytes]:
    """Return the client's integer vector (int64 [plan.dimension]) and the digest that names the update behind it.

    The same difference to the same model, with the same blocks, is the same update, in whichever round and however it
    is encoded; without a model the counts tell updates apart too, and a `source` names it whatever is made of it.
    Raises what layers raise.
    """
    if contribution.source is not None:
        name = hashlib.sha256(b"secagg update v1\0" + contribution.source)
        return broadcast.plan.encode(contribution, own), name.digest()
    update = np.asarray(contribution.vector, np.float64)
    name = hashlib.sha256(b"secagg update v1\0" + broadcast.reference.digest + update.tobytes())
    for block in sorted(contribution.blocks):
        name.update(block.encode() + b"\0" + np.asarray(contribution.blocks[block], np.float64).tobytes())
    for coordinate in () if update.size else sorted(contribution.coordinates):
        name.update(coordinate.encode() + b"\0" + contribution.coordinates[coordinate].tobytes())
    return broadcast.plan.encode(contribution, own), name.digest()
