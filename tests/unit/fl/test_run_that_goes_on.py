"""A run that goes on in another process: its plan, its price and its checks are those that it began with."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dp import ClientDP, Ledger, LocalDP, SampleDP
from dp.event_json import to_fact
from dp.events import Gaussian, Relation, Unit
from fl import Federation
from fl.account import Account
from protocols.errors import StackError
from protocols.layers import PrivacyLayer
from protocols.store import MemoryStore
from secagg import SecAgg, SecAggPlus

EVENT = to_fact(Gaussian(noise_multiplier=4.0, unit=Unit.CLIENT, relation=Relation.ZERO_OUT))


def loader(examples: int, batch: int) -> DataLoader[Any]:
    x = torch.randn(examples, 6, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(x, (x.sum(1) > 0).long()), batch_size=batch)


def train(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
    for x, y in loader:
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()


def node(layer: SampleDP, examples: int, batch: int, stores: dict[str, MemoryStore]) -> Federation:
    """A process with the stores that an earlier one left."""
    clients = {name: loader(examples, batch) for name in ("a", "b")} | {"not asked": loader(8, batch)}
    found = Federation(lambda: nn.Linear(6, 2), clients, train=train, privacy=[layer])
    found.engine.stores.update(stores)  # type: ignore[attr-defined]
    found.coordinator.prepare(4)
    return found


def play(found: Federation, number: int) -> dict[str, MemoryStore]:
    found._play(found.coordinator.open_all(number, ("a", "b")))
    return dict(found.engine.stores)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("examples", "batch"), [(32, 4), (16, 8), (16, 16)])
def test_a_client_of_another_size_or_batch_does_not_go_on_with_the_run(examples: int, batch: int) -> None:
    stores = play(node(SampleDP(epsilon=8.0), 16, 4, {}), 1)
    other = node(SampleDP(epsilon=8.0), examples, batch, stores)
    refused = other._play(other.coordinator.open_all(2, ("a", "b")))
    assert refused.survivors == ()
    assert all("of SampleDP, and it is" in refused.refusals[name] for name in ("a", "b"))
    same = node(SampleDP(epsilon=8.0), 16, 4, stores)
    assert same._play(same.coordinator.open_all(2, ("a", "b"))).survivors == ("a", "b")


def test_a_client_without_examples_at_first_is_checked_when_it_has_some() -> None:
    layer = SampleDP(epsilon=8.0, examples=16, batch_size=4)
    stores = play(node(layer, 0, 4, {}), 1)
    kept = [
        json.loads(store.get(name) or b"{}")
        for store in stores.values()
        for name in store.names("sample-dp/")
    ]
    assert [(entry["taken"], entry["checked"]) for entry in kept] == [(4, False)] * 2
    later = play(node(SampleDP(epsilon=8.0, examples=16, batch_size=4), 16, 4, stores), 2)
    kept = [
        json.loads(store.get(name) or b"{}") for store in later.values() for name in store.names("sample-dp/")
    ]
    assert [entry["checked"] for entry in kept] == [True, True]


@pytest.mark.parametrize("first", ["same", "none", "another"])
def test_a_round_that_was_paid_for_and_cut_off_counts_whatever_ledger_the_run_began_with(
    tmp_path: Path, first: str
) -> None:
    last = Ledger(tmp_path / "last", epsilon=50.0, delta=1e-5)
    before = {"same": last, "none": None, "another": Ledger(tmp_path / "first", epsilon=50.0, delta=1e-5)}[
        first
    ]
    begun = Account(ledger=before, run="run")
    for number in (1, 2):
        begun.charge([EVENT], number)
    killed = Account(ledger=last, run="run")
    killed.events = list(begun.events)
    killed.charge([EVENT], 3)  # the checkpoint knows two rounds
    resumed = Account(ledger=last)
    resumed.restore(begun.events, "run", 2)
    assert len(resumed.events) == 3


@pytest.mark.parametrize(
    "protocol", [SecAgg(setup="reuse"), SecAggPlus(setup="reuse")], ids=["complete", "sparse"]
)
def test_reused_keys_are_refused_beside_a_secret_choice(protocol: SecAgg) -> None:
    clients = {str(i): loader(8, 4) for i in range(20)}
    layer = ClientDP(noise_multiplier=2.0, clip=1.0, delta=1e-3, amplify=True)
    found = Federation(
        lambda: nn.Linear(6, 2),
        clients,
        privacy=[layer, protocol],
        fraction=0.9,
        sampling="poisson",
        min_survivors=1,
    )
    with pytest.raises(StackError, match=r'setup="fresh"'):
        found.fit(1)


@pytest.mark.parametrize(
    "layer",
    [ClientDP(noise_multiplier=1.0, clip=1.0, delta=1e-5), LocalDP(epsilon=1.0, clip=1.0, delta=1e-5)],
)
def test_a_checkpoint_beside_noise_holds_no_batch_size(tmp_path: Path, layer: PrivacyLayer) -> None:
    def made_with(examples: int) -> str:
        clients = {"a": loader(8, 8), "c": loader(examples, examples)}
        folder = tmp_path / str(examples)
        Federation(lambda: nn.Linear(6, 2), clients, privacy=[layer], output=folder).fit(1)
        with np.load(folder / "checkpoint.npz") as file:
            facts = next(bytes(file[name]) for name in file.files if b"made_with" in bytes(file[name]))
        return json.dumps(json.loads(facts)["made_with"], sort_keys=True)

    assert made_with(16) == made_with(40)
