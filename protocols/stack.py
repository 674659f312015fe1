"""Stack: layers in the client's order, decoded in reverse, with one SecureSum last. Composition is checked
when it is built.

The quantiser goes in where no layer made integers itself. What else is summed beside the vector (weight,
clipped count, counters, metrics) is named here, and left out when a DP layer forbids exact coordinates.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.codec import Record
from protocols.errors import CapacityError, Misuse, StackError
from protocols.layers import Aggregate, Contribution, Coordinate, PrivacyLayer, RoundFacts, RunFacts, Signal
from protocols.plain import PlainSum
from protocols.quantise import Quantiser, prove_capacity
from protocols.statement import Event
from protocols.summation import SecureSum

WEIGHT, CLIPPED = "weight", "clipped"
MAX_WEIGHT_CAP = 1 << 24


@dataclass(frozen=True)
class Numbers:
    """How floats become integers: bits per value (2 to 32), a public range (None: from clip norm or
    reference), weight cap.
    """

    bits: int = 16
    range: float | None = None
    weight_cap: int = 10_000

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 32:
            raise Misuse(f"expected bits from 2 to 32, got {self.bits}")
        if not 1 <= self.weight_cap <= MAX_WEIGHT_CAP:
            raise Misuse(f"expected a weight cap from 1 to 2^24, got {self.weight_cap}")
        if self.range is not None and not 0 < self.range < math.inf:
            raise Misuse(f"expected a positive, finite range, got {self.range}")


@dataclass(frozen=True)
class Digest(Record):
    """What enters the session's model digest besides the model: everything else every client was shown."""

    layers: tuple[str, ...]
    public: dict[str, dict[str, float]]
    bits: int
    step: float
    weight_cap: int
    coordinates: tuple[str, ...]


@dataclass(frozen=True)
class RoundPlan:
    """One round's public arithmetic: equal on the server and on every client.

    signals: what each layer takes, in order, then the integer signal that is summed. quantiser: None if a
    layer makes integers.
    """

    facts: RoundFacts
    signals: tuple[Signal, ...]
    quantiser: Quantiser | None
    layers: tuple[PrivacyLayer, ...]

    @property
    def summed(self) -> Signal:
        return self.signals[-1]

    @property
    def dimension(self) -> int:
        """Length of the integer vector, named coordinates included."""
        return self.summed.dimension + sum(c.size for c in self.summed.coordinates)

    @property
    def bound(self) -> int:
        return max([self.summed.bound, *(c.bound for c in self.summed.coordinates)])

    def encode(self, contribution: Contribution, own: RoundFacts) -> NDArray[np.int64]:
        """Client: return the integer vector to be summed. `own`: the facts with this client's name and store.

        `contribution.coordinates` holds the exact coordinates the driver was told to send. Raises Misuse for a weight
        outside [0, weight cap]: the driver caps it, and counts that.
        """
        if not 0 <= contribution.weight <= self.signals[0].weight_cap:
            raise Misuse(f"expected a weight from 0 to {self.signals[0].weight_cap}, got one outside")
        for layer, given in zip(self.layers, self.signals, strict=False):
            contribution = layer.encode(contribution, given, own)
        coordinates = dict(contribution.coordinates)
        vector = contribution.vector
        if self.quantiser is not None:
            values, clipped = self.quantiser.encode(vector)
            vector = values * contribution.weight
            if self._sends(CLIPPED):
                coordinates[CLIPPED] = self._digits(clipped)
        if self._sends(WEIGHT):
            coordinates[WEIGHT] = np.array([contribution.weight], np.int64)
        blocks = [_block(coordinates, c) for c in self.summed.coordinates]
        return np.concatenate([np.asarray(vector, np.int64), *blocks])

    def decode(self, total: NDArray[np.int64], survivors: tuple[str, ...]) -> Aggregate:
        """Server: return the aggregate: a real vector, and the weight to divide it by."""
        summed = self.summed
        vector, at = total[: summed.dimension], summed.dimension
        coordinates: dict[str, NDArray[np.int64]] = {}
        for c in summed.coordinates:
            coordinates[c.name] = total[at : at + c.size]
            at += c.size
        weight = float(coordinates[WEIGHT][0]) if WEIGHT in coordinates else float(len(survivors))
        real = vector if self.quantiser is None else self.quantiser.decode(vector)
        aggregate = Aggregate(real, weight, coordinates)
        for layer, given in zip(
            reversed(self.layers), reversed(self.signals[: len(self.layers)]), strict=True
        ):
            aggregate = layer.decode(aggregate, given, summed, self.facts, survivors)
        return aggregate

    def clipped(self, aggregate: Aggregate) -> int | None:
        """Coordinates that had to be clipped, over all survivors; None where a DP layer forbids to tell."""
        digits = aggregate.coordinates.get(CLIPPED)
        if digits is None:
            return None
        base = self._digit_base()
        value = 0
        for digit in reversed(digits):
            value = value * base + int(digit)
        return value

    def events(self, survivors: tuple[str, ...]) -> tuple[Event, ...]:
        return tuple(event for layer in self.layers for event in layer.events(self.facts, survivors))

    def digest(self, model: bytes) -> bytes:
        """SHA-256 of the broadcast model's digest and of everything else that all clients must have been
        shown alike.
        """
        summed = self.summed
        shown = Digest(
            tuple(layer.name for layer in self.layers),
            {name: dict(values) for name, values in self.facts.public.items()},
            self.quantiser.bits if self.quantiser else 0,
            self.quantiser.step if self.quantiser else summed.step,
            summed.weight_cap,
            tuple(c.name for c in summed.coordinates),
        )
        return hashlib.sha256(b"secagg round v1\0" + model + shown.encode()).digest()

    def _sends(self, name: str) -> bool:
        return any(c.name == name for c in self.summed.coordinates)

    def _digit_base(self) -> int:
        return 1 + next(c.bound for c in self.summed.coordinates if c.name == CLIPPED)

    def _digits(self, value: int) -> NDArray[np.int64]:
        """`value` in digits of a base small enough that a digit's sum needs no wider ring than the vector's."""
        size = next(c.size for c in self.summed.coordinates if c.name == CLIPPED)
        base = self._digit_base()
        return np.array([value // base**i % base for i in range(size)], np.int64)


def _block(coordinates: Mapping[str, NDArray[np.int64]], c: Coordinate) -> NDArray[np.int64]:
    block = np.asarray(coordinates.get(c.name, np.zeros(c.size, np.int64)), np.int64)
    if block.shape != (c.size,) or (block.size and int(np.abs(block).max()) > c.bound):
        raise Misuse(f"coordinate {c.name!r}: expected {c.size} integers within +-{c.bound}")
    return block


@dataclass
class Stack:
    """A checked list of layers, ended by a SecureSum (PlainSum if none was given).

    layers: in the client's order. numbers: bits, range, weight cap. Raises StackError for a SecureSum that
    is not last, or for anything that is not a layer.
    """

    privacy: Sequence[Any] = ()
    numbers: Numbers = field(default_factory=Numbers)

    def __post_init__(self) -> None:
        if not isinstance(self.privacy, Sequence) or isinstance(self.privacy, str):
            got = type(self.privacy).__name__
            raise StackError(f"privacy: expected a list of layers, got {got}: write privacy=[...]")
        given = list(self.privacy)
        sums = [item for item in given if isinstance(item, SecureSum)]
        if len(sums) > 1 or (sums and given[-1] is not sums[0]):
            raise StackError(
                "expected at most one secure sum, as the last layer: nothing can follow a sum of ciphertexts"
            )
        self.secure_sum: SecureSum = sums[0] if sums else PlainSum()
        self.layers: tuple[PrivacyLayer, ...] = tuple(
            item for item in given if not isinstance(item, SecureSum)
        )
        for item in self.layers:
            if not isinstance(item, PrivacyLayer):
                raise StackError(f"expected privacy layers and one secure sum, got {type(item).__name__}")
            if item.hides_sum_from_clients and self.secure_sum.clients_learn_sum:
                raise StackError(
                    f"{item.name}: the server adds the noise to the sum, and {type(self.secure_sum).__name__} shows "
                    "clients the sum without it: let the server alone be given the sum, or add noise at the clients "
                    "(DistributedDP)"
                )
        names = [layer.name for layer in self.layers]
        if len(set(names)) != len(names):
            raise StackError(f"expected each layer once, got {names}")

    @property
    def owns(self) -> frozenset[str]:
        """What the user's train function must take, because a layer replaces it."""
        return frozenset().union(*(layer.owns for layer in self.layers))

    def plan(self, run: RunFacts) -> None:
        """Calibrate every layer, and prove that a round of this run composes and fits. Raises Misuse, StackError."""
        for layer in self.layers:
            layer.plan(run)
        names = tuple(str(i) for i in range(run.cohort))
        self.round(RoundFacts(run, 1, names, bytes(32), self.public()), np.zeros(run.dimension))

    def public(self) -> dict[str, dict[str, float]]:
        return {layer.name: values for layer in self.layers if (values := layer.public())}

    def round(
        self, facts: RoundFacts, reference: NDArray[np.float64], exact: Sequence[Coordinate] = ()
    ) -> RoundPlan:
        """Return the arithmetic of one round.

        reference: the public model the round starts from, flat. exact: further exact coordinates (metrics,
        counters), dropped if a DP layer forbids them. Raises StackError, CapacityError.
        """
        signal = Signal("real", facts.run.dimension, self.numbers.weight_cap, range=self.numbers.range)
        signals = [signal]
        for layer in self.layers:
            signal = layer.transform(signal, facts)
            signals.append(signal)
        signals.pop()
        quantiser, signal = self._integers(signal, reference, len(facts.clients), exact)
        return RoundPlan(facts, (*signals, signal), quantiser, self.layers)

    def _integers(
        self, last: Signal, reference: NDArray[np.float64], clients: int, exact: Sequence[Coordinate]
    ) -> tuple[Quantiser | None, Signal]:
        if last.kind == "integer":
            self._fits(last, clients)
            return None, last
        limit = self.numbers.range or last.range or last.linf or last.l2
        bits = self.numbers.bits
        quantiser = Quantiser.for_range(bits, limit) if limit else Quantiser.for_reference(bits, reference)
        bound = last.weight_cap * quantiser.bound
        prove_capacity(clients, last.weight_cap, quantiser.bound)
        coordinates = last.coordinates
        if last.exact_coordinates:
            coordinates += (*self._own_coordinates(last, bound), *exact)
        # rounding moves each coordinate by at most step / 2, so the norm by at most step sqrt(d) / 2
        l2 = (
            None
            if last.l2 is None
            else last.weight_cap * (last.l2 + quantiser.step * math.sqrt(last.dimension) / 2)
        )
        summed = replace(
            last,
            kind="integer",
            step=quantiser.step,
            bound=bound,
            coordinates=coordinates,
            l2=l2,
            range=quantiser.range,
        )
        self._fits(summed, clients)
        return quantiser, summed

    def _own_coordinates(self, last: Signal, bound: int) -> list[Coordinate]:
        digits = 1
        while (bound + 1) ** digits <= last.dimension:
            digits += 1
        weight = [Coordinate(WEIGHT, 1, last.weight_cap)] if last.weight_cap > 1 else []
        return [*weight, Coordinate(CLIPPED, digits, min(bound, last.dimension))]

    @staticmethod
    def _fits(summed: Signal, clients: int) -> None:
        for c in summed.coordinates:
            if 2 * clients * c.bound >= (summed.modulus or 1 << 63):
                raise CapacityError(
                    f"coordinate {c.name!r}: {clients} clients x {c.bound} does not fit the modulus"
                )
        if not summed.modulus:
            prove_capacity(clients, 1, summed.bound)
