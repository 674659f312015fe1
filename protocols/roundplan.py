"""RoundPlan: one round's public arithmetic, equal on the server and on every client.

A contribution is a row of blocks (the update first), each with its own signals, quantiser and named coordinates.
`RoundPlan` lays them out in one integer vector and reads the sum back. What does not belong here: how a plan is
made and proved (`stack`).
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.codec import Record
from protocols.errors import Aborted, Misuse
from protocols.layers import (
    UPDATE,
    Aggregate,
    Contribution,
    Coordinate,
    PrivacyLayer,
    RoundFacts,
    RunFacts,
    Signal,
    SumFacts,
)
from protocols.public_values import PublicValues
from protocols.quantise import Quantiser
from protocols.statement import PrivacyEvent

WEIGHT, CLIPPED = "weight", "clipped"
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Digest(Record):
    """What enters the session's model digest besides the model: everything else every client was shown.

    blocks: names, in order; weight_caps, steps: theirs.
    """

    layers: tuple[str, ...]
    public: PublicValues
    bits: int
    weight_caps: tuple[int, ...]
    blocks: tuple[str, ...]
    steps: tuple[float, ...]
    coordinates: tuple[str, ...]


@dataclass(frozen=True)
class BlockPlan:
    """One block's arithmetic. signals: what each layer takes, in order, then the integer signal that is summed.
    quantiser: None if a layer makes integers. norm: L2 norm to which the layers clip a client's vector (None: to none).
    """

    signals: tuple[Signal, ...]
    quantiser: Quantiser | None
    norm: float | None = None

    @property
    def summed(self) -> Signal:
        return self.signals[-1]

    @property
    def size(self) -> int:
        """Integers of this block, named coordinates included."""
        return self.summed.dimension + sum(c.size for c in self.summed.coordinates)

    def encode(
        self, contribution: Contribution, layers: tuple[PrivacyLayer, ...], own: RoundFacts
    ) -> list[Integers]:
        """Return the block's integers, then its coordinates."""
        for layer, given in zip(layers, self.signals, strict=False):
            contribution = layer.encode(contribution, given, own)
        coordinates = dict(contribution.coordinates)
        vector = contribution.vector
        if self.quantiser is not None:
            vector, clipped = self.quantiser.encode(vector)
            if contribution.weight != 1:
                vector *= contribution.weight
            coordinates[CLIPPED] = self._digits(clipped)
        coordinates[WEIGHT] = np.array([contribution.weight], np.int64)
        return [np.asarray(vector, np.int64), *(_values(coordinates, c) for c in self.summed.coordinates)]

    def decode(
        self, read: Aggregate, layers: tuple[PrivacyLayer, ...], facts: RoundFacts, survivors: tuple[str, ...]
    ) -> Aggregate:
        """Return the block's aggregate, a real vector, from the integers that were read of the sum."""
        aggregate = replace(read, vector=self.quantiser.decode(read.vector)) if self.quantiser else read
        for layer, given in zip(reversed(layers), reversed(self.signals[:-1]), strict=True):
            aggregate = layer.decode(aggregate, SumFacts(given, self.summed, survivors), facts)
        return aggregate

    def require_possible(self, totals: Mapping[str, Integers], survivors: int) -> None:
        """Raises Aborted for an exact coordinate beyond what so many clients can send: one of them lied."""
        for c in self.summed.coordinates if self.summed.exact_coordinates else ():
            low = -c.bound if c.name not in (WEIGHT, CLIPPED) else 0
            if totals[c.name].size and not (
                survivors * low <= totals[c.name].min() and totals[c.name].max() <= survivors * c.bound
            ):
                raise Aborted(
                    f"the coordinate {c.name!r} is beyond what {survivors} clients can send: one sent another than "
                    "the rules allow"
                )

    def clipped(self, aggregate: Aggregate) -> int | None:
        """Coordinates that had to be clipped, over all survivors; None where a DP layer forbids to tell."""
        digits = aggregate.coordinates.get(CLIPPED)
        if digits is None:
            return None
        return int(sum(int(digit) * (self._clipped.bound + 1) ** i for i, digit in enumerate(digits)))

    @property
    def _clipped(self) -> Coordinate:
        """Where the clipped count is summed; of size 0 where a layer forbids it."""
        return next((c for c in self.summed.coordinates if c.name == CLIPPED), Coordinate(CLIPPED, 0, 0))

    def _digits(self, value: int) -> Integers:
        """`value` in digits of a base small enough that a digit's sum needs no wider ring than the vector's."""
        base = self._clipped.bound + 1
        return np.array([value // base**i % base for i in range(self._clipped.size)], np.int64)


@dataclass(frozen=True)
class RoundPlan:
    """One round's public arithmetic. parts: the update's first, then those of `facts.run.blocks` in order.
    server_sees_vectors: no secure sum hides single vectors from the server.
    """

    facts: RoundFacts
    parts: tuple[BlockPlan, ...]
    layers: tuple[PrivacyLayer, ...]
    server_sees_vectors: bool = False

    @property
    def signals(self) -> tuple[Signal, ...]:
        """The update's: what each layer takes, then what is summed."""
        return self.parts[0].signals

    @property
    def quantiser(self) -> Quantiser | None:
        """The update's; None if a layer makes integers."""
        return self.parts[0].quantiser

    @property
    def summed(self) -> Signal:
        """What is summed of the update."""
        return self.parts[0].summed

    @property
    def modulus(self) -> int:
        """0 for a sum over Z, else M."""
        return self.summed.modulus

    @property
    def min_survivors(self) -> int:
        """Least clients in a total that any layer demands, for any block: a later layer cannot lower it."""
        return max(given.min_survivors for part in self.parts for given in part.signals)

    @property
    def dimension(self) -> int:
        """Length of the integer vector: all blocks, named coordinates included."""
        return sum(part.size for part in self.parts)

    @property
    def bound(self) -> int:
        summed = [part.summed for part in self.parts]
        return max(max(given.bound, *(c.bound for c in given.coordinates), 0) for given in summed)

    @property
    def counts_broken_as_zero(self) -> bool:
        """Whether an update that holds NaN or infinity goes to a layer, which lets it count as zero."""
        return any(layer.counts_broken_as_zero for layer in self.layers)

    def encode(self, contribution: Contribution, own: RoundFacts) -> Integers:
        """Client: return the integer vector to be summed. `own`: the facts with this client's name and store.

        `contribution.coordinates` holds the exact coordinates the driver was told to send, `contribution.blocks` the
        run's further blocks. Raises Misuse for a weight outside [0, weight cap] (the driver caps it, and counts that)
        and for blocks that are not the run's.
        """
        if not 0 <= contribution.weight <= self.signals[0].weight_cap:
            raise Misuse(f"expected a weight from 0 to {self.signals[0].weight_cap}, got one outside")
        split = zip(self.parts, self._split(contribution), strict=True)
        return np.concatenate([p for part, given in split for p in part.encode(given, self.layers, own)])

    def arrives(self, block: str, vector: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what of a client's vector (float64 [d], finite) is in the sum but for noise: clipped and rounded as it
        will be. block: which one of the contribution's.
        """
        part = next(part for part in self.parts if part.signals[0].block == block)
        largest = float(np.abs(vector).max(initial=0.0)) or 1.0
        # in units of the largest: the norm may not fit a float
        length = float(np.linalg.norm(vector / largest))
        if part.norm is not None and length > part.norm / largest:
            vector = vector / largest * (part.norm / length)
        return part.quantiser.decode(part.quantiser.encode(vector)[0]) if part.quantiser else vector

    def _split(self, contribution: Contribution) -> Iterator[Contribution]:
        """One contribution per block, each with the weight it counts with."""
        wanted = {block.name: block for block in self.facts.run.blocks}
        if contribution.blocks.keys() != wanted.keys():
            raise Misuse(f"expected the blocks {sorted(wanted)}, got {sorted(contribution.blocks)}")
        yield replace(contribution, blocks={})
        for name, block in wanted.items():
            vector = np.asarray(contribution.blocks[name], np.float64)
            if vector.shape != (block.dimension,):
                raise Misuse(f"block {name!r}: expected shape ({block.dimension},), got {vector.shape}")
            if not (self.counts_broken_as_zero or np.isfinite(vector).all()):
                raise Misuse(f"block {name!r}: holds NaN or infinity; it is refused")
            yield Contribution(vector, contribution.weight if block.weighted else 1)

    def decode(self, total: Integers, survivors: tuple[str, ...]) -> Aggregate:
        """Server: return the aggregate: a real vector, the weight to divide it by, and the same for every block.

        Raises Aborted for exact coordinates that the survivors cannot have sent by the rules.
        """
        blocks, count = self.facts.run.blocks, float(len(survivors))
        update, *rest = read = list(self._read(total))
        for part, of in zip(self.parts, read, strict=True):
            part.require_possible(of.coordinates, len(survivors))
        weight = float(update.coordinates.get(WEIGHT, [count])[0])
        weights = [weight, *(weight if block.weighted else count for block in blocks)]
        whole, *others = (
            part.decode(replace(read, weight=w), self.layers, self.facts, survivors)
            for part, read, w in zip(self.parts, (update, *rest), weights, strict=True)
        )
        return replace(whole, blocks={block.name: other for block, other in zip(blocks, others, strict=True)})

    def _read(self, total: Integers) -> Iterator[Aggregate]:
        """Yield each block's integers; the weight is not known yet."""
        at = 0
        for part in self.parts:
            vector, at = total[at : at + part.summed.dimension], at + part.summed.dimension
            coordinates: dict[str, Integers] = {}
            for c in part.summed.coordinates:
                coordinates[c.name] = total[at : at + c.size]
                at += c.size
            yield Aggregate(vector, 1, coordinates)

    def clipped(self, aggregate: Aggregate) -> int | None:
        """Coordinates of all blocks that were clipped, over all survivors; None where a DP layer forbids to tell."""
        given = [aggregate, *(aggregate.blocks[block.name] for block in self.facts.run.blocks)]
        counts = [part.clipped(of) for part, of in zip(self.parts, given, strict=True)]
        told = [count for count in counts if count is not None]
        return sum(told) if told else None

    def events(self, survivors: tuple[str, ...]) -> tuple[PrivacyEvent, ...]:
        """What the round spends, each event with its layer's name and with those against whom it holds."""
        return tuple(
            self._stated(event, layer)
            for layer in self.layers
            for event in layer.events(self.facts, survivors)
        )

    def planned(self, run: RunFacts) -> tuple[str, ...]:
        """What the round will spend, as every party plans it from the public facts of the run: distinct events as JSON,
        numbers to 9 digits, since the last ones differ from machine to machine.
        """
        facts = replace(self.facts, run=replace(run, corrupt=self.facts.run.corrupt))
        events = (
            replace(self._stated(event, layer), party="")
            for layer in self.layers
            for event in layer.planned(facts)
        )
        return tuple(dict.fromkeys(json.dumps(_rounded(asdict(event)), sort_keys=True) for event in events))

    def _stated(self, event: PrivacyEvent, layer: PrivacyLayer) -> PrivacyEvent:
        against = layer.against(event.adversary, self.server_sees_vectors)
        return replace(event, layer=layer.name, adversary=against)

    def digest(self, model: bytes) -> bytes:
        """SHA-256 of the broadcast model's digest and of everything else that all clients must have been
        shown alike.
        """
        shown = Digest(
            tuple(layer.name for layer in self.layers),
            PublicValues.of(self.facts.public),
            self.quantiser.bits if self.quantiser else 0,
            tuple(part.summed.weight_cap for part in self.parts),
            (UPDATE, *(block.name for block in self.facts.run.blocks)),
            tuple(part.quantiser.step if part.quantiser else part.summed.step for part in self.parts),
            tuple(c.name for part in self.parts for c in part.summed.coordinates),
        )
        return hashlib.sha256(b"secagg round v2\0" + model + shown.encode()).digest()


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return f"{value:.9g}" if isinstance(value, float) else value


def _values(coordinates: Mapping[str, Integers], c: Coordinate) -> Integers:
    block = np.asarray(coordinates.get(c.name, np.zeros(c.size, np.int64)), np.int64)
    if block.shape != (c.size,) or (block.size and int(np.abs(block).max()) > c.bound):
        raise Misuse(f"coordinate {c.name!r}: expected {c.size} integers within +-{c.bound}")
    return block
