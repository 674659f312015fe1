"""Stack: layers in the client's order, decoded in reverse, with one SecureSum last. Composition is checked
when it is built.

The quantiser goes in where no layer made integers itself. What else is summed beside the vector (weight,
clipped count, counters, metrics) is named here, and left out when a DP layer forbids exact coordinates. What does
not belong here: how a round's vector is laid out (`roundplan`).
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.errors import CapacityError, Misuse, StackError, require
from protocols.layers import UPDATE, Coordinate, PrivacyLayer, RoundFacts, RunFacts, Signal, Value
from protocols.options import options_of
from protocols.plain import PlainSum
from protocols.quantise import Quantiser, expect_bits, prove_capacity
from protocols.roundplan import CLIPPED, WEIGHT, BlockPlan, RoundPlan
from protocols.statement import PrivacyEvent
from protocols.summation import SecureSum

MAX_WEIGHT_CAP = 1 << 24
AMPLIFIED = ("all", "fixed", "poisson")
"""Ways to choose clients whose amplification a theorem bounds, if the choice is secret: none to claim for "all"."""
Reference = NDArray[np.float64] | None
IN_CLEAR = (
    "; no secure sum follows, so the server reads every vector under one client's share of the noise: what is claimed "
    "holds against other clients and the public, not against the server"
)


@dataclass(frozen=True)
class Numbers:
    """How floats become integers: bits per value (2 to 32), a public range (None: from clip norm or
    reference), weight cap.
    """

    bits: int = 16
    range: float | None = None
    weight_cap: int = 10_000

    def __post_init__(self) -> None:
        expect_bits(self.bits)
        require(1 <= self.weight_cap <= MAX_WEIGHT_CAP, "a weight cap from 1 to 2^24", self.weight_cap)
        require(self.range is None or 0 < self.range < math.inf, "a positive, finite range", self.range)


@dataclass
class Stack:
    """A checked list of layers, ended by a SecureSum (PlainSum if none was given).

    privacy: layers in the client's order, each name once, a SecureSum last or none. numbers: bits per value, range and
    weight cap (16 bits, range from clip norm or model, cap 10,000). Raises StackError for a SecureSum that is not last,
    for anything that is not a layer, and for layers whose claims the sum would break; Misuse for a layer whose
    accountant cannot price it.

        stack = Stack([ClientDP(noise_multiplier=1.0, clip=1.0), SecAggPlus()], Numbers(bits=20))
        stack.plan(RunFacts(rounds=10, population=100, cohort=50, dimension=57_000))     # raises before round 1

    `plan` calibrates the layers and proves that a round composes and fits; `round` gives a round's arithmetic.
    """

    privacy: Sequence[Any] = ()
    numbers: Numbers = field(default_factory=Numbers)

    def __post_init__(self) -> None:
        if not isinstance(self.privacy, Sequence) or isinstance(self.privacy, str):
            got = getattr(self.privacy, "__name__", type(self.privacy).__name__)
            raise StackError(f"privacy: expected a list of layers, got {got}: write privacy=[...]")
        if not isinstance(self.numbers, Numbers):
            raise StackError(f"numbers: expected Numbers(...), got {self.numbers!r:.60}")
        given = list(self.privacy)
        for item in given:
            if isinstance(item, type):
                raise StackError(
                    f"privacy: expected a layer, got the class {item.__name__}: write {item.__name__}(...)"
                )
        sums = [item for item in given if isinstance(item, SecureSum)]
        if len(sums) > 1 or (sums and given[-1] is not sums[0]):
            raise StackError(
                "expected at most one secure sum, as the last layer: nothing can follow a sum of ciphertexts"
            )
        self.secure_sum: SecureSum = sums[0] if sums else PlainSum()
        self.layers: tuple[PrivacyLayer, ...] = tuple(x for x in given if not isinstance(x, SecureSum))
        for item in self.layers:
            if not isinstance(item, PrivacyLayer):
                raise StackError(
                    f"expected privacy layers and one secure sum such as SecAggPlus(), got {item!r:.60}: names are for "
                    "the command line"
                )
            if item.hides_sum_from_clients and self.secure_sum.clients_learn_sum:
                raise StackError(
                    f"{item.name}: the server adds the noise to the sum, and {type(self.secure_sum).__name__} shows "
                    "clients the sum without it: let the server alone be given the sum, or add noise at the clients "
                    "(DistributedDP)"
                )
        names = [layer.name for layer in self.layers]
        if len(set(names)) != len(names):
            raise StackError(f"expected each layer once, got {names}")
        self.kinds()
        self.options = self._options()

    def _options(self) -> dict[str, str]:
        """What both sides of a session must have made alike, as texts by `<layer>.<option>`: read once, before any
        round; secure sums say theirs in the session.
        """
        found = {f"numbers.{name}": value for name, value in options_of(self.numbers).items()}
        for layer in self.layers:
            own = options_of(layer, layer.state())
            found |= {f"{layer.name}.{name}": own[name] for name in own.keys() - layer.own_options}
        return {name: _text(value) for name, value in found.items()}

    def kinds(self, run: RunFacts | None = None) -> tuple[PrivacyEvent, ...]:
        """Return the kinds of events that the layers state (`PrivacyLayer.kinds`). Raises Misuse for one without a
        price by its layer's accountant.
        """
        return tuple(event for layer in self.layers for event in layer.kinds(run))

    def over_network(self) -> "Stack":
        """Return the stack to play over a network, where every trip costs seconds (`SecureSum.over_network`).

        Where a price counts on a secret choice of clients, a session must not depend on who left an earlier one, and
        the sum stays as it is.
        """
        other = copy.copy(self)
        other.secure_sum = self.secure_sum if self.secret_sampling else self.secure_sum.over_network()
        return other

    @property
    def secret_sampling(self) -> bool:
        """Whether a layer's price counts on a secret choice of clients."""
        return any(layer.secret_sampling for layer in self.layers)

    @property
    def noisy(self) -> bool:
        """Whether a layer bounds and noises what clients send."""
        return any(layer.adds_noise for layer in self.layers)

    @property
    def adversaries(self) -> dict[str, str]:
        """Against whom the noise of each layer holds that adds some, by the layer's name."""
        exposed = self.secure_sum.server_sees_vectors
        return {
            layer.name: layer.against(layer.adversary, exposed) for layer in self.layers if layer.adds_noise
        }

    @property
    def hides_sizes(self) -> bool:
        """Whether what is told may not follow a client's number of examples: there is noise, and none covers it."""
        return self.noisy and not any(layer.sizes_are_public for layer in self.layers)

    def describe(self) -> tuple[str, ...]:
        """Return a sentence per layer for the statement."""
        exposed = self.secure_sum.server_sees_vectors
        clear = [IN_CLEAR if exposed and layer.protects_sums_only else "" for layer in self.layers]
        return tuple(layer.describe() + said for layer, said in zip(self.layers, clear, strict=True))

    @property
    def counts_broken_as_zero(self) -> bool:
        """Whether an update that holds NaN or infinity goes to a layer, which lets it count as zero."""
        return any(layer.counts_broken_as_zero for layer in self.layers)

    @property
    def owns(self) -> frozenset[str]:
        """What the user's train function must take, because a layer replaces it."""
        return frozenset().union(*(layer.owns for layer in self.layers))

    @property
    def counted(self) -> tuple[str, ...]:
        """The names of layers that count their rows: after the run's last row they need nothing more of what they
        keep.
        """
        return tuple(layer.name for layer in self.layers if layer.one_sum)

    def outlook(self, run: RunFacts) -> tuple[str, ...]:
        """Return what makes a planned run worthless, a sentence each: noise that drowns the update, say."""
        run = self._with_sum(run)
        return tuple(said for layer in self.layers if (said := layer.outlook(run)) is not None)

    def plan(self, run: RunFacts) -> None:
        """Calibrate every layer, and prove that a round of this run composes and fits. Raises Misuse, StackError."""
        self._require_secrecy(run)
        self.kinds(run)
        run = self._with_sum(run)
        for layer in self.layers:
            layer.plan(run)
        names = tuple(str(i) for i in range(run.cohort))
        self.round(RoundFacts(run, 1, names, bytes(32), self.public()), np.zeros(run.dimension))

    def _with_sum(self, run: RunFacts) -> RunFacts:
        """Return the run's facts with what the layers must know of the secure sum behind them."""
        if not any(layer.protects_sums_only for layer in self.layers):
            return run
        return replace(run, corrupt=self.secure_sum.withstands(run.cohort))

    def _require_secrecy(self, run: RunFacts) -> None:
        """Raises StackError where a price counts on a secret choice of clients, and they are chosen otherwise or a
        layer names who took part.
        """
        if self.secret_sampling and run.sampling not in AMPLIFIED:
            secret = next(layer.name for layer in self.layers if layer.secret_sampling)
            raise StackError(
                f"{secret} claims amplification by a secret choice of clients, and they are chosen otherwise: "
                f"{run.sampling}. Turns and windows are known, and who answers first follows the data: choose "
                f'sampling="poisson" or "fixed" alone, or take amplify=False'
            )
        names = [layer.name for layer in self.layers if layer.charges_parties]
        if names and self.secret_sampling and run.sampling != "all":
            secret = next(layer.name for layer in self.layers if layer.secret_sampling)
            raise StackError(
                f"{names[0]} states what each client that took part has spent, and the price of {secret} counts on a "
                "secret choice of clients: ask everybody, or claim no amplification (amplify=False)"
            )

    def public(self) -> dict[str, Mapping[str, Value]]:
        """What the layers broadcast for the coming round, by layer."""
        return {layer.name: values for layer in self.layers if (values := layer.public())}

    def round(
        self, facts: RoundFacts, reference: Reference, exact: Sequence[Coordinate] = (), least: int = 1
    ) -> RoundPlan:
        """Return the arithmetic of one round.

        reference: the public model the round starts from, flat (None: clients start from several). exact: further exact
        coordinates (metrics, counters), dropped if a DP layer forbids them. least: the fewest clients in a total that
        whoever asks for the round accepts. Raises StackError, CapacityError.
        """
        facts = replace(facts, run=self._with_sum(facts.run))
        blocks = facts.run.blocks
        names = [UPDATE, *(block.name for block in blocks)]
        if len(set(names)) != len(names):
            raise StackError(f"expected blocks of distinct names besides {UPDATE!r}, got {names[1:]}")
        for layer in self.layers if blocks else ():
            if not layer.takes_blocks:
                raise StackError(
                    f"{layer.name} protects the update alone, and this run sends {names[1:]} too"
                )
        largest = self.weight_cap(facts.run)
        update = Signal("real", facts.run.dimension, largest, range=self.numbers.range, min_survivors=least)
        parts = [self._part(update, facts, reference, exact)]
        for block in blocks:
            cap = largest if block.weighted else 1
            signal = Signal("real", block.dimension, cap, range=block.range, block=block.name)
            parts.append(self._part(signal, facts, None, ()))
        if len({part.summed.modulus for part in parts}) > 1:
            raise StackError(f"the layers sum the blocks {names} in different groups")
        return RoundPlan(facts, tuple(parts), self.layers, self.secure_sum.server_sees_vectors)

    def weight_cap(self, run: RunFacts) -> int:
        """The largest weight that a client of this run can have."""
        return min(self.numbers.weight_cap, run.weight_cap or self.numbers.weight_cap)

    def _part(
        self, signal: Signal, facts: RoundFacts, reference: Reference, exact: Sequence[Coordinate]
    ) -> BlockPlan:
        """Return one block's arithmetic: through the layers, then the quantiser where no layer made integers."""
        given, quantiser = [], None
        for layer in self.layers:
            given.append(signal)
            signal = layer.transform(signal, facts)
        clients, norm = max(1, len(facts.clients)), signal.clip or signal.l2
        if signal.kind != "integer":
            quantiser, signal = self._integers(signal, reference, clients, exact)
        self._fits(signal, clients)
        return BlockPlan((*given, signal), quantiser, norm)

    def _integers(
        self, last: Signal, reference: Reference, clients: int, exact: Sequence[Coordinate]
    ) -> tuple[Quantiser, Signal]:
        limit = (self.numbers.range if last.block == UPDATE else None) or last.range or last.linf or last.l2
        bits = self.numbers.bits
        if limit:
            quantiser = Quantiser.for_range(bits, limit)
        elif reference is not None:
            quantiser = Quantiser.for_reference(bits, reference)
        else:
            raise Misuse(
                f"block {last.block!r}: expected a range, for no layer bounds its coordinates: give Block(range=...), "
                "or Numbers a range (range=...) for updates of clients that start from different models"
            )
        bound = last.weight_cap * quantiser.bound
        prove_capacity(clients, last.weight_cap, quantiser.bound)
        coordinates = last.coordinates
        if last.exact_coordinates:
            coordinates += (*self._own_coordinates(last, bound), *exact)
        # rounding moves each coordinate by at most step / 2, so the norm by at most step sqrt(d) / 2
        rounding = quantiser.step * math.sqrt(last.dimension) / 2
        l2 = None if last.l2 is None else last.weight_cap * (last.l2 + rounding)
        made = replace(last, kind="integer", step=quantiser.step, bound=bound, range=quantiser.range)
        return quantiser, replace(made, coordinates=coordinates, l2=l2)

    @staticmethod
    def _own_coordinates(last: Signal, bound: int) -> list[Coordinate]:
        digits = 1
        while (bound + 1) ** digits <= last.dimension:
            digits += 1
        weighted = last.block == UPDATE and last.weight_cap > 1
        weight = [Coordinate(WEIGHT, 1, last.weight_cap)] if weighted else []
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


def _text(value: Any) -> str:
    """Return an option as text; 5 and 5.0 are one number."""
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    return (
        repr(float(value)) if isinstance(value, int | float) and not isinstance(value, bool) else repr(value)
    )
