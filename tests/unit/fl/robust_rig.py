"""Clients whose training ends at a point, for tests of robust aggregation."""

from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from fl import Federation
from fl.round import Broadcast
from protocols.policy import Policy

AGAIN = Policy(min_cohort=1, min_survivors=1, allow_resend=True)
TARGETS = np.array([[0.0, 0.0], [0.2, 0.1], [0.1, -0.2], [-0.1, 0.1], [8.0, 9.0]])
"""Where the clients' training ends: four agree, one does not."""
TWICE = np.concatenate([TARGETS, TARGETS])


class Point(torch.nn.Module):
    """A model of one vector."""

    def __init__(self) -> None:
        super().__init__()
        self.at = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))


def go(model: Any, loader: Any, optimizer: Any) -> None:
    """Train at once to where this client's data is."""
    with torch.no_grad():
        model.at.copy_(loader.dataset.tensors[0][0])


def wander(model: Any, loader: Any, optimizer: Any, round: int) -> None:
    """The same, with every round at another place: two trainings make two updates."""
    go(model, loader, optimizer)
    with torch.no_grad():
        model.at += 0.1 * round


def federation(
    strategy: Any, privacy: Any = (), targets: Any = TARGETS, train: Any = go, **options: Any
) -> Federation:
    clients = [DataLoader(TensorDataset(torch.tensor(row)[None])) for row in targets]
    given = {"policy": AGAIN, "metrics": (), "bits": 24, "range": None, **options}
    return Federation(Point, clients, train, strategy, privacy, **given)


def at(run: Federation) -> np.ndarray:
    return np.array(run.model.at.detach().numpy())


def weiszfeld(points: np.ndarray, radius: float, iterations: int) -> np.ndarray:
    """The reference: equation 9 of the paper, its weights scaled by the radius."""
    v = np.zeros(points.shape[1])
    for _ in range(iterations):
        w = 1 / np.maximum(radius, np.linalg.norm(points - v, axis=1))
        v = (w[:, None] * points).sum(0) / w.sum()
    return v


def shown(run: Federation, number: int, step: int) -> Broadcast:
    public = {"rfa": {"step": float(step)}, "closed": dict.fromkeys(run.setup.names, float(number - 1))}
    return run.coordinator.open(number, run.setup.names, public)


MANY = np.array([[0.1 * k, -0.1 * k] for k in range(12)] + [[50.0, -80.0]])
"""Thirteen clients, the last of whom lies."""
