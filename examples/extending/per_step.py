"""A strategy: the mean movement per local step. How many steps a client took is summed, and seen by nobody alone."""

import numpy as np

from fl.round import Count, Mean
from fl.strategies import Strategy
from fl.strategies.base import Extras


class PerStep(Strategy):
    name = "per-step"
    # an integer that every client sends inside its vector, and the most that it may be
    counts = (Count("steps", 10_000),)

    def extras(self, task, difference, reported, facts) -> Extras:  # at the client
        return Extras(counts={"steps": len(task.loader) * task.epochs})

    def move(self, mean: Mean) -> np.ndarray:  # at the server, which sees sums alone
        steps = mean.counts["steps"] / len(mean.survivors)
        return mean.vector / steps
