"""The federation: model, data, layers. Nothing here knows where it runs."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

from fl import FedAvg, Federation
from fl.data import load
from fl.data.partition import partition
from secagg import SecAggPlus

SITES = tuple(f"site-{i}" for i in range(1, 5))


def make_model() -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)
    )


def tensors(x: Any, y: Any) -> TensorDataset:
    return TensorDataset(torch.from_numpy(x), torch.from_numpy(y))


def loader_for(site: str, config: dict[str, Any]) -> DataLoader[Any]:
    """Return one site's data. A real site opens its own files here; this is only ever called where it lives."""
    data = load("digits")
    parts = partition(data, "dirichlet:alpha=0.5", len(SITES), 0)
    rows = list(parts.values())[SITES.index(site)]
    return DataLoader(tensors(data.x_train[rows], data.y_train[rows]), batch_size=16, shuffle=True)


class TestData:
    """The server's test data, opened when it is first asked for: a node that only unmasks never loads it."""

    def __iter__(self) -> Iterator[Any]:
        data = load("digits")
        return iter(DataLoader(tensors(data.x_test, data.y_test), batch_size=512))


def make_federation(privacy: list[Any] | None = None) -> Federation:
    """Return the federation. One set-up serves all rounds, so that a round takes two message trips."""
    return Federation(
        model=make_model,
        clients=loader_for,
        names=SITES,
        strategy=FedAvg(),
        privacy=[SecAggPlus(setup="reuse", dropout=0.2)] if privacy is None else privacy,
        test=TestData(),
        learning_rate=0.1,
        local_epochs=5,
    )
