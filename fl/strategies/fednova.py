"""FedNova (Wang et al., NeurIPS 2020, equation 8): clients that take more steps do not count for more.

    client:  d_i = (y_i - x) / a_i                a_i: |a|_1 of its steps (`Steering.steps`)
    server:  tau = sum of p_i a_i,   x <- x + server_lr tau sum of p_i d_i

p_i: the client's share of all examples, 1/|S| unweighted. What travels is s d_i, for a public s: the tau of the round
before, `usual` in the first, so that it has the length of an update and the quantiser's step fits. With momentum a_i
is divided by its limit 1 / (1 - momentum), which cancels.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl.round import Mean
from fl.strategies.base import Extras, Floats, Reported
from fl.strategies.fedavg import FedAvg
from fl.strategies.steering import Steering, require_sgd
from protocols.errors import Misuse, require
from protocols.layers import Block, LocalTask, RoundFacts, Value

STEPS = "steps"


class FedNova(FedAvg):
    """FedAvg that normalises unequal local work: clients that take more steps do not count for more (Wang et al.,
    NeurIPS 2020, equation 8). Steps are counted in units of a client's first step size of the round.

    - usual: steps that a client usually takes, > 0: the first round's updates are scaled to it (default: 32).
    - tau: fixed steps by which the server moves, > 0; clients then do not tell their own (default: None, their
      mean, from one more number in the sum).
    - max_steps: public bound on a client's steps, >= 1; a client with more is refused, and beside noise it tells
      this many (default: 4096).
    - server_lr: factor on the mean difference, > 0 (default: 1, the plain mean).
    - weighted: whether clients count by their examples, up to the public weight_cap, else equally (default: True).

    Raises Misuse for a value out of range, and before round 1 for an optimizer other than `torch.optim.SGD`.

        Federation(make, loaders, strategy=FedNova(usual=4), privacy=[SecAggPlus()]).fit(rounds=2)
    """

    name = "fednova"
    steers = True
    beyond_examples = ""

    def __init__(
        self,
        usual: float = 32.0,
        tau: float | None = None,
        max_steps: int = 4096,
        server_lr: float = 1.0,
        weighted: bool = True,
    ) -> None:
        super().__init__(server_lr, weighted)
        for name, value in (("usual", usual), ("tau", 1.0 if tau is None else tau), ("max_steps", max_steps)):
            require(0 < value < float("inf"), f"{name} > 0", value)
        self.usual, self.tau, self.max_steps, self.averages = usual, tau, max_steps, False
        self._scale = float(usual if tau is None else tau)

    def require(self, optimizer: Any) -> None:
        super().require(optimizer)
        require_sgd("FedNova", optimizer)

    def blocks(self, dimension: int) -> tuple[Block, ...]:
        if self.tau is not None:
            return ()
        return (Block(STEPS, 1, self.weighted, range=self.max_steps, clip=self.max_steps, derived=True),)

    def public(self) -> Mapping[str, Value]:
        return {STEPS: self._scale}

    def begin(self, task: LocalTask, facts: RoundFacts) -> None:
        task.noted["steering"] = Steering(task)

    def extras(self, task: LocalTask, difference: Floats, reported: Reported, facts: RoundFacts) -> Extras:
        took = task.noted["steering"].steps()
        if took > self.max_steps and not task.broken_is_zero:  # else the layer clips what is told of it
            raise Misuse(f"max_steps: a client took {took:.4g} steps, expected {self.max_steps} at most")
        scale = facts.number_for(self.name, STEPS, self._scale) / took if took else 0.0
        blocks = {} if self.tau is not None else {STEPS: np.array([took])}
        moved = task.noted["steering"].moved(difference.size)  # running statistics are averaged as they are
        scaled = np.where(moved, difference * scale, difference)
        return Extras(blocks=blocks, vector=scaled)

    def move(self, mean: Mean) -> Floats:
        if self.tau is not None:
            return self.step(mean.vector)
        # noise may take it anywhere
        taken = min(max(float(mean.blocks[STEPS][0]), 1.0), float(self.max_steps))
        moved = self.step(mean.vector) * (taken / self._scale)
        self._scale = taken
        return moved

    def state(self) -> dict[str, Floats]:
        return {STEPS: np.array(self._scale)}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        if state:
            self._scale = float(state[STEPS])
