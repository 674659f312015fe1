"""Federations with correlated noise of DistributedDP, from data to statement: prices, history, what ends with a run."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dp import Ledger
from dp.event_json import from_fact
from dp.events import CorrelatedRow, DiscreteGaussianSum
from fl import FedAvgM, Federation, FedSGD
from fl.engines.memory import CLIENTS as KEPT_BY_CLIENTS
from fl.engines.memory import MemoryEngine
from fl.personal import erase
from fl.round.run_files import read_npz
from protocols.errors import PolicyRefusal
from protocols.layers import Contribution, PrivacyLayer, RoundFacts, Signal
from secagg import SecAgg
from tests.unit.dp.test_distributed_correlated import CLIENTS, EXAMPLES, kept, layer_of, one_thread
from tests.unit.fl.test_strategy_hooks import RefusesOnce

__all__ = ["one_thread"]


def loaders() -> dict[str, DataLoader[Any]]:
    generator = torch.Generator().manual_seed(0)
    made = {}
    for i in range(CLIENTS):
        x = torch.randn(EXAMPLES * (i + 1), 6, generator=generator)
        made[f"site-{i}"] = DataLoader(TensorDataset(x, x[:, :3].argmax(1)), batch_size=20)
    return made


def loss(net: Any, batch: Any) -> torch.Tensor:
    out: torch.Tensor = nn.functional.cross_entropy(net(batch[0]), batch[1])
    return out


def federation(*layers: Any, **options: Any) -> Federation:
    made: dict[str, Any] = {"strategy": FedSGD(lr=0.5), "loss": loss, "delta": 1e-5, "metrics": ()}
    return Federation(lambda: nn.Linear(6, 3), loaders(), privacy=list(layers), **{**made, **options})


@pytest.mark.parametrize("amplify", [False, True])
def test_a_whole_run_costs_what_was_asked(amplify: bool) -> None:
    outcome = federation(layer_of(amplify=amplify, bands=2 if amplify else None), SecAgg()).fit(12)
    assert not any(result.abandoned for result in outcome.history)
    (line,) = outcome.guarantees
    assert (line.unit, line.relation, line.adversary) == ("example", "add-remove", "server")
    assert 7.9 < line.epsilon <= 8
    prices = [result.guarantees[0].epsilon for result in outcome.history]
    turns = 2 if amplify else 4
    steps = [row for row in range(1, 12) if prices[row] > prices[row - 1]]
    # a band is one event, over all its rows
    assert steps == [row for row in range(1, 12) if row % turns == 0]
    event = from_fact(outcome.statement.events[0])
    assert isinstance(event, CorrelatedRow)
    assert isinstance(event.event, DiscreteGaussianSum)
    assert event.event.sample_rate == (0.5 if amplify else 1.0)
    assert "correlated over rounds" in " ".join(outcome.statement.layers)


def test_momentum_on_the_server_an_abandoned_row_and_a_budget(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "run.ledger", epsilon=8.0, delta=1e-5, accountant="rdp")
    strategy = FedAvgM(0.9, server_lr=0.1)
    run = federation(layer_of(momentum=0.9), RefusesOnce(5), SecAgg(), strategy=strategy, ledger=ledger)
    outcome = run.fit(12)
    assert [bool(result.abandoned) for result in outcome.history] == [row == 5 for row in range(1, 13)]
    # also of the row that was abandoned
    assert [entry.round for entry in ledger.entries()] == list(range(1, 13))
    assert 7.9 < ledger.epsilon() <= 8


def test_a_run_goes_on_and_its_end_erases_history(tmp_path: Path) -> None:
    def made() -> Federation:
        return federation(layer_of(), SecAgg(), output=tmp_path)

    made().fit(12, on_round=lambda result: result.number < 6)
    again = made()
    outcome = again.fit(12, resume=True)
    assert len(outcome.history) == 12
    assert not any(result.abandoned for result in outcome.history)
    assert isinstance(again.engine, MemoryEngine)
    assert not [key for store in again.engine.stores.values() for key in kept(store)]
    erase(again)
    assert not [
        name for store in again.engine.stores.values() for name in store.names("kept/") if "slots" in name
    ]


def test_who_has_no_example_in_a_batch_sends_its_row_too() -> None:
    """Three examples in four batches: one batch at least is empty, and history goes on through it."""
    x = torch.randn(3, 6)
    clients = {**loaders(), "site-0": DataLoader(TensorDataset(x, x[:, :3].argmax(1)), batch_size=20)}
    options: dict[str, Any] = {"strategy": FedSGD(lr=0.5), "loss": loss, "delta": 1e-5, "metrics": ()}
    run = Federation(lambda: nn.Linear(6, 3), clients, privacy=[layer_of(), SecAgg()], **options)
    assert [result.survivors for result in run.fit(12).history] == [tuple(clients)] * 12


class Leaves(PrivacyLayer):
    """Toy: one client is lost in the last row, after its history was kept."""

    name = "leaves"

    def encode(self, contribution: Contribution, given: Signal, facts: RoundFacts) -> Contribution:
        if (facts.client, facts.number) == ("site-1", 12):
            raise PolicyRefusal("lost")
        return contribution


def test_who_misses_the_last_row_keeps_no_history_either(tmp_path: Path) -> None:
    run = federation(layer_of(min_survivors=2), Leaves(), SecAgg(dropout=0.25), output=tmp_path)
    assert "site-1" not in run.fit(12).history[-1].survivors
    assert isinstance(run.engine, MemoryEngine)
    assert not [key for store in run.engine.stores.values() for key in kept(store)]
    assert not any("settled" in name or "pending" in name for name in read_npz(tmp_path / KEPT_BY_CLIENTS))


def test_clients_in_turns_are_played_where_somebody_insists() -> None:
    layer = layer_of(unit="client", examples=None, even_so=True, batches=2, epochs=3)
    outcome = federation(layer, SecAgg(), strategy=None, loss=None).fit(6)
    assert not any(result.abandoned for result in outcome.history)
    assert outcome.guarantees[0].unit == "client"
    assert 7.9 < outcome.guarantees[0].epsilon <= 8
