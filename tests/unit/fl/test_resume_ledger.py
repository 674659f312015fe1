"""A round that was paid for and cut off before its checkpoint is the same guarantee's afterwards: its charge names
layer and adversary, and nothing is guessed by the kind of event.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from dp import ClientDP, Ledger, SampleDP
from dp.ledger import Charge
from fl import Federation
from fl.account import Account
from protocols.errors import Misuse
from protocols.statement import PrivacyEvent

STACKS: dict[str, Any] = {
    "sample-dp": lambda: [SampleDP(epsilon=4.0, delta=1e-5)],
    "sample-dp, own noise, the loader's batch": lambda: [SampleDP(noise_multiplier=2.0, delta=1e-5)],
    "both levels": lambda: [
        SampleDP(noise_multiplier=2.0, delta=1e-6, batch_size=16),
        ClientDP(noise_multiplier=1.0, delta=1e-2),
    ],
}


def federation(name: str, folder: Path) -> Federation:
    def make() -> torch.nn.Module:
        torch.manual_seed(0)
        return torch.nn.Linear(4, 2)

    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(16, 4, generator=generator), torch.randint(2, (16,), generator=generator)
    return Federation(
        make,
        {ward: DataLoader(TensorDataset(x.clone(), y), 8) for ward in "abc"},
        privacy=STACKS[name](),
        output=folder / "run",
        ledger=Ledger(folder / "own.ledger", epsilon=1e6, delta=1e-6, accountant="rdp"),
    )


def cut_off(run: Federation, at: int, rounds: int) -> None:
    """Kill it in round `at`, after its charge and before its checkpoint."""
    played, simulate = [0], run.engine._simulate  # type: ignore[union-attr]  # in memory

    def dying(*given: Any) -> Any:
        played[0] += 1
        if played[0] == at:
            raise KeyboardInterrupt
        return simulate(*given)

    run.engine._simulate = dying  # type: ignore[union-attr]  # as above
    with pytest.raises(KeyboardInterrupt):
        run.fit(rounds)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", STACKS)
def test_a_round_paid_for_and_cut_off_is_its_own_layer_s(name: str, tmp_path: Path) -> None:
    cut_off(federation(name, tmp_path), 3, 4)
    run = federation(name, tmp_path)
    result = run.fit(4, resume=True)
    layers = run.setup.stack.layers
    assert len(result.guarantees) == len(layers)
    for line, layer in zip(result.guarantees, layers, strict=True):
        assert line.layers == (layer.name,)
        of = [event for event in run.account.events if event.layer == layer.name]
        assert {event.adversary for event in of} == {line.adversary}
        assert len(of) == 5 * (3 if layer.name == "sample-dp" else 1)  # round 3 was paid for twice
    whole = federation(name, tmp_path / "whole").fit(4)
    assert [line.adversary for line in whole.guarantees] == [line.adversary for line in result.guarantees]


def test_a_charge_of_an_earlier_version_is_refused_by_name_and_not_guessed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "own.ledger", epsilon=1e6, delta=1e-6, accountant="rdp")
    first = Account(ledger=ledger, run="r")
    facts = {"noise_multiplier": 2.0}
    event = PrivacyEvent("Gaussian", facts, "example", "add-remove", "server", "a", layer="sample-dp")
    first.charge([event], 1)
    again = Account(ledger=ledger)
    again.restore([], "r")
    assert again.events == [event]
    ledger.charge_all([Charge(entry_event(ledger), party="a")], run="r", round=2)
    with pytest.raises(Misuse, match=r"round 2 of this run was paid for.*does not say which layer"):
        again.restore([event], "r", 1)
    again.restore([event, event], "r", 2)  # the checkpoint knows of it: nothing is read off the ledger


def entry_event(ledger: Ledger) -> Any:
    from dp.event_json import decode

    return decode(ledger.entries()[0].event)
