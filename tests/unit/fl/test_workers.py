"""Training in other processes: the same model bit for bit, errors told in the parent, stores brought back."""

import logging
import os
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from dp import LocalDP, SampleDP
from fl import Federation
from fl.engines.workers import Workers
from fl.loaders import check_workers
from protocols.errors import BudgetExceeded, ClientFailed, Misuse
from protocols.store import MemoryStore
from secagg import SecAggPlus

CLIENTS = 5


def loaders(count: int = CLIENTS) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(3)
    found = {}
    for i in range(count):
        x = torch.randn(12, 4, generator=generator)
        found[f"c{i}"] = DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), 4, shuffle=True)
    return found


def federation(**options: Any) -> Federation:
    def make() -> torch.nn.Module:
        return torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.Dropout(0.3), torch.nn.ReLU(), torch.nn.Linear(8, 2)
        )

    return Federation(model=make, clients=loaders(), seed=11, **options)


def values(found: Federation) -> list[list[float]]:
    result = found.fit(3)
    assert not any(played.abandoned for played in result.history)
    return [tensor.reshape(-1).tolist() for tensor in result.model.state_dict().values()]


@pytest.mark.parametrize("privacy", [[], [SecAggPlus()]], ids=["plain", "masked"])
@pytest.mark.parametrize("workers", [2, 9])
def test_the_model_is_the_same_bit_for_bit(privacy: list[Any], workers: int) -> None:
    assert values(federation(privacy=privacy, workers=workers)) == values(federation(privacy=privacy))


def test_clients_that_leave_are_not_trained_elsewhere_either() -> None:
    assert values(federation(dropout=0.4, workers=2)) == values(federation(dropout=0.4))


def test_noise_at_the_client_differs_between_processes() -> None:
    found = values(federation(privacy=[LocalDP(epsilon=5.0, delta=1e-3, clip=1.0)], workers=2))
    assert found != values(federation(privacy=[LocalDP(epsilon=5.0, delta=1e-3, clip=1.0)], workers=2))


def test_what_a_loop_raises_is_told_with_its_client(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])  # as without pytest: a log goes to standard error

    def train(model: Any, loader: Any, optimizer: Any) -> None:
        raise ValueError("the shelf is empty")

    with pytest.raises(Misuse, match=r"'c0' failed in its worker process: ValueError: the shelf is empty"):
        federation(train=train, workers=2).fit(1)
    assert "in train" in capfd.readouterr().err

    def poison(model: Any, loader: Any, optimizer: Any) -> None:
        with torch.no_grad():
            next(model.parameters()).fill_(float("nan"))

    with pytest.raises(Misuse, match=r"client 'c0', round 1: 0\.weight: holds NaN"):
        federation(train=poison, workers=2).fit(1)


def test_a_process_that_dies_is_told() -> None:
    def train(model: Any, loader: Any, optimizer: Any) -> None:
        os._exit(7)

    with pytest.raises(ClientFailed, match=r"'c0' died \(exit code 7\)"):
        federation(train=train, workers=2).fit(1)


def test_training_that_cannot_be_given_away_is_refused_before_round_1() -> None:
    with pytest.raises(Misuse, match="workers: sample-dp keeps"):
        federation(workers=2, privacy=[SampleDP(epsilon=3.0, delta=1e-3, batch_size=4)])
    with pytest.raises(Misuse, match=r"workers: 2 processes.*'cuda'"):
        check_workers(2, "cuda", ())
    with pytest.raises(Misuse, match="workers"):
        federation(workers=0)


def test_stores_come_back_and_a_refusal_keeps_its_type() -> None:
    stores = {name: MemoryStore() for name in "abc"}
    stores["b"].put("kept", b"before")

    def train(name: str) -> np.ndarray:
        if name == "c":
            raise BudgetExceeded("spent")
        stores[name].put("seen", name.encode())
        stores[name].mark_once("done")
        return np.full(3, ord(name), np.int64)

    with Workers(2, "abc", train, stores.__getitem__) as workers:
        assert workers.take("b").tolist() == [ord("b")] * 3
        assert workers.take("a").tolist() == [ord("a")] * 3
        with pytest.raises(BudgetExceeded, match="spent"):
            workers.take("c")
    assert (stores["b"].get("kept"), stores["b"].get("seen")) == (b"before", b"b")
    assert stores["a"].marked("done")
    assert not any(child.is_alive() for child in workers.children)


def test_leaving_early_ends_the_processes() -> None:
    with Workers(
        2, ["a", "b"], lambda name: np.zeros(1 << 20, np.int64), lambda name: MemoryStore()
    ) as workers:
        pass
    assert not any(child.is_alive() for child in workers.children)
