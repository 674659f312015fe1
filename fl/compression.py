"""Compression inside a secure sum: fewer bits per value, or fewer values, alike at all clients, so that sums add up.

    p = u + e          C(p) is sent          e = p - C(p)        (Karimireddy et al., ICML 2019, Algorithm 2)

What a client does not send it keeps as its residual e, in its own store, pending until its round closed. It is sealed
there, of one run, and outside any epsilon. A layer that clips and noises clients' updates comes after compression, so
that its clip is the last thing that happens; behind one, a residual would carry what the clip cut off into later rounds
and is refused. What does not belong here: the quantiser of a stack (`protocols.quantise`), noise.
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from protocols.errors import Misuse, StackError
from protocols.layers import Aggregate, Contribution, PrivacyLayer, RoundFacts, Signal
from protocols.party_state import PartyState

Floats = NDArray[np.float64]
RESIDUAL = "residual"


class Compression(PrivacyLayer):
    """Base: what both kinds share. Give `_kept`."""

    keeps_state = True

    def describe(self) -> str:
        return f"{self.name}: fewer bytes, no privacy: what is left out stays at its client and is sent later"

    def _takes(self, given: Signal) -> Signal:
        """Return what is given, without bounds that a residual breaks. Raises StackError behind a clip with noise."""
        if given.kind != "real" or (given.l2 is not None and not given.exact_coordinates):
            raise StackError(
                f"{self.name} adds what earlier rounds left out, so it takes floats that no layer clipped and noised: "
                "put it before that layer, whose clip then comes last"
            )
        return replace(given, l2=None, linf=None)

    def _compressed(self, vector: Floats, facts: RoundFacts, kept: Callable[[Floats], Floats]) -> Floats:
        """Return the vector plus the client's residual, and keep what `kept`, which says what is sent, leaves of it."""
        state = PartyState.of(facts, self.name)
        if not vector.size:  # a round of counts
            state.keep(state.arrays())
            return vector
        whole: Floats = vector + state.arrays().get(RESIDUAL, np.zeros_like(vector))
        state.keep({RESIDUAL: whole - kept(whole)})
        return whole


class FewBits(Compression):
    """1 to 16 bits per value. bits: of each value. range: > 0, public: 2^bits levels lie from -range to range.

    Clients count alike, and nothing else is summed beside the vector, so that the ring is as narrow as the sum.

        Federation(make, loaders, privacy=[FewBits(bits=1, range=0.01), SecAggPlus()], metrics=())
    """

    name: ClassVar[str] = "few-bits"

    def __init__(self, bits: int = 4, range: float = 0.1) -> None:
        if not 1 <= bits <= 16:
            raise Misuse(f"bits: expected 1 to 16, got {bits}")
        if not 0 < range < float("inf"):
            raise Misuse(f"range: expected a finite number > 0, got {range}")
        self.bits, self.range = bits, range

    @property
    def _unit(self) -> float:
        """Half the distance between two levels."""
        return self.range / ((1 << self.bits) - 1)

    def transform(self, given: Signal, facts: RoundFacts) -> Signal:
        made = replace(self._takes(given), kind="integer", weight_cap=1, exact_coordinates=False)
        return replace(made, step=2 * self._unit, bound=1 << (self.bits - 1), linf=self.range, range=None)

    def _levels(self, vector: Floats) -> Floats:
        """The nearest level's number, from -2^(bits-1); level c is at (2c + 1) units."""
        half = 1 << (self.bits - 1)
        return np.clip(np.floor(vector / (2 * self._unit)), -half, half - 1)

    def encode(self, contribution: Contribution, given: Signal, facts: RoundFacts) -> Contribution:
        sent: Callable[[Floats], Floats] = lambda p: (2 * self._levels(p) + 1) * self._unit  # noqa: E731 - one line
        whole = self._compressed(contribution.vector, facts, sent)
        return Contribution(self._levels(whole).astype(np.int64))

    def decode(
        self,
        aggregate: Aggregate,
        given: Signal,
        released: Signal,
        facts: RoundFacts,
        survivors: tuple[str, ...],
    ) -> Aggregate:
        total = (2 * aggregate.vector + len(survivors)) * self._unit
        return replace(aggregate, vector=total, weight=float(len(survivors)))


class RandomK(Compression):
    """A random share of the coordinates, the same for all clients of a round: they follow the round's public seed,
    which the broadcast model fixes. share: in (0, 1]; at least one coordinate is sent.

        Federation(make, loaders, privacy=[RandomK(0.1), ClientDP(epsilon=8, clip=0.5), SecAggPlus()])
    """

    name: ClassVar[str] = "random-k"

    def __init__(self, share: float = 0.1) -> None:
        if not 0 < share <= 1:
            raise Misuse(f"share: expected a number in (0, 1], got {share}")
        self.share = share

    def _places(self, dimension: int, facts: RoundFacts) -> NDArray[np.int64]:
        """Which coordinates are sent, in order (SHAKE-256 of the round's seed)."""
        data = hashlib.shake_256(b"secagg random-k v1\0" + facts.seed).digest(8 * dimension)
        order = np.argsort(np.frombuffer(data, "<u8"), kind="stable")
        return np.sort(order[: self._size(dimension)])

    def _size(self, dimension: int) -> int:
        """How many coordinates of so many are sent."""
        return min(dimension, max(1, round(self.share * dimension)))

    def transform(self, given: Signal, facts: RoundFacts) -> Signal:
        return replace(self._takes(given), dimension=self._size(given.dimension))

    def encode(self, contribution: Contribution, given: Signal, facts: RoundFacts) -> Contribution:
        places = self._places(given.dimension, facts)
        chosen = np.zeros(given.dimension, bool)
        chosen[places] = True
        whole = self._compressed(contribution.vector, facts, lambda p: np.where(chosen, p, 0.0))
        return replace(contribution, vector=whole[places])

    def decode(
        self,
        aggregate: Aggregate,
        given: Signal,
        released: Signal,
        facts: RoundFacts,
        survivors: tuple[str, ...],
    ) -> Aggregate:
        vector = np.zeros(given.dimension)
        vector[self._places(given.dimension, facts)] = aggregate.vector
        return replace(aggregate, vector=vector)
