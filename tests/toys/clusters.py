"""A strategy of several sums in one round: two overlapping groups of clients, each of which moves its own model."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fl.round import Mean
from fl.strategies import Strategy

OFFSET = 0.125
"""Where the second model begins, from the first."""


class Clusters(Strategy):
    """Toy: all clients but the last move one model, all but the first another; the server's is their mean."""

    name = "clusters"

    def __init__(self) -> None:
        self.models: dict[str, np.ndarray] = {}
        self.members: dict[str, tuple[str, ...]] = {}

    def sums(self, clients: tuple[str, ...], number: int) -> Mapping[str, tuple[str, ...]]:
        return {"first": clients[:-1], "second": clients[1:]}

    def model(self, name: str, server: np.ndarray) -> np.ndarray:
        return self.models.setdefault(name, server + (OFFSET if name == "second" else 0.0))

    def moves(self, means: Mapping[str, Mean]) -> np.ndarray:
        before = np.mean(list(self.models.values()), axis=0)
        for name, mean in means.items():
            self.members[name] = mean.survivors
            self.models[name] = self.models[name] + mean.vector
        after: np.ndarray = np.mean(list(self.models.values()), axis=0)
        return after - before

    def state(self) -> dict[str, np.ndarray]:
        return dict(self.models)

    def restore(self, state: Mapping[str, Any]) -> None:
        self.models = {name: np.array(vector) for name, vector in state.items()}
