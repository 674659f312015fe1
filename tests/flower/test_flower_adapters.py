"""Federations that adapters made run on Flower's own simulation, and give the model of the run in memory."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import SGDClassifier
from torch.utils.data import DataLoader, TensorDataset

from fl import Federation
from fl.adapters import from_numpy, from_sklearn, from_torch
from fl.flower.simulation import simulate_federation
from secagg import SecAgg

X = np.random.default_rng(1).normal(size=(36, 3))
Y = (X.sum(axis=1) > 0).astype(np.int64)
SITES = {name: (X[at::3], Y[at::3]) for at, name in enumerate(("north", "south", "west"))}


def layers() -> dict[str, Any]:
    return {"privacy": [SecAgg(threat="semi-honest", dropout=0.3, collusion=0.0)]}


def train(model: torch.nn.Module, loader: Any, optimizer: Any) -> None:
    for x, y in loader:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def of_torch() -> Federation:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD(model[2].parameters(), lr=0.2, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    loaders = {
        name: DataLoader(TensorDataset(torch.tensor(x).float(), torch.tensor(y)), 4, shuffle=True)
        for name, (x, y) in SITES.items()
    }
    return from_torch(model, train, loaders, optimizer, scheduler, **layers())


def of_numpy() -> Federation:
    def towards(weights: dict[str, Any], data: Any) -> dict[str, Any]:
        return {"w": weights["w"] + 0.5 * (data[0].mean(axis=0) - weights["w"])}

    return from_numpy({"w": np.zeros(3)}, towards, SITES, range=4.0, **layers())


def of_sklearn() -> Federation:
    return from_sklearn(SGDClassifier(random_state=0), SITES, classes=[0, 1], **layers())


@pytest.mark.parametrize("make", [of_torch, of_numpy, of_sklearn])
def test_an_adapters_federation_on_flower_is_that_in_memory_bit_for_bit(make: Any) -> None:
    result, here = simulate_federation(make(), 2, processes=1), make().fit(2)
    assert [entry.survivors for entry in result.history] == [tuple(SITES)] * 2
    expected = here.model.state_dict()
    for name, value in result.model.state_dict().items():
        assert torch.equal(value, expected[name]), name
