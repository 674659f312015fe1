"""FedDyn (Acar et al., ICLR 2021, Algorithm 1): a linear term makes each client's optimum that of all.

    client:  y_i = argmin L_i(y) - <g_i, y> + alpha/2 |y - x|^2        by the user's own steps from y = x
             g_i <- g_i - alpha (y_i - x)
    server:  h <- h - alpha / N sum over S of (y_i - x)
             x <- mean over S of y_i - h / alpha

N: all clients, S: the survivors. g_i moves by y_i - x as it is in the sum (clipped, rounded), so that h stays the
mean of all g_i.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from fl.round import Mean
from fl.strategies.base import Extras, Floats, Reported, Strategy
from fl.strategies.steering import Steering
from protocols.errors import Misuse, require
from protocols.layers import UPDATE, LocalTask, RoundFacts, RunFacts, Value
from protocols.party_state import PartyState

GRADIENT = "gradient"


class FedDyn(Strategy):
    """Dynamic regularisation (Acar et al., ICLR 2021, Algorithm 1). Clients count equally, and the fixed point is
    the optimum of their equal mean.

    - alpha: strength, > 0: the smaller, the nearer to its own optimum a client ends a round (default: 0.01).

    Raises Misuse for an alpha out of range, and at a client whose alpha is not the server's.

        Federation(make, loaders, strategy=FedDyn(alpha=0.1), privacy=[SecAggPlus()]).fit(rounds=2)
    """

    name = "feddyn"
    remembers: ClassVar = {"h": "_h"}
    keeps_state = True
    steers = True
    weighted = False
    averages = False
    beyond_examples = ""

    def __init__(self, alpha: float = 0.01) -> None:
        require(0 < alpha < float("inf"), "alpha > 0", alpha)
        self.alpha = alpha
        self._population = 1
        self._h: Floats | None = None

    def plan(self, run: RunFacts) -> None:
        self._population = run.population

    def public(self) -> Mapping[str, Value]:
        return {"alpha": self.alpha}

    def begin(self, task: LocalTask, facts: RoundFacts) -> None:
        if (told := facts.number_for(self.name, "alpha", self.alpha)) != self.alpha:
            raise Misuse(
                f"alpha: this client was made with {self.alpha:g}, the server with {told:g}: take one of them"
            )
        Steering(task, pull=self.alpha, shift=-self._kept(facts))

    def extras(self, task: LocalTask, difference: Floats, reported: Reported, facts: RoundFacts) -> Extras:
        sent = facts.arrives(UPDATE, difference) if np.isfinite(difference).all() else 0.0
        gradient = self._kept(facts) - self.alpha * sent
        PartyState.of(facts, self.name).keep({GRADIENT: gradient})
        return Extras()

    def _kept(self, facts: RoundFacts) -> Floats:
        arrays = PartyState.of(facts, self.name).arrays()
        return arrays.get(GRADIENT, np.zeros(facts.run.dimension))

    def move(self, mean: Mean) -> Floats:
        moved = mean.vector * (-self.alpha * mean.weight / self._population)
        self._h = moved if self._h is None else self._h + moved
        return mean.vector - self._h / self.alpha
