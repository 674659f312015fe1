"""What has no price is refused when stack or federation is built: every layer, accountant, sampling and ledger."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from dp import ClientDP, DistributedDP, Ledger, LocalDP, SampleDP
from dp.accountants import accountant
from dp.event_json import from_fact
from dp.events import Event, UnknownEvent
from fl import Federation, FedSGD, SecureAverage
from fl.flower.strategy import PrivateStrategy
from protocols.errors import Misuse
from protocols.layers import RoundFacts, RunFacts
from protocols.stack import Stack

Z: dict[str, Any] = {"noise_multiplier": 3.0, "clip": 0.5}
EXAMPLES: dict[str, Any] = {"unit": "example", "sample_rate": 0.5, "examples": 48}
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "client": (ClientDP, {}),
    "client, replace": (ClientDP, {"relation": "replace"}),
    "client, amplified": (ClientDP, {"amplify": True}),
    "client, amplified, replace": (ClientDP, {"amplify": True, "relation": "replace"}),
    "client, adaptive, amplified": (ClientDP, {"amplify": True, "clip": "adaptive"}),
    "shares": (DistributedDP, {"min_survivors": 2}),
    "shares, skellam": (DistributedDP, {"min_survivors": 2, "noise": "skellam"}),
    "shares, examples": (DistributedDP, {"min_survivors": 2, **EXAMPLES}),
    "shares, examples, skellam": (DistributedDP, {"min_survivors": 2, "noise": "skellam", **EXAMPLES}),
    "local": (LocalDP, {}),
    "sample": (SampleDP, {"batch_size": 4, "examples": 8}),
    "sample, whole": (SampleDP, {"batch_size": 8, "examples": 8}),
}
SAMPLINGS: dict[str, dict[str, Any]] = {
    "all": {},
    "fixed": {"sampling": "fixed", "fraction": 0.5},
    "poisson": {"sampling": "poisson", "fraction": 0.5},
}


def built(layers: list[Any], sampling: str, ledger: Any = None) -> Federation:
    def loss(model: Any, batch: Any) -> Any:
        return torch.nn.functional.cross_entropy(model(batch[0]), batch[1])

    clients = {
        f"c{i}": DataLoader(TensorDataset(torch.randn(8, 3), torch.arange(8) % 2), 4) for i in range(6)
    }
    strategy = (
        FedSGD()
        if any(getattr(layer, "examples", 0) and not isinstance(layer, SampleDP) for layer in layers)
        else None
    )
    return Federation(
        lambda: torch.nn.Linear(3, 2), clients, privacy=layers, loss=loss, strategy=strategy, ledger=ledger,
        **SAMPLINGS[sampling],
    )  # fmt: skip


def ledger_of(folder: Path, name: str) -> Ledger | None:
    return None if name == "none" else Ledger(folder / name, epsilon=1e6, delta=1e-5, accountant=name)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_refused_when_built_exactly_where_a_round_would_have_no_price(
    kind: str, sampling: str, tmp_path: Path
) -> None:
    """What a round really states, priced by its own accountant and by the ledger's, is the reference."""
    make, options = KINDS[kind]
    for name, kept in product(("rdp", "pld"), ("none", "rdp", "pld")):
        if name == "pld" and options.get("noise") == "skellam":
            with pytest.raises(Misuse, match="Renyi curve only"):
                make(**{**Z, **options}, accountant=name)
            continue
        layer = make(**{**Z, **options}, accountant=name)
        sound = all(
            _priced(event, one) for event in stated(layer, sampling) for one in {name, kept} - {"none"}
        )
        if sound:
            built([layer], sampling, ledger_of(tmp_path, kept))
            continue
        with pytest.raises(UnknownEvent):
            built([layer], sampling, ledger_of(tmp_path, kept))


def stated(layer: Any, sampling: str) -> list[Event]:
    """The events of a round, from the layer itself."""
    run = RunFacts(1, 6, 6 if sampling != "fixed" else 3, sampling, 0.5, dimension=8)
    names = tuple(f"c{i}" for i in range(run.cohort))
    facts = RoundFacts(replace(run, sizes=dict.fromkeys(names, 8)), 1, names, bytes(32))
    return [from_fact(fact) for fact in layer.events(facts, names)]


def _priced(event: Event, name: str) -> bool:
    try:
        accountant(name).add(event)
    except UnknownEvent:
        return False
    return True


def test_a_clients_own_ledger_is_asked_when_the_stack_is_built(tmp_path: Path) -> None:
    """The choice of clients saves nothing in a ledger of one's own: a fixed-size choice is priced there as none."""
    own = {"c0": ledger_of(tmp_path, "pld")}
    with pytest.raises(UnknownEvent, match="pld accountant has no price for Skellam"):
        Stack([DistributedDP(**Z, noise="skellam", ledger=own)])
    built([ClientDP(**Z, amplify=True, ledger=own)], "fixed")


def test_every_way_in_refuses_what_its_ledger_cannot_price(tmp_path: Path) -> None:
    layers, ledger = [DistributedDP(**Z, noise="skellam")], ledger_of(tmp_path, "pld")
    with pytest.raises(UnknownEvent, match="Skellam"):
        SecureAverage(privacy=layers, ledger=ledger)
    with pytest.raises(UnknownEvent, match="Skellam"):
        built([LocalDP(**Z)], "all", ledger).with_privacy(layers)
    flower = pytest.importorskip("flwr.serverapp.strategy")
    with pytest.raises(UnknownEvent, match="Skellam"):
        PrivateStrategy(flower.FedAvg(), layers, ledger=ledger)


def test_layers_with_different_accountants_in_one_line_are_priced_by_one_that_can() -> None:
    """Examples by privacy losses beside Skellam shares: both in one stack have a price, by Renyi."""
    both = [SampleDP(noise_multiplier=3.0, batch_size=4, examples=8, accountant="pld"),
            DistributedDP(**Z, noise="skellam", min_survivors=2)]  # fmt: skip
    result = built(both, "all").fit(1)
    assert {line.accountant for line in result.guarantees} == {"pld", "rdp"}
