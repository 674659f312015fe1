"""Federations with each privacy layer, from data to statement; loops that would train past the account are
stopped."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dp import ClientDP, DistributedDP, Ledger, LocalDP, SampleDP
from dp.sample.errors import UnaccountedStep
from fl import FedAvg, Federation, FedSGD
from protocols.errors import Misuse, StackError
from secagg import SecAggPlus
from tests.programs import ran

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook:UserWarning")
CLIENTS, EXAMPLES = 4, 60


def loaders() -> dict[str, DataLoader[Any]]:
    generator = torch.Generator().manual_seed(0)
    made = {}
    for i in range(CLIENTS):
        x = torch.randn(EXAMPLES * (i + 1), 6, generator=generator)
        made[f"site-{i}"] = DataLoader(TensorDataset(x, x[:, :3].argmax(1)), batch_size=20)
    return made


def model() -> nn.Module:
    return nn.Linear(6, 3)


def loss(net: Any, batch: Any) -> torch.Tensor:
    out: torch.Tensor = nn.functional.cross_entropy(net(batch[0]), batch[1])
    return out


def federation(*layers: Any, **options: Any) -> Federation:
    return Federation(
        model=model, clients=loaders(), privacy=list(layers), learning_rate=0.3, delta=1e-5, **options
    )


def example_level(**changes: Any) -> DistributedDP:
    return DistributedDP(**{"epsilon": 8, "unit": "example", "sample_rate": 0.2, "examples": 600} | changes)


RUNS: dict[str, tuple[Callable[[], Any], dict[str, Any], str, str]] = {
    "sample": (lambda: SampleDP(epsilon=8), {}, "example", "add-remove"),
    "ghost": (lambda: SampleDP(epsilon=8, gradients="ghost"), {}, "example", "add-remove"),
    "client": (lambda: ClientDP(epsilon=8), {}, "client", "zero-out"),
    "distributed": (lambda: DistributedDP(epsilon=8), {}, "client", "zero-out"),
    "skellam": (lambda: DistributedDP(epsilon=8, noise="skellam"), {}, "client", "zero-out"),
    "examples": (example_level, {"strategy": FedSGD(lr=0.5), "loss": loss}, "example", "add-remove"),
    "local": (lambda: LocalDP(epsilon=8), {}, "client", "zero-out"),
}


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize("name", RUNS)
def test_every_layer_runs_alone_and_before_masks_and_costs_what_was_asked(name: str, masked: bool) -> None:
    make, options, unit, relation = RUNS[name]
    before = torch.cat([p.detach().reshape(-1) for p in model().parameters()])
    run = federation(make(), *([SecAggPlus(dropout=0.0)] if masked else []), **options)
    outcome = run.fit(rounds=2)
    assert outcome.epsilon is not None
    assert 7.5 < outcome.epsilon <= 8
    against = {"client-dp": "clients", "distributed-dp": "server" if masked else "clients"}
    (line,) = outcome.guarantees
    assert (line.unit, line.relation) == (unit, relation)
    assert line.adversary == against.get(line.layers[0], "server")
    assert f"per {unit}, {relation} neighbours" in outcome.statement.describe()
    assert list(outcome.model.state_dict()) == ["weight", "bias"]
    assert all(math.isfinite(float(p.detach().sum())) for p in outcome.model.parameters())
    assert len(before) == 21


def test_every_client_has_its_own_account_and_the_largest_is_printed(tmp_path: Path) -> None:
    ledgers = {
        f"site-{i}": Ledger(tmp_path / str(i), epsilon=8, delta=1e-5, accountant="rdp")
        for i in range(CLIENTS)
    }
    layer = SampleDP(noise_multiplier=1.5, ledger=ledgers)
    outcome = federation(layer).fit(rounds=2)
    own = [layer.epsilon(f"site-{i}", 1e-5) for i in range(CLIENTS)]
    assert own == sorted(own, reverse=True)  # the smallest client samples at the highest rate
    assert own[0] > own[-1]
    assert outcome.epsilon == pytest.approx(own[0])
    assert [ledgers[f"site-{i}"].epsilon() for i in range(CLIENTS)] == pytest.approx(own)
    assert layer.accounts["site-0"].taken == 2 * 3
    assert layer.accounts["site-3"].taken == 2 * 12


def test_a_client_whose_ledger_is_spent_trains_but_sends_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l", epsilon=0.5, delta=1e-5, accountant="rdp")
    refused_by_all(federation(SampleDP(noise_multiplier=0.8, ledger=lambda client: ledger)))
    assert not ledger.entries()


def refused_by_all(run: Federation) -> None:
    """A client that refuses takes no part; where all do, the round is abandoned and the model stays."""
    before = run.coordinator.reference().flat.vector
    (result,) = run.fit(rounds=1).history
    assert result.abandoned
    assert len(result.refusals) == CLIENTS
    assert all(why.startswith("BudgetExceeded") for why in result.refusals.values())
    assert (run.coordinator.reference().flat.vector == before).all()


def test_a_layer_that_trained_in_one_run_trains_in_no_other() -> None:
    layer = SampleDP(epsilon=2)
    federation(layer).fit(rounds=1)
    taken = layer.accounts["site-0"].taken
    with pytest.raises(UnaccountedStep, match="has trained site-0 in another run"):
        federation(layer).fit(rounds=1)
    assert layer.accounts["site-0"].taken == taken


def own_optimizer(model: Any, loader: Any, optimizer: Any) -> None:
    mine = torch.optim.SGD(model.parameters(), lr=0.1)
    for x, y in loader:
        mine.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        mine.step()


def no_optimizer(model: Any, loader: Any) -> None:
    own_optimizer(model, loader, None)


def no_criterion(model: Any, loader: Any, optimizer: Any) -> None:
    for x, y in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def own_loss(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
    no_criterion(model, loader, optimizer)


def test_a_train_function_without_an_optimizer_is_refused_before_round_1() -> None:
    with pytest.raises(Misuse, match="optimizer"):
        federation(SampleDP(epsilon=8), train=no_optimizer)


def test_a_loop_that_builds_its_own_optimizer_sends_nothing() -> None:
    run = federation(SampleDP(epsilon=8), train=own_optimizer)
    with pytest.raises(UnaccountedStep):
        run.fit(rounds=1)
    assert run.account.events == []


@pytest.mark.parametrize("train", [own_loss, no_criterion])
def test_a_loop_with_its_own_loss_trains_under_ghost_clipping(train: Any) -> None:
    run = federation(SampleDP(epsilon=8, gradients="ghost"), train=train)
    assert run.fit(rounds=1).epsilon <= 8
    assert run.account.events


def test_sample_dp_and_a_strategy_that_owns_the_optimizer_are_refused_together() -> None:
    with pytest.raises(StackError, match="optimizer"):
        federation(SampleDP(epsilon=8), strategy=FedSGD())


def test_fewer_survivors_than_the_noise_needs_abandon_the_round() -> None:
    layer = DistributedDP(epsilon=8, min_survivors=CLIENTS)
    run = federation(layer, SecAggPlus(dropout=0.25), dropout=0.25, seed=3)
    outcome = run.fit(rounds=6)
    short = [result for result in outcome.history if result.abandoned]
    assert short
    assert all(len(result.survivors) == CLIENTS for result in outcome.history if not result.abandoned)


def test_example_level_training_learns() -> None:
    x = torch.randn(500, 6, generator=torch.Generator().manual_seed(9))
    test = DataLoader(TensorDataset(x, x[:, :3].argmax(1)), batch_size=500)
    layer = example_level(epsilon=20, sample_rate=0.5)
    run = federation(layer, SecAggPlus(dropout=0.0), strategy=FedSGD(lr=3.0), loss=loss, test=test)
    history = run.fit(rounds=15).history
    assert history[-1].metrics["accuracy"] > 0.7  # chance is 0.33


def test_the_example_of_private_layers_runs_and_prints_every_price(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    done = ran(root / "examples" / "private_layers.py", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("epsilon 8 at delta 0.0001, per example, add-remove neighbours") == 2
    assert "per client, zero-out neighbours" in done.stdout


def test_a_plain_average_is_kept_when_no_layer_is_listed() -> None:
    outcome = federation(strategy=FedAvg()).fit(rounds=1)
    assert outcome.epsilon is None


def test_a_resumed_layer_knows_the_steps_that_were_taken() -> None:
    first = SampleDP(epsilon=8)
    run = federation(first)
    run.fit(rounds=2)
    again = SampleDP(epsilon=8)
    again.restore(first.state())
    refused_by_all(federation(again))
    assert again.accounts["site-0"].taken == first.accounts["site-0"].taken == 6
