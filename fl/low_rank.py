"""LowRank: every weight matrix travels as a product with a basis that all clients share: PowerSGD (Vogels, Karimireddy
and Jaggi, NeurIPS 2019, Algorithm 1) with its two products in turns, as in ACP-SGD (Zhang et al., ICDCS 2023).

    odd rounds:   P = sum_i (M_i + e_i) Q     M <- P Q^T     L = orthonormal basis of P, for the next round
    even rounds:  R = sum_i L^T (M_i + e_i)   M <- L R       Q = orthonormal basis of R^T
    e_i <- (M_i + e_i) - what arrived of it

The products are linear, so that a sum of them is the product of the sum; the bases follow sums alone and are broadcast.
PowerSGD's second product needs the first one's sum, so that both in one round would open two sums of one update: a
resend that clients' policies must allow, every survivor of the first held to the second, and a second charge beside
noise. One product a round is one sum, half the bytes, and the same two half steps of the power iteration, the second
on a fresh update; what a projection leaves out comes later by the residual.
What does not belong here: residuals (`fl.compression`).
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl.compression import Compression
from protocols.errors import require
from protocols.layers import Aggregate, Contribution, RoundFacts, Signal, SumFacts, Value

Floats = NDArray[np.float64]
LEFT = "left"


class LowRank(Compression):
    """Compression of every weight matrix to its product with a few vectors that all clients share, from the left
    and from the right in turns (PowerSGD: Vogels, Karimireddy and Jaggi, NeurIPS 2019, Algorithm 1; ACP-SGD: Zhang
    et al., ICDCS 2023). Each client keeps what the product leaves out and adds it to its next update.

    - rank: how many vectors, >= 1. A tensor of more than two dimensions is a matrix of its first dimension by all
      others; a matrix of no more than `rank` rows or columns is sent whole (default: 4).

    Raises Misuse for a value out of range, and StackError before round 1 behind a layer that clips, compresses or
    makes integers.

        Federation(make, loaders, privacy=[LowRank(1), SecAggPlus()]).fit(rounds=2)
    """

    name = "low-rank"

    def __init__(self, rank: int = 4) -> None:
        require(rank >= 1, "at least 1", rank, "rank")
        self.rank = rank
        self._bases: dict[str, Floats] = {}
        self._left = False

    def public(self) -> Mapping[str, Value]:
        return {LEFT: float(self._left), **self._bases} if self._bases else {}

    def _pieces(self, facts: RoundFacts, dimension: int) -> list[tuple[int, int, Floats | None, bool]]:
        """Return rows, columns, basis (None: sent whole) and whether it stands left, for every tensor in order."""
        told = facts.public.get(self.name, {})
        left, pieces = bool(facts.number_for(self.name, LEFT, 0.0)), []
        random = np.random.default_rng(int.from_bytes(facts.seed, "big"))
        for place, shape in enumerate(facts.shapes or ((dimension,),) if dimension else ()):
            rows = shape[0] if len(shape) > 1 else 1
            columns = int(np.prod(shape)) // max(1, rows)
            basis = None
            if min(rows, columns) > self.rank:
                given = told.get(str(place))
                begun = random.standard_normal((columns, self.rank)) if given is None else np.asarray(given)
                basis = np.linalg.qr(begun)[0]
            pieces.append((rows, columns, basis, left))
        return pieces

    def transform(self, given: Signal, facts: RoundFacts) -> Signal:
        pieces = self._pieces(facts, given.dimension)
        sizes = (
            rows * columns if basis is None else basis.shape[1] * (columns if left else rows)
            for rows, columns, basis, left in pieces
        )
        return replace(self._takes(given, facts), dimension=sum(sizes))

    def _sent(self, vector: Floats, facts: RoundFacts) -> list[Floats]:
        """The products of a vector's matrices with the bases."""
        sent, at = [], 0
        for rows, columns, basis, left in self._pieces(facts, vector.size):
            matrix, at = vector[at : at + rows * columns].reshape(rows, columns), at + rows * columns
            sent.append(matrix if basis is None else basis.T @ matrix if left else matrix @ basis)
        return sent

    def _back(self, products: Floats, facts: RoundFacts, dimension: int) -> tuple[Floats, list[Floats]]:
        """Return what a vector of products stands for, and the products as matrices."""
        found, read, at = [], [], 0
        for rows, columns, basis, left in self._pieces(facts, dimension):
            shape = (rows, columns)
            if basis is not None:
                shape = (basis.shape[1], columns) if left else (rows, basis.shape[1])
            product, at = products[at : at + shape[0] * shape[1]].reshape(shape), at + shape[0] * shape[1]
            read.append(product)
            found.append(product if basis is None else basis @ product if left else product @ basis.T)
        return np.concatenate([np.zeros(0), *(matrix.ravel() for matrix in found)]), read

    def encode(self, contribution: Contribution, given: Signal, facts: RoundFacts) -> Contribution:
        def joined(p: Floats) -> Floats:
            return np.concatenate([np.zeros(0), *(product.ravel() for product in self._sent(p, facts))])

        arrives: Callable[[Floats], Floats] = lambda p: self._back(joined(p), facts, p.size)[0]  # noqa: E731 - one line
        return replace(contribution, vector=joined(self._compressed(contribution.vector, facts, arrives)))

    def decode(self, aggregate: Aggregate, opened: SumFacts, facts: RoundFacts) -> Aggregate:
        vector, products = self._back(np.asarray(aggregate.vector, np.float64), facts, opened.given.dimension)
        for place, (_, _, basis, left) in enumerate(self._pieces(facts, opened.given.dimension)):
            if basis is not None:  # the other side's basis, for the next round
                self._bases[str(place)] = np.linalg.qr(products[place].T if left else products[place])[0]
                self._left = not left
        return replace(aggregate, vector=vector)

    def state(self) -> dict[str, Any]:
        bases = {name: basis.tolist() for name, basis in self._bases.items()}
        return {"bases": bases, LEFT: self._left}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._bases = {name: np.array(basis) for name, basis in state.get("bases", {}).items()}
        self._left = bool(state.get(LEFT, False))
