"""Step sizes that follow the run: where they stand at every client, epoch and round, whoever plays it, whatever cut it
off; and what is refused because it would have no effect or follow data.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

from dp import ClientDP, DistributedDP, SampleDP
from fl import Federation, FedProx, FedSGD
from protocols.errors import Misuse, StackError
from secagg import SecAggPlus

HALVED = partial(lr_scheduler.StepLR, step_size=1, gamma=0.5)
Rates = list[tuple[int, int, float]]


def federation(scheduler: Any = HALVED, heard: Rates | None = None, **options: Any) -> Federation:
    generator = torch.Generator().manual_seed(3)
    parts = torch.randn(24, 4, generator=generator).split(8)
    loaders = [DataLoader(TensorDataset(x, (x.sum(1) > 0).long()), 4, shuffle=True) for x in parts]

    def train(model: Any, loader: Any, optimizer: Any, round: int, epoch: int) -> None:
        if heard is not None:
            heard.append((round, epoch, optimizer.param_groups[0]["lr"]))
        for x, y in loader:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()

    options = {"learning_rate": 0.8, "train": train, **options}
    return Federation(lambda: torch.nn.Linear(4, 2), loaders, scheduler=scheduler, **options)


def loss(model: Any, batch: Any) -> Any:
    return torch.nn.functional.cross_entropy(model(batch[0]), batch[1])


@pytest.mark.parametrize("per, rates", [("epoch", [0.8, 0.4, 0.2, 0.1]), ("round", [0.8, 0.8, 0.4, 0.4])])
def test_a_schedule_goes_on_where_the_run_is(per: str, rates: list[float]) -> None:
    heard: Rates = []
    federation(heard=heard, scheduler_per=per, local_epochs=2).fit(2)
    steps = [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert sorted(set(heard)) == [
        (*step, pytest.approx(rate)) for step, rate in zip(steps, rates, strict=True)
    ]


def by_step(
    make: Any, loop_steps: bool, every: int = 1, rounds: int = 2, **options: Any
) -> list[list[float]]:
    """The step size of every step of the optimizer, of client 0 by round."""
    heard: list[list[float]] = []

    def train(model: Any, loader: Any, optimizer: Any, round: int, scheduler: Any) -> None:
        if len(heard) < round:
            heard.append([])
        for at, (x, y) in enumerate(loader):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            heard[round - 1].append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if loop_steps and at % every == every - 1:
                scheduler.step()

    def left_alone(model: Any, loader: Any, optimizer: Any, round: int) -> None:
        train(model, loader, optimizer, round, None)

    given = {"train": train} if loop_steps else {"train": left_alone, "scheduler_per": "step"}
    federation(make, **given, **options).fit(rounds)
    return [rates[: len(rates) // 3] for rates in heard]


ONE_CYCLE = partial(lr_scheduler.OneCycleLR, max_lr=1.0, total_steps=8)
DECAY = partial(lr_scheduler.ExponentialLR, gamma=0.5)


@pytest.mark.parametrize("make", [ONE_CYCLE, DECAY])
@pytest.mark.parametrize("loop_steps", [True, False])
def test_a_schedule_by_steps_goes_on_where_the_run_is(make: Any, loop_steps: bool) -> None:
    """Two batches an epoch, two epochs, two rounds: as in one loop over all eight, by the loop itself or beside it."""
    alone = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=0.8)
    scheduler, expected = make(alone), []
    for _ in range(8):
        expected.append(alone.param_groups[0]["lr"])
        alone.step()
        scheduler.step()
    found = by_step(make, loop_steps, local_epochs=2)
    assert [rate for rates in found for rate in rates] == pytest.approx(expected)


def test_a_schedule_that_is_made_for_other_steps_is_spread_over_those_of_the_run() -> None:
    """It was made for all the data in one place: 80 steps, of which a client takes 8. A loop may step it per epoch."""
    longer = partial(lr_scheduler.OneCycleLR, max_lr=1.0, total_steps=80)
    first, second = by_step(longer, True, local_epochs=2)
    assert max(first + second) > 0.9
    assert second[-1] < second[0]
    rare = by_step(longer, True, every=2, local_epochs=2)
    assert [rates[2] for rates in rare] == pytest.approx([first[2], second[2]])  # where an epoch begins
    with pytest.raises(Misuse, match="does not say for how many steps it is made"):
        by_step(DECAY, True, every=2)


def test_a_loop_that_asks_for_a_schedule_must_be_given_one() -> None:
    with pytest.raises(Misuse, match="asks for the scheduler, and none was given"):
        by_step(None, True)
    with pytest.raises(Misuse, match="once per round: leave its step"):
        by_step(DECAY, True, scheduler_per="round")
    with pytest.raises(StackError, match="freezes step sizes"):
        by_step(DECAY, True, privacy=[SampleDP(noise_multiplier=1.0, delta=1e-3)], loss=loss)


@pytest.mark.parametrize(
    "make",
    [
        lambda optimizer: lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=4),
        lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 3),
        lambda optimizer: lr_scheduler.SequentialLR(
            optimizer,
            [lr_scheduler.LinearLR(optimizer, 0.1), lr_scheduler.ExponentialLR(optimizer, 0.9)],
            milestones=[1],
        ),
    ],
)
def test_the_step_sizes_are_those_of_one_loop_over_all_epochs(make: Callable[[Any], Any]) -> None:
    heard: Rates = []
    federation(make, heard, local_epochs=2, strategy=FedProx()).fit(2)
    alone = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=0.8)
    scheduler, expected = make(alone), []
    for epoch in range(4):
        expected.append((1 + epoch // 2, epoch % 2, pytest.approx(alone.param_groups[0]["lr"])))
        alone.step()
        if epoch < 3:
            scheduler.step()
    assert sorted(set(heard)) == expected


@pytest.mark.filterwarnings("error")
def test_workers_and_a_resumed_run_follow_the_same_schedule(tmp_path: Path) -> None:
    def made(**options: Any) -> Federation:
        return federation(privacy=[SecAggPlus()], local_epochs=2, **options)

    whole, beside = made(), made(workers=2)
    whole.fit(3)
    beside.fit(3)
    made(output=tmp_path).fit(3, on_round=lambda result: False)
    cut = made(output=tmp_path)
    cut.fit(3, resume=True)
    assert torch.equal(whole.model.weight, beside.model.weight)
    assert torch.equal(whole.model.weight, cut.model.weight)
    with pytest.raises(Misuse, match=r"scheduler.gamma': 0.5.*'scheduler.gamma': 0.9"):
        federation(partial(HALVED, gamma=0.9), privacy=[SecAggPlus()], local_epochs=2, output=tmp_path).fit(
            4, resume=True
        )


@pytest.mark.parametrize("options", [{"local_epochs": 1}, {"local_epochs": 2, "scheduler_per": "round"}])
def test_step_sizes_that_stay_within_a_round_hold_beside_sample_dp(options: dict[str, Any]) -> None:
    heard: Rates = []
    layers = [SampleDP(epsilon=8, delta=1e-3)]
    result = federation(heard=heard, privacy=layers, loss=loss, **options).fit(2)
    assert {rate for number, _, rate in heard if number == 2} == {0.4}
    assert 0 < (result.epsilon or 0) <= 8


@pytest.mark.parametrize(
    "options, said",
    [
        ({"privacy": [SampleDP(epsilon=8, delta=1e-3)]}, r"SampleDP freezes.*SampleDP\(schedule=...\)"),
        ({"strategy": FedSGD()}, "FedSGD lets clients take no own step"),
        (
            {
                "privacy": [
                    DistributedDP(
                        epsilon=8, delta=1e-3, unit="example", clip=1.0, sample_rate=0.5, examples=24
                    )
                ]
            },
            "DistributedDP lets clients take no own step",
        ),
        (
            {"train": lambda model, loader: None},
            "scheduler must own the optimizer, but <lambda> does not take one",
        ),
        ({"scheduler": lr_scheduler.ReduceLROnPlateau}, "ReduceLROnPlateau follows a metric"),
        ({"scheduler": lambda optimizer: None}, "it returned NoneType"),
        ({"scheduler": 3}, "scheduler: expected a function that takes an optimizer"),
        ({"scheduler_per": "batch"}, "scheduler_per: expected 'epoch' or 'round' or 'step', got 'batch'"),
    ],
)
def test_what_would_have_no_effect_or_follow_data_is_refused_by_name(
    options: dict[str, Any], said: str
) -> None:
    with pytest.raises((Misuse, StackError), match=said):
        federation(**{"scheduler": HALVED, "local_epochs": 2, **options})


def test_a_schedule_that_ends_before_the_run_is_named_before_round_1() -> None:
    heard: Rates = []
    make = partial(lr_scheduler.OneCycleLR, max_lr=1.0, total_steps=3)
    with pytest.raises(Misuse, match="OneCycleLR does not reach round 5"):
        federation(make, heard, privacy=[ClientDP(epsilon=8, delta=1e-5, clip=1.0)]).fit(5)
    assert heard == []


@pytest.mark.parametrize(
    "make",
    [
        lambda optimizer: lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=80),
        lambda optimizer: lr_scheduler.ChainedScheduler(
            [lr_scheduler.StepLR(optimizer, 1), lr_scheduler.CosineAnnealingLR(optimizer, 80)]
        ),
    ],
    ids=["one-cycle", "chained"],
)
def test_a_schedule_made_for_batches_is_said_to_be_stepped_by_epochs(make: Callable[[Any], Any]) -> None:
    heard: Rates = []
    said = r"made for 80 steps, and this run has 4: it is stepped once per epoch"
    with pytest.warns(UserWarning, match=said):
        federation(make, heard, local_epochs=2).fit(2)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.8)
    scheduler, rates = make(optimizer), []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert sorted(set(heard)) == [(1, 0, rates[0]), (1, 1, rates[1]), (2, 0, rates[2]), (2, 1, rates[3])]


@pytest.mark.filterwarnings("error")
def test_a_schedule_of_which_a_run_uses_half_is_no_news() -> None:
    run = federation(lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 8), local_epochs=2)
    assert len(run.fit(2).history) == 2
