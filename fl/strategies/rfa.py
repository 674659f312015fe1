"""RFA (Pillutla, Kakade and Harchaoui, IEEE Transactions on Signal Processing 2022, Algorithm 2): the geometric median
of the clients' models by weighted sums, the smoothed Weiszfeld iteration.

    w_i(t) = min(1, radius / |x_i - v(t)|)                      x_i: a client's trained model, v(t): the server's
    v(t+1) = v(t) + sum_i w_i(t) (x_i - v(t)) / sum_i w_i(t)    equation 9 with weights scaled to at most 1

Each iteration is a round of the run, with a sum, a charge and an entry of its own; v(t) is the model that the round
broadcasts. A step is `iterations` rounds: clients train in its first, compute their own distances, and send the same
update again in the others. All sums of a step are over the same survivors: at two points close to one another, a
client less would be told by the difference. Whoever leaves ends the step where it is, and the next round trains anew.
T sums of n updates, with weights that are known functions of them, are T equations in n unknowns: under a secure sum
without noise every client insists on 2 T survivors.
"""

from collections.abc import Mapping

import numpy as np

from fl.round import Mean
from fl.strategies.base import Extras, Floats, Reported
from fl.strategies.resending import STEP, Resending
from fl.strategies.stepped import Stepped
from protocols.errors import Aborted, require
from protocols.layers import Block, Compute, LocalTask, RoundFacts, Value

WEIGHT = "weight"


class RFA(Stepped):
    """The geometric median of the clients' models in place of their mean (Pillutla, Kakade and Harchaoui, IEEE TSP
    2022, Algorithm 2). It withstands wrong training data at fewer than half of the clients; nothing proves that a
    client computes its distance as told.

    - radius: L2 norm, > 0: an update counts in full within it, and pulls by this much beyond; about a tenth of a
      usual update's norm (default: 0.5).
    - iterations: rounds of a step, >= 1. From 2 on an update leaves its client again, which policies must allow
      (default: 3).
    - damped: divide by the number of clients, not by the sum of weights. Steps are smaller, and all that is sent is
      one vector of norm <= radius, which `ClientDP(clip=radius)` and `DistributedDP` then never clip (default:
      False).

    Raises Misuse for a value out of range.

        policy = Policy(allow_resend=True)
        Federation(make, loaders, strategy=RFA(0.5), privacy=[SecAggPlus()], policy=policy).fit(rounds=3)
    """

    name = "rfa"
    weighted = False
    keeps_state = True
    resends = True
    beyond_examples = "it sends an update again without training, and such a layer counts every round's steps"

    def __init__(self, radius: float = 0.5, iterations: int = 3, damped: bool = False) -> None:
        require(0 < radius < float("inf"), "a finite number > 0", radius, "radius")
        require(iterations >= 1, "at least 1", iterations, "iterations")
        super().__init__(iterations)
        self.radius, self.iterations, self.damped = radius, iterations, damped
        self.range = radius  # no coordinate of what is sent is larger
        self.crowd = 2 * iterations if iterations > 1 else 1

    def notes(self) -> tuple[str, ...]:
        return (
            f"rfa: one update leaves its client up to {self.iterations} times, weighted by at most 1 and by its own "
            "distance each time; the server sees the sum of every iteration, each is charged, and all of a step are "
            f"over the same survivors. {self.iterations} sums of the same updates tell each of them where there are no "
            f"more clients than sums: without noise a secure sum opens over at least {self.crowd}, those who work with "
            "the server among them; updates that stay alike from step to step add sums. A server that makes up the "
            "points it shows or says that other clients left in a step's first round than did, or a client that lies "
            "about its distance, is not found out",
        )

    def blocks(self, dimension: int) -> tuple[Block, ...]:
        return () if self.damped else (Block(WEIGHT, 1, weighted=False, range=1.0, clip=1.0),)

    # -- the server --

    def public(self) -> Mapping[str, Value]:
        return {STEP: float(self._step)}

    def least(self, number: int, clients: tuple[str, ...], public: Mapping[str, Value]) -> int:
        return 1 if number <= public.get(STEP, number) else len(clients)

    def move(self, mean: Mean) -> Floats:
        weight = 1.0 if self.damped else float(mean.blocks[WEIGHT][0])
        if weight <= 0:
            raise Aborted("every client is too far from the model to count: take a larger radius")
        self.closed(mean)
        return mean.vector / weight

    # -- the client --

    def local(self, compute: Compute, facts: RoundFacts) -> Compute:
        return lambda task: Resending(facts, self.name, self.iterations).run(compute, task)

    def extras(self, task: LocalTask, difference: Floats, reported: Reported, facts: RoundFacts) -> Extras:
        away = float(np.linalg.norm(difference))
        # not a number where the difference is none
        weight = np.minimum(1.0, self.radius / away) if away else 1.0
        source = Resending(facts, self.name, self.iterations).source(task, vector := weight * difference)
        blocks = {} if self.damped else {WEIGHT: np.array([weight])}
        return Extras(blocks=blocks, vector=vector, source=source)
