"""Least squares over clients that disagree: a convex problem on which algorithms can be checked against a few lines.

Client i holds (x, y) and minimises |x w - y|^2 / n. Everything is float64, and a batch is all of a client's examples,
so that a local epoch is one exact gradient step.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from fl import Federation

SIZE, CLIENTS, EXAMPLES = 3, 4, 12
Data = list[tuple[np.ndarray, np.ndarray]]


def problem(examples: Sequence[int] = (EXAMPLES,) * CLIENTS) -> Data:
    drawn = np.random.default_rng(7)
    made = []
    for count in examples:
        x = drawn.normal(size=(count, SIZE)) * drawn.uniform(0.7, 1.3, SIZE)
        made.append((x, x @ drawn.normal(size=SIZE)))
    return made


def gradient(data: tuple[np.ndarray, np.ndarray], w: np.ndarray) -> np.ndarray:
    x, y = data
    found: np.ndarray = 2 * x.T @ (x @ w - y) / len(y)
    return found


def optimum(data: Data, shares: Sequence[float] | None = None) -> np.ndarray:
    """The minimum of the clients' mean loss (equal shares unless given)."""
    shares = shares or [1 / len(data)] * len(data)
    hessian = sum(s * 2 * x.T @ x / len(y) for s, (x, y) in zip(shares, data, strict=True))
    side = sum(s * 2 * x.T @ y / len(y) for s, (x, y) in zip(shares, data, strict=True))
    return np.asarray(np.linalg.solve(hessian, side))


def model() -> torch.nn.Module:
    line = torch.nn.Linear(SIZE, 1, bias=False).double()
    torch.nn.init.zeros_(line.weight)
    return line


def train(model: Any, loader: Any, optimizer: Any, criterion: Any) -> dict[str, float]:
    for x, y in loader:
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()
    return {}


def sgd(lr: float, **more: Any) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda parameters: torch.optim.SGD(parameters, lr=lr, **more)


def federation(data: Data, strategy: Any, privacy: Sequence[Any] = (), **options: Any) -> Federation:
    loaders = [
        DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)[:, None]), batch_size=len(y))
        for x, y in data
    ]
    given = {"bits": 32, "range": 8.0, "optimizer": sgd(0.05), "metrics": (), "train": train} | options
    return Federation(model, loaders, strategy=strategy, privacy=privacy, criterion=torch.nn.MSELoss, **given)


def weights(run: Federation) -> np.ndarray:
    found: np.ndarray = run.model.weight.detach().numpy().ravel().copy()
    return found
