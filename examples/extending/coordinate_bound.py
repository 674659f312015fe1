"""A layer: every coordinate of an update is clipped to a public bound before it is summed."""

from dataclasses import replace

import numpy as np

from protocols.errors import Misuse, StackError
from protocols.layers import Contribution, PrivacyLayer, RoundFacts, Signal


class CoordinateBound(PrivacyLayer):
    """bound: the largest |coordinate| of an update, > 0. Robust against single wild values; nothing private."""

    name = "coordinate-bound"

    def __init__(self, bound: float = 0.1) -> None:
        if not 0 < bound < float("inf"):
            raise Misuse(f"expected a finite bound > 0, got {bound!r}")
        self.bound = float(bound)  # a public attribute: both sides of a session must agree on it

    def describe(self) -> str:  # a line of the statement
        return f"{self.name}: every client clips each coordinate to {self.bound:g}; no noise is added"

    def transform(self, given: Signal, facts: RoundFacts) -> Signal:  # what the next layer may count on
        if given.kind != "real":
            raise StackError(f"{self.name} clips floats: put it before the layer that makes integers")
        reach = min(self.bound, given.range or self.bound)
        return replace(given, linf=reach, range=reach)

    def encode(self, contribution: Contribution, given: Signal, facts: RoundFacts) -> Contribution:
        return replace(contribution, vector=np.clip(contribution.vector, -self.bound, self.bound))
