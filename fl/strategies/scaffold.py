"""SCAFFOLD (Karimireddy et al., ICML 2020, Algorithm 1): control variates take the clients' drift out of local steps.

    client:  y <- y - lr (g_i(y) - c_i + c)              from y = x, K times
             c_i+ <- g_i(x)                               (option 1)
             c_i+ <- c_i - c + (x - y) / (K lr)           (option 2)
    server:  x <- x + server_lr / |S| sum over S of (y_i - x)
             c <- c + 1 / N sum over S of (c_i+ - c_i)

With momentum K lr is the steps' whole reach (`Steering.reach`), so that c_i+ stays a mean of gradients. What a client
keeps is c_i plus the change as it is in the sum (clipped, rounded), so that c stays the mean of all c_i; what was cut
off comes with the next change.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from fl.round import Mean
from fl.strategies.base import Extras, Floats, Reported
from fl.strategies.fedavg import FedAvg
from fl.strategies.fedsgd import gradients
from fl.strategies.steering import Steering, require_sgd
from protocols.errors import require
from protocols.layers import Block, Compute, LocalTask, RoundFacts, RunFacts, Value
from protocols.party_state import PartyState

CONTROL = "control"
GRADIENTS = (
    "by option 1 clients keep gradients of their examples that nothing noised, and what later rounds make of them has "
    "no price; take option 2, whose control variates follow from the protected update"
)


class Scaffold(FedAvg):
    """FedAvg with control variates at server and clients (Karimireddy et al., ICML 2020, Algorithm 1). Its fixed
    point is the optimum of the clients' equal mean.

    - option: how a client renews its control variate: 1 (one more pass, the gradient at the broadcast model) or 2
      (from the steps that it took; default).
    - control_clip: public bound on a round's change of a control variate, > 0: on each coordinate, and on its L2
      norm beside a layer that clips (default: 1).
    - server_lr: factor on the mean difference, > 0 (default: 1, the plain mean).
    - weighted: whether updates count by their clients' examples; control variates never do (default: False).

    Raises Misuse for a value out of range, and before round 1 for an optimizer other than `torch.optim.SGD`.

        Federation(make, loaders, strategy=Scaffold(), privacy=[SecAggPlus()]).fit(rounds=2)
    """

    name = "scaffold"
    remembers: ClassVar = {CONTROL: "_c"}
    keeps_state = True
    steers = True

    def __init__(
        self, option: int = 2, control_clip: float = 1.0, server_lr: float = 1.0, weighted: bool = False
    ) -> None:
        super().__init__(server_lr, weighted)
        require(option in (1, 2), "1 or 2", f"{option!r}", "option")
        require(0 < control_clip < float("inf"), "control_clip > 0", control_clip)
        self.option, self.control_clip = option, control_clip
        self.beyond_examples = "" if option == 2 else GRADIENTS
        self._population = 1
        self._c: Floats | None = None

    def require(self, optimizer: Any) -> None:
        super().require(optimizer)
        require_sgd("Scaffold", optimizer)

    def plan(self, run: RunFacts) -> None:
        self._population = run.population

    def blocks(self, dimension: int) -> tuple[Block, ...]:
        clip = self.control_clip
        return (Block(CONTROL, dimension, False, range=clip, clip=clip, derived=self.option == 2),)

    def notes(self) -> tuple[str, ...]:
        return (
            "scaffold: clients send two vectors, and the server has the sum of each; beside a layer that clips, the "
            f"change of a control variate is clipped to norm {self.control_clip:g} of its own",
        )

    def public(self) -> Mapping[str, Value]:
        return {} if self._c is None else {CONTROL: self._c}

    # -- the client --

    def begin(self, task: LocalTask, facts: RoundFacts) -> None:
        own, all_ = self._controls(facts)
        task.noted["steering"] = Steering(task, shift=all_ - own)

    def local(self, compute: Compute, facts: RoundFacts) -> Compute:
        def first(task: LocalTask) -> dict[str, float]:
            task.noted["gradient"] = task.noted["steering"].flat(gradients(task), facts.run.dimension)
            return compute(task)

        return first if self.option == 1 else compute

    def extras(self, task: LocalTask, difference: Floats, reported: Reported, facts: RoundFacts) -> Extras:
        own, all_ = self._controls(facts)
        steering: Steering = task.noted["steering"]
        change = (
            steering.mean_gradient(difference) - all_ if self.option == 2 else task.noted["gradient"] - own
        )
        change = np.where(steering.moved(difference.size), change, 0.0)
        sound = np.isfinite(change).all()
        change = facts.arrives(CONTROL, change) if sound else np.zeros_like(change)
        PartyState.of(facts, self.name).keep({CONTROL: own + change})
        return Extras(blocks={CONTROL: change})

    def _controls(self, facts: RoundFacts) -> tuple[Floats, Floats]:
        """Return the client's own control variate and the server's."""
        none = np.zeros(facts.run.dimension)
        own = PartyState.of(facts, self.name).arrays().get(CONTROL, none)
        return own, np.asarray(facts.public.get(self.name, {}).get(CONTROL, none), np.float64)

    # -- the server --

    def move(self, mean: Mean) -> Floats:
        change = mean.blocks[CONTROL] * (mean.block_weights[CONTROL] / self._population)
        self._c = change if self._c is None else self._c + change
        return self.step(mean.vector)
