"""The check before training and the audit: once per run, of one seed, of what the loop really does."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from dp import SampleDP
from dp.audit import per_example
from dp.sample.engine import ClientEngine
from dp.sample.errors import NotPerExample, UnaccountedStep
from dp.sample.gradients import prove
from dp.sample.options import Clipping
from fl import Federation
from protocols.errors import Misuse
from protocols.layers import LocalTask, RoundFacts, RunFacts
from tests.defects.dp.sample_models import (
    centred,
    time_first,
    tokens,
    vectors,
)
from tests.unit.dp.test_dp_sample_rows import line, loss_of, made, stepped


def rounds_of(layer: SampleDP, data: Any, net: nn.Module, rounds: int = 1) -> list[int]:
    """Play rounds of one client; the number of batches that its loop saw in each."""
    run = RunFacts(rounds, 1, 1, dimension=sum(p.numel() for p in net.parameters()), delta=1e-5)
    seen: list[int] = []

    def train(task: LocalTask) -> dict[str, float]:
        seen.append(0)
        for x, y in task.loader:
            seen[-1] += 1
            task.optimizer.zero_grad()
            task.criterion(task.model(x), y).backward()
            task.optimizer.step()
        return {}

    for number in range(1, rounds + 1):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        loader = DataLoader(data, batch_size=4)
        facts = RoundFacts(run, number, ("a",), bytes(32), client="a")
        layer.local(train, facts)(LocalTask("a", net, loader, optimizer, nn.CrossEntropyLoss(), train))
    return seen


@pytest.mark.parametrize("gradients", ["hooks", "ghost"])
def test_the_layer_checks_once_per_run(gradients: str) -> None:
    seen = rounds_of(
        SampleDP(noise_multiplier=1.0, gradients=gradients), tokens(), made(time_first), rounds=3
    )
    assert len(seen) == 4  # the loop ran once more than there are rounds
    with pytest.raises(NotPerExample):
        rounds_of(SampleDP(noise_multiplier=1.0, gradients=gradients), vectors(), made(centred))


def test_a_public_number_of_examples_hides_a_clients_own() -> None:
    """64 or 65 examples: rate, steps and noise are those of the public number."""
    kept = []
    for own in (64, 65):
        layer = SampleDP(epsilon=4.0, delta=1e-5, batch_size=16, examples=64)
        data = torch.utils.data.TensorDataset(torch.randn(own, 4), torch.zeros(own, dtype=torch.long))
        rounds_of(layer, data, made(line))
        account = layer.accounts["a"]
        kept.append((account.rate, account.planned, account.multiplier, account.examples))
    assert kept[0] == kept[1]
    assert "public number of 64" in SampleDP(epsilon=1.0, examples=64).describe()
    assert "number of examples is public" in SampleDP(epsilon=1.0).describe()
    with pytest.raises(Misuse, match="public number"):
        SampleDP(epsilon=1.0, examples=0)


def test_random_numbers_that_cannot_be_held_still_are_named() -> None:
    state = {"at": 0.0}

    def drifting(model: Any, x: Any, y: Any, _: Any) -> Any:
        state["at"] += 1.0
        return functional.cross_entropy(model(x + state["at"]), y)

    with pytest.raises(NotPerExample, match="two passes over one example differ"):
        stepped(made(line), vectors(), "hooks", drifting)


def test_the_check_leaves_generators_where_they_were() -> None:
    net = made(time_first)
    before = torch.random.get_rng_state()
    prove(net, loss_of, DataLoader(tokens(), batch_size=12))
    assert torch.equal(before, torch.random.get_rng_state())


def _with_ignored() -> DataLoader:
    x = torch.randn(24, 4, generator=torch.Generator().manual_seed(4))
    y = torch.arange(24) % 3
    y[17] = -100
    return DataLoader(TensorDataset(x, y), batch_size=8)


@pytest.mark.parametrize("functional", [False, True])
def test_a_mean_over_targets_of_which_one_is_ignored_ends_the_training(functional: bool) -> None:
    def by_module(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
        for x, y in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y) if functional else criterion(model(x), y)
            loss.backward()
            optimizer.step()

    layer = SampleDP(noise_multiplier=1.0, delta=1e-3, batch_size=8, examples=24)
    with pytest.raises(NotPerExample, match="ignore_index"):
        Federation(
            lambda: nn.Linear(4, 3), {"a": _with_ignored()}, train=by_module, privacy=[layer], local_epochs=4
        ).fit(2)
    before = nn.functional.cross_entropy
    assert not isinstance(before, partial)
    summed = nn.functional.cross_entropy(torch.zeros(2, 3), torch.tensor([0, -100]))
    assert torch.isfinite(summed)


def test_the_audit_refuses_a_mean_over_ignored_targets_and_takes_one_per_example() -> None:
    data = _with_ignored().dataset
    assert not per_example(nn.Linear(4, 3), None, data, modes=()).passed

    def own_mean(model: Any, batch: Any) -> torch.Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none").mean()

    assert per_example(nn.Linear(4, 3), own_mean, data, modes=()).passed


def test_the_audit_calls_nothing_sound_where_no_gradient_moved() -> None:
    def nothing(model: Any, batch: Any) -> torch.Tensor:
        return (0.0 * model(batch[0])).sum()

    audit = per_example(nn.Linear(4, 3), nothing, (torch.randn(8, 4), torch.arange(8) % 3))
    assert not audit.passed
    assert {mode.status for mode in audit.modes} == {"refused"}
    assert all("nothing could be checked: every gradient was zero" in mode.reason for mode in audit.modes)
    assert [(p.status, p.reason) for p in audit.parameters] == [("not checked", audit.modes[0].reason)] * 2


def test_the_audit_says_of_each_parameter_that_nothing_moved_whether_it_could_check_it() -> None:
    """It was called sound, though no example had said anything of it."""

    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.still = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = self.used(x) + 0.0 * self.still(x)
            return made

    audit = per_example(Half(), None, (torch.randn(8, 4), torch.arange(8) % 3), modes=())
    assert {p.name.partition(".")[0]: p.status for p in audit.parameters} == {
        "used": "sound",
        "still": "not checked",
    }


def test_the_audit_holds_dropout_still() -> None:
    """Masks drawn anew for each sum moved it by 28 clips in the audit of a model that is sound."""
    net = nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 3))
    data = torch.randn(32, 6), torch.arange(32) % 3
    assert per_example(net, None, data, modes=()).passed


@pytest.mark.parametrize(("broken", "public"), [(0, True), (3, True), (0, False)])
def test_how_many_batches_the_check_draws_follows_the_public_number(broken: int, public: bool) -> None:
    """A loop that counts its batches goes on from there: of 576 and of 577 examples the check drew other numbers, and a
    loss that begins at a count moved six steps by 1,424 clips. Examples without a finite gradient add none either."""
    drawn = set()
    for examples in (30, 575, 576, 577, 700, 1500):
        x = torch.randn(examples, 6, generator=torch.Generator().manual_seed(1))
        x[2 : 2 + broken] = math.nan
        net, engine, count = nn.Linear(6, 2), ClientEngine(Clipping(), 1.0, 1.0, 1), [0]
        engine.size(576 if public else examples)  # the defect: the client's own number
        data = DataLoader(TensorDataset(x, torch.arange(examples) % 2), batch_size=576)
        at = engine.begin(net, torch.optim.SGD(net.parameters(), lr=0.1), data, nn.CrossEntropyLoss())

        def loop(at: Any = at, count: list[int] = count) -> None:
            for inputs, labels in at.loader:
                count[0] += 1
                at.optimizer.zero_grad()
                at.criterion(at.model(inputs), labels).backward()
                at.optimizer.step()

        engine.probe(loop)
        engine.abandon()
        drawn.add(count[0])
    assert (len(drawn) == 1) == public


def test_a_loop_that_seeds_torch_itself_is_refused() -> None:
    """Its dropout masks follow numbers that others know: a sum of 1,500 examples moved by 29 clips."""

    def train(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
        torch.manual_seed(0)
        for x, y in loader:
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()

    clients = {"a": DataLoader(vectors(), batch_size=12)}
    layer = SampleDP(noise_multiplier=1.0, delta=1e-5)
    with pytest.raises(UnaccountedStep, match="seeds torch's generator"):
        Federation(line, clients, train, privacy=[layer], metrics=()).fit(rounds=1)


def test_an_optimizer_that_looks_at_its_examples_several_times_a_step_is_refused() -> None:
    def train(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
        for x, y in loader:
            optimizer.step(lambda x=x, y=y: criterion(model(x), y))

    run = Federation(
        line,
        {"a": DataLoader(vectors(), 8)},
        train,
        optimizer=lambda p: torch.optim.LBFGS(list(p)),
        privacy=[SampleDP(noise_multiplier=1.0, delta=1e-3)],
    )
    with pytest.raises(
        Misuse, match=r"LBFGS calls the loss several times a step.*take an optimizer that steps once"
    ):
        run.fit(1)
