"""NormBound: every update is clipped to a public L2 norm before it is summed. Robust, not private.

Source: Sun, Kairouz, Suresh and McMahan, "Can You Really Backdoor Federated Learning?" (2019), section 4.

    x_i' = x_i min(1, bound / |x_i|)

A client that trains on wrong data moves the mean by at most bound x weight / all weights. No noise is added, so nothing
private is claimed. What does not belong here: noise, the choice of a bound over rounds (`dp.client`).
"""

from dataclasses import replace

from dp.clipping import clip
from protocols.errors import StackError
from protocols.layers import Contribution, PrivacyLayer, RoundFacts, Signal
from protocols.numbers import positive


class NormBound(PrivacyLayer):
    """A clip of every update to a public L2 norm, against clients that train on wrong data: robust, not private
    (Sun et al., 2019, section 4). A client moves the weighted mean by at most bound x weight / all weights.

    - bound: largest L2 norm of an update, > 0 (default: 1).

    Raises Misuse for a bound out of range, and StackError before round 1 behind a layer that makes integers.

        Federation(make, loaders, privacy=[NormBound(0.5), SecAggPlus()]).fit(rounds=1)
    """

    name = "norm-bound"

    def __init__(self, bound: float = 1.0) -> None:
        self.bound = positive("bound", bound)

    def describe(self) -> str:
        return (
            f"{self.name}: every client clips its update to norm {self.bound:g}: robust, not private, for no noise is "
            "added; a secure sum does not prove that a client clipped"
        )

    def transform(self, given: Signal, facts: RoundFacts) -> Signal:
        if given.kind != "real":
            raise StackError(
                f"{self.name} clips a vector of floats: put it before the layer that makes integers"
            )
        within = min(self.bound, given.l2 or self.bound)
        return replace(given, l2=within, linf=within, range=min(self.bound, given.range or self.bound))

    def encode(self, contribution: Contribution, given: Signal, facts: RoundFacts) -> Contribution:
        return replace(contribution, vector=clip(contribution.vector, self.bound).vector)
