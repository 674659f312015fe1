"""RandomK: a random share of the coordinates inside a secure sum, the same for all clients, the rest later
(`fl.compression`). What does not belong here: the round's seed (`fl.round`).
"""

import hashlib
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fl.compression import Compression
from protocols.errors import require
from protocols.layers import Aggregate, Contribution, RoundFacts, Signal, SumFacts


class RandomK(Compression):
    """Compression to a random share of the coordinates: each client keeps the others and adds them to its next
    update (Karimireddy et al., ICML 2019, Algorithm 2). All clients of a round send the same coordinates, drawn by
    a public seed that follows from the broadcast model.

    - share: of the coordinates, in (0, 1]; at least one is sent (default: 0.1).

    Raises Misuse for a value out of range, and StackError before round 1 behind a layer that clips, compresses or
    makes integers.

        Federation(make, loaders, privacy=[RandomK(0.5), SecAggPlus()]).fit(rounds=2)
    """

    name = "random-k"

    def __init__(self, share: float = 0.1) -> None:
        require(0 < share <= 1, "a number in (0, 1]", share, "share")
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
        return replace(self._takes(given, facts), dimension=self._size(given.dimension))

    def encode(self, contribution: Contribution, given: Signal, facts: RoundFacts) -> Contribution:
        places = self._places(given.dimension, facts)
        chosen = np.zeros(given.dimension, bool)
        chosen[places] = True
        whole = self._compressed(contribution.vector, facts, lambda p: np.where(chosen, p, 0.0))
        return replace(contribution, vector=whole[places])

    def decode(self, aggregate: Aggregate, opened: SumFacts, facts: RoundFacts) -> Aggregate:
        vector = np.zeros(opened.given.dimension)
        vector[self._places(opened.given.dimension, facts)] = aggregate.vector
        return replace(aggregate, vector=vector)
