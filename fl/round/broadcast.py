"""What every client of a round is shown, computed alike by the server and by each client.

What belongs here: the round's public arithmetic and the digest of all that was shown. What does not: sessions
(`session`), anything private (`contribution`).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from fl import metrics as metric
from fl.round import counts as count
from fl.round.counts import Count
from fl.round.hidden import plays_nobody
from fl.round.manifest import LEAST_ALIKE, Manifest
from fl.round.reference import Reference
from fl.round.terms import Origin, RoundTerms, RunHeader
from protocols.errors import Aborted, CapacityError, Misuse, TooFewSurvivors
from protocols.layers import Coordinate, Public, RoundFacts, RunFacts
from protocols.public_values import PublicValues
from protocols.roundplan import RoundPlan
from protocols.stack import Stack
from protocols.store import Store
from protocols.updates import Schema

COUNTERS, CAPPED, EMPTY, WHERE = "counters", "weights-capped", "clients-empty", "clipped-where"
"""Exact coordinates: the differences of integer arrays that are summed; how many clients capped their weight, hold no
examples, and clipped values, by tensor.
"""
COUNTER_BOUND = 1 << 24
NOWHERE = Origin()


@dataclass(frozen=True, eq=False)
class Broadcast:
    """What every client of one sum is shown.

    number: the round's, from 1. clients: the names of those asked, in roster order. reference: the model. plan: the
    round's arithmetic. terms: what clients act on. digest: binds all of it into the session's context
    (32 bytes). metrics: names of training metrics that are summed in the vector. bases: with a manifest, the model that
    each client started from, for whoever shows it to them. alike: how many clients of each this party wants in a total.
    """

    number: int
    clients: tuple[str, ...]
    reference: Reference = field(repr=False)
    plan: RoundPlan = field(repr=False)
    terms: RoundTerms = field(repr=False)
    digest: bytes = field(repr=False)
    metrics: tuple[str, ...] = ()
    bases: Mapping[str, Reference] = field(default_factory=dict, repr=False)
    alike: int = LEAST_ALIKE

    @property
    def name(self) -> str:
        """Which of a round's sums it is."""
        return self.terms.name

    @property
    def counts(self) -> tuple[Count, ...]:
        """Integers that every client reports."""
        return self.terms.counts

    @property
    def manifest(self) -> Manifest | None:
        """Where clients started from different models."""
        return self.terms.manifest

    def shown_to(self, client: str) -> "Broadcast":
        """Return what one client is shown: with a manifest its own base in place of the server's model."""
        return replace(self, reference=self.bases[client]) if client in self.bases else self

    def own(self, client: str, store: Store | None = None) -> RoundFacts:
        """Return the round's facts as one client sees them: with its name and its own store. Whoever acts for a client
        needs them. Raises ProtocolViolation for a base that is not the one that a manifest names for it.
        """
        if self.manifest is not None:
            self.manifest.require_base(client, self.reference.digest)
            if store is not None and self.manifest.chain.digests:
                self.manifest.chain.remember(self.terms.origin.scope, store)
        return replace(
            self.plan.facts,
            client=client,
            store=store,
            arrives=self.plan.arrives,
            schema=self.reference.schema.fingerprint,
        )


def open_round(
    stack: Stack,
    run: RunFacts,
    number: int,
    clients: Sequence[str],
    reference: Reference,
    *,
    metrics: Sequence[str] = (),
    counts: Sequence[Count] = (),
    public: Public | None = None,
    config: bytes = b"",
    manifest: Manifest | None = None,
    name: str = "",
    bases: Mapping[str, Reference] | None = None,
    origin: Origin = NOWHERE,
    least: int = 1,
    alike: int = LEAST_ALIKE,
) -> Broadcast:
    """Return what the clients of a round are shown. `stack` must have been planned for `run`.

    reference: the model that the round starts from; one without arrays for a round of counts and blocks alone. With a
    manifest, the server gives the model that it will move and the clients' bases, and each client its own base; a range
    or a layer must then bound coordinates. alike: how many clients of a version must be in any total. public: what
    layers broadcast (default: what they say now; a client passes what it was told). config: whatever else every client
    is shown, encoded. name: which of a round's sums it is. origin: whose round it is (default: of no federation).
    least: the fewest clients in its total; a client computes it for itself and insists on it.

    Raises StackError or CapacityError for a plan that cannot work, TooFewSurvivors for a round that asks fewer clients
    than the run planned and can only fail.
    """
    if not clients and not plays_nobody(stack, run):
        raise TooFewSurvivors("nobody was chosen")
    root = reference.digest
    if manifest is not None:
        manifest.require(clients, number)
        root, least = manifest.digest(), max(least, manifest.least)
    # public randomness (rotations) follows the model, so the server fixes it before any input
    require_no_statistics(stack, reference.schema)
    seed = hashlib.sha256(b"secagg round seed v1\0" + root + number.to_bytes(8, "big")).digest()
    shapes = tuple(
        leaf.shape if leaf.floats == leaf.size else (leaf.floats,) for leaf in reference.schema.protected
    )
    told = stack.public() if public is None else public
    facts = RoundFacts(run, number, tuple(clients), seed, told, scope=origin.scope, shapes=shapes)
    exact = [*metric.coordinates(metrics, stack.weight_cap(run)), *told_coordinates(reference.schema)]
    exact += count.coordinates(counts)
    if reference.schema.counters:
        exact.append(Coordinate(COUNTERS, reference.schema.counters, COUNTER_BOUND))
    if stack.noisy and not run.dimension:  # of counts alone: a layer has no vector to plan its noise for
        count.require((), counts, next(layer.name for layer in stack.layers if layer.adds_noise))
    try:
        plan = stack.round(facts, None if manifest else reference.flat.vector, exact, least)
    except Misuse as error:
        raise impossible(error, len(clients), run) from None
    _require_counters(plan, reference)
    count.require({c.name for c in plan.summed.coordinates}, counts, _noisy(plan))
    header = RunHeader.of(run)
    parts = PublicValues.of(facts.public), tuple(counts), stack.options, plan.planned(header.facts())
    terms = RoundTerms(origin, header, number, name, *parts, manifest, root, hashlib.sha256(config).digest())
    digest = plan.digest(terms.digest())
    return Broadcast(
        number, tuple(clients), reference, plan, terms, digest, tuple(metrics), bases or {}, alike
    )


def told_coordinates(schema: Schema) -> list[Coordinate]:
    """Return what a run speaks up about (`fl.round.remarks`) as exact coordinates; noise drops them."""
    where = [Coordinate(WHERE, len(schema.protected), 1)] if schema.protected else []
    return [Coordinate(CAPPED, 1, 1), Coordinate(EMPTY, 1, 1), *where]


def require_no_statistics(stack: Stack, schema: Schema) -> None:
    """Raises Misuse where noise would be added to running statistics: a variance below zero, and NaN from there on."""
    if stack.noisy and schema.statistics:
        by = next(layer.name for layer in stack.layers if layer.adds_noise)
        raise Misuse(
            f"{schema.statistics[0]}: {by} would clip and noise running statistics with the update: say "
            'buffers="local" (each client keeps its own), or replace BatchNorm by GroupNorm (dp.sample.repaired)'
        )


def impossible(error: Misuse, asked: int, run: RunFacts) -> Misuse | Aborted:
    """Return what a round that cannot work is: the caller's mistake where the planned cohort was asked, else a round
    with too few clients, which is abandoned.
    """
    certain = asked == run.least_chosen if run.failing else asked >= run.cohort
    return error if certain or isinstance(error, CapacityError) else TooFewSurvivors(str(error))


def require_metrics(broadcast: Broadcast) -> None:
    """Raises Misuse if a layer leaves out a metric: nothing exact is summed beside its noise."""
    sums = {c.name for c in broadcast.plan.summed.coordinates}
    if missing := [name for name in broadcast.metrics if metric.PREFIX + name not in sums]:
        raise Misuse(
            f"metrics: {missing[0]!r} is not summed beside {_noisy(broadcast.plan)}, whose noise does not cover it: "
            "leave it out"
        )


def _require_counters(plan: RoundPlan, reference: Reference) -> None:
    if reference.schema.counters and COUNTERS not in {c.name for c in plan.summed.coordinates}:
        raise Misuse(
            f'integers: "sum" adds up integer arrays exactly, which {_noisy(plan)} does not allow: '
            'say "keep" or "refuse"'
        )


def _noisy(plan: RoundPlan) -> str:
    """Return the first layer that allows nothing exact beside the vector."""
    given = zip(plan.layers, plan.signals[1:], strict=False)
    return next((layer.name for layer, gives in given if not gives.exact_coordinates), "the stack")
