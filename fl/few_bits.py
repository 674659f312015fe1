"""FewBits: few bits per value inside a secure sum, the rest later (`fl.compression`).

    c = floor(p / 2u), cut to [-2^(b-1), 2^(b-1))      C(p) = (2c + 1) u      u = range / (2^b - 1)

What does not belong here: the quantiser of a stack (`protocols.quantise`).
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from fl.compression import Compression, Floats
from protocols.errors import require
from protocols.layers import Aggregate, Contribution, RoundFacts, Signal, SumFacts


class FewBits(Compression):
    """Compression to a few bits per value: each client keeps what rounding takes away and adds it to its next
    update (Karimireddy et al., ICML 2019, Algorithm 2). Clients count equally.

    - bits: of each value, 1 to 16 (default: 4).
    - range: public, > 0: the 2^bits levels lie from -range to range (default: 0.1).

    Raises Misuse for a value out of range, and StackError before round 1 behind a layer that clips, compresses or
    makes integers.

        privacy = [FewBits(bits=1, range=0.01), SecAggPlus()]
        Federation(make, loaders, privacy=privacy, metrics=()).fit(rounds=2)   # no metric widens the ring
    """

    name = "few-bits"

    def __init__(self, bits: int = 4, range: float = 0.1) -> None:
        require(1 <= bits <= 16, "1 to 16", bits, "bits")
        require(0 < range < float("inf"), "a finite number > 0", range, "range")
        self.bits, self.range = bits, range

    @property
    def _unit(self) -> float:
        """Half the distance between two levels."""
        return self.range / ((1 << self.bits) - 1)

    def transform(self, given: Signal, facts: RoundFacts) -> Signal:
        made = replace(self._takes(given, facts), kind="integer", weight_cap=1, exact_coordinates=False)
        return replace(made, step=2 * self._unit, bound=1 << (self.bits - 1), linf=self.range, range=None)

    def _levels(self, vector: Floats) -> Floats:
        """The nearest level's number, from -2^(bits-1); level c is at (2c + 1) units."""
        half = 1 << (self.bits - 1)
        return np.clip(np.floor(vector / (2 * self._unit)), -half, half - 1)

    def encode(self, contribution: Contribution, given: Signal, facts: RoundFacts) -> Contribution:
        sent: Callable[[Floats], Floats] = lambda p: (2 * self._levels(p) + 1) * self._unit  # noqa: E731 - one line
        whole = self._compressed(contribution.vector, facts, sent)
        return Contribution(self._levels(whole).astype(np.int64))

    def decode(self, aggregate: Aggregate, opened: SumFacts, facts: RoundFacts) -> Aggregate:
        total = (2 * aggregate.vector + len(opened.survivors)) * self._unit
        return replace(aggregate, vector=total, weight=float(len(opened.survivors)))
