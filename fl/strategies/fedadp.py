"""FedAdp (Wu and Wang, IEEE TCCN 2021, equations 7 to 9): a client counts by the angle between its update and all's.

    theta_i = arccos(<D_i, D> / |D_i| |D|),   theta~_i: the mean of its angles so far
    f(theta~) = alpha (1 - exp(-exp(-alpha (theta~ - 1)))),   psi_i proportional to n_i exp(f(theta~_i))

The paper's server sees every D_i. Under a secure sum it sees none: it sets the rule and broadcasts D, the mean of the
round before, and each client reckons its own angle, keeps the mean, and chooses its weight. In the first round all
have the same angle. n_i: examples, 1 unweighted.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from fl.strategies.base import Extras, Floats, Reported, Strategy
from protocols.errors import Misuse
from protocols.layers import LocalTask, RoundFacts, Value
from protocols.party_state import PartyState

DIRECTION = "direction"


class FedAdp(Strategy):
    """Weights that follow the angle between a client's update and the last mean (Wu and Wang, IEEE TCCN 2021,
    equations 7 to 9). Each client computes its own weight, by the server's rule.

    - alpha: how much the angle counts, in (0, 50): up to exp(alpha) between two clients (default: 5).
    - weight_cap: the weight of a client whose updates point where the mean does, >= 1; all weights are whole
      numbers up to it (default: 10,000).
    - examples: the public largest number of a client's examples, >= 1, to which weights are also in proportion; a
      client with more counts as so many (default: None, the angle alone).

    Raises Misuse for a value out of range.

        Federation(make, loaders, strategy=FedAdp(alpha=2.0), privacy=[SecAggPlus()]).fit(rounds=2)
    """

    name = "fedadp"
    remembers: ClassVar = {DIRECTION: "_direction"}
    keeps_state = True
    beyond_examples = "clients count equally there, so that the weights it chooses change nothing"
    weight_cap: int

    def __init__(self, alpha: float = 5.0, weight_cap: int = 10_000, examples: int | None = None) -> None:
        if not 0 < alpha < 50 or weight_cap < 1 or (examples is not None and examples < 1):
            raise Misuse(
                f"expected 0 < alpha < 50, weight_cap and examples >= 1, got {alpha}, {weight_cap}, {examples}"
            )
        self.alpha, self.weight_cap, self.examples = alpha, weight_cap, examples
        self._direction: Floats | None = None

    def public(self) -> Mapping[str, Value]:
        return {} if self._direction is None else {DIRECTION: self._direction}

    def extras(self, task: LocalTask, difference: Floats, reported: Reported, facts: RoundFacts) -> Extras:
        state = PartyState.of(facts, self.name)
        total, rounds = state.arrays().get("angles", np.zeros(2))
        shown = facts.public.get(self.name, {}).get(DIRECTION)
        found = None if shown is None else angle(difference, np.asarray(shown, np.float64))
        if found is not None:
            total, rounds = total + found, rounds + 1
        state.keep({"angles": np.array([total, rounds])})
        return Extras(weight=self.weight(total / rounds if rounds else 0.0, task.examples))

    def weight(self, mean_angle: float, examples: int) -> int:
        """Return what a client of this mean angle (radians) and so many examples counts with, 0 without any."""
        share = 1.0 if self.examples is None else min(examples / self.examples, 1.0)
        rule = self.alpha * (1 - np.exp(-np.exp(-self.alpha * (mean_angle - 1))))
        return max(1, round(self.weight_cap * share * float(np.exp(rule - self.alpha)))) if examples else 0

    def step(self, mean: Floats) -> Floats:
        self._direction = mean
        return mean


def angle(one: Floats, other: Floats) -> float | None:
    """Return the angle between two vectors in radians; None where one is zero or not finite."""
    lengths = float(np.linalg.norm(one)) * float(np.linalg.norm(other))
    if not 0 < lengths < float("inf"):
        return None
    return float(np.arccos(np.clip(float(one @ other) / lengths, -1.0, 1.0)))
