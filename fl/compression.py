"""Compression inside a secure sum, alike at all clients, so that sums add up: what its kinds share, the residual.

    p = u + e          C(p) is sent          e = p - C(p)        (Karimireddy et al., ICML 2019, Algorithm 2)

What a client does not send it keeps as its residual e, in its own store, pending until its round closed. It is sealed
there, of one run, and outside any epsilon. A layer that clips and noises clients' updates comes after compression, so
that its clip is the last thing that happens; behind one, a residual would carry what the clip cut off into later rounds
and is refused. What does not belong here: what is sent (`few_bits`, `random_k`, `low_rank`), noise.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from protocols.errors import StackError
from protocols.layers import PrivacyLayer, RoundFacts, Signal
from protocols.party_state import PartyState

Floats = NDArray[np.float64]
RESIDUAL = "residual"


class Compression(PrivacyLayer):
    """Base: a kind says what is sent of a vector, and calls `_compressed`."""

    keeps_state = True

    def describe(self) -> str:
        return f"{self.name}: fewer bytes, no privacy: what is left out stays at its client and is sent later"

    def _takes(self, given: Signal, facts: RoundFacts) -> Signal:
        """Return what is given, without bounds that a residual breaks. Raises StackError behind a clip, and behind
        another compression, whose coordinates mean something else in every round.
        """
        if given.dimension not in (0, facts.run.dimension):
            raise StackError(
                f"{self.name} keeps what it does not send of an update's {facts.run.dimension} coordinates, and a "
                f"layer before it sends {given.dimension} numbers: take one kind of compression"
            )
        if given.kind != "real" or given.l2 is not None:
            raise StackError(
                f"{self.name} adds what earlier rounds left out, so it takes floats that no layer clipped: "
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
