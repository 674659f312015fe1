"""What a user's own loop and loader may do beside the private steps: each thing that would release something of the
data without a clip and noise is refused, with the cure."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.optim import lr_scheduler as torchs
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler, TensorDataset
from torch.utils.data import SubsetRandomSampler as Subset

from dp import DistributedDP, SampleDP
from dp.sample.errors import UnaccountedStep
from fl import Federation, FedSGD
from protocols.errors import Misuse

COUNT = 32
DATA = TensorDataset(
    torch.randn(COUNT, 4, generator=torch.Generator().manual_seed(0)), torch.arange(COUNT) % 2
)
Z: dict[str, Any] = {"noise_multiplier": 2.0, "delta": 1e-5}


def layer(**options: Any) -> SampleDP:
    return SampleDP(**(Z | {"batch_size": 8, "examples": COUNT} | options))


def once(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
    for x, y in loader:
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()


def run(train: Callable[..., Any] = once, loader: Any = None, **options: Any) -> Federation:
    clients = {"a": loader or DataLoader(DATA, batch_size=8)}
    return Federation(lambda: nn.Linear(4, 2), clients, train=train, **({"privacy": [layer()]} | options))


class Draws(DataLoader[Any]):
    """Serves the first half only."""

    def __iter__(self) -> Any:
        yield from list(super().__iter__())[:2]


FOREIGN = {
    "a batch sampler over a part": lambda: DataLoader(
        DATA, batch_sampler=BatchSampler(Subset(range(8)), 4, drop_last=False)
    ),
    "a batch sampler of one's own": lambda: DataLoader(DATA, batch_sampler=[[0, 1], [2, 3]]),
    "a sampler over a part": lambda: DataLoader(DATA, 4, sampler=SequentialSampler(range(8))),
    "with replacement": lambda: DataLoader(DATA, 4, sampler=RandomSampler(DATA, replacement=True)),
    "a number of samples": lambda: DataLoader(DATA, 4, sampler=RandomSampler(DATA, num_samples=8)),
    "no batches": lambda: DataLoader(DATA, batch_size=None),
    "an iteration of its own": lambda: Draws(DATA, batch_size=8),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_loader_that_draws_its_own_way_is_refused(name: str) -> None:
    """Behind a batch sampler each client trained on everybody's examples, and each example was priced once."""
    with pytest.raises(Misuse, match="draws by its own"):
        run(loader=FOREIGN[name]()).fit(1)
    summed = DistributedDP(**Z, unit="example", sample_rate=0.5, examples=COUNT)
    with pytest.raises(Misuse, match="draws by its own"):
        run(loader=FOREIGN[name](), privacy=[summed], strategy=FedSGD()).fit(1)


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(DATA, batch_size=8, shuffle=True, drop_last=True),
        DataLoader(DATA, batch_sampler=BatchSampler(RandomSampler(DATA), 8, drop_last=False)),
    ],
)
def test_torchs_own_ways_over_the_whole_data_set_train(loader: Any) -> None:
    assert run(loader=loader).fit(1).epsilon


@pytest.mark.parametrize("name", ["dataset", "sampler", "batch_sampler", "collate_fn"])
def test_the_loop_sees_batches_alone(name: str) -> None:
    """A second model trained on `loader.dataset` and distilled, class weights, a mean of inputs: all in the clear."""

    def reads(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
        assert len(loader) == 4
        getattr(loader, name)
        once(model, loader, optimizer, criterion)

    with pytest.raises(Misuse, match=f"loader.{name}: the loop sees secret batches alone"):
        run(reads).fit(1)


# -- what the loop may do to the optimizer --


def momentum(parameters: Any) -> SGD:
    return SGD(parameters, lr=0.1, momentum=0.5)


def exponential(optimizer: Any) -> Callable[[], object]:
    """It lagged behind by the empty batches, which the loop does not see: whether a batch was empty was released."""
    return torchs.ExponentialLR(optimizer, 0.5).step


def cycle(optimizer: Any) -> Callable[[], object]:
    return torchs.OneCycleLR(optimizer, 0.5, total_steps=99).step


def plateau(optimizer: Any) -> Callable[[], object]:
    return partial(
        torchs.ReduceLROnPlateau(optimizer, patience=0, threshold=1e9, threshold_mode="abs").step, 1.0
    )


def by_hand(optimizer: Any) -> Callable[[], object]:
    return lambda: optimizer.param_groups[0].update(lr=0.01)


def less_momentum(optimizer: Any) -> Callable[[], object]:
    return lambda: optimizer.param_groups[0].update(momentum=0.0)


def a_key_of_its_own(optimizer: Any) -> Callable[[], object]:
    return lambda: optimizer.param_groups[0].update(gain=2.0)


def fewer_parameters(optimizer: Any) -> Callable[[], object]:
    return lambda: optimizer.param_groups[0]["params"].pop()


def written_state(optimizer: Any) -> Callable[[], object]:
    return lambda: [state["momentum_buffer"].mul_(2.0) for state in optimizer.state.values()]


def state_written_behind_torchs_back(optimizer: Any) -> Callable[[], object]:
    """No version counter moves."""
    return lambda: [state["momentum_buffer"].data.mul_(2.0) for state in optimizer.state.values()]


def hook_before(optimizer: Any) -> Callable[[], object]:
    """It may put the batch's own gradient in the place of the noised one."""
    return lambda: optimizer.original_optimizer.register_step_pre_hook(lambda *_: None)


def hook_behind(optimizer: Any) -> Callable[[], object]:
    return lambda: optimizer.original_optimizer.register_step_post_hook(lambda *_: None)


def hook_of_the_private_one(optimizer: Any) -> Callable[[], object]:
    return lambda: optimizer.attach_step_hook(lambda *_: None)


def another_optimizer(optimizer: Any) -> Callable[[], object]:
    return lambda: setattr(optimizer, "original_optimizer", SGD(optimizer.params, lr=0.1, momentum=0.5))


def frozen_later(optimizer: Any) -> Callable[[], object]:
    return lambda: optimizer.param_groups[0]["params"][1].requires_grad_(False)


def forgotten_state(optimizer: Any) -> Callable[[], object]:
    return lambda: optimizer.state.clear()


def without_noise(optimizer: Any) -> Callable[[], object]:
    return lambda: setattr(optimizer, "noise_multiplier", 0.0)


def larger_clip(optimizer: Any) -> Callable[[], object]:
    return lambda: setattr(optimizer, "max_grad_norm", 9.0)


def larger_steps(optimizer: Any) -> Callable[[], object]:
    return lambda: setattr(optimizer, "denominator", 0.1)


SET = {
    exponential: "lr",
    cycle: "",
    plateau: "lr",
    by_hand: "lr",
    less_momentum: "momentum",
    a_key_of_its_own: "gain",
    fewer_parameters: "params",
    written_state: "momentum_buffer",
    state_written_behind_torchs_back: "momentum_buffer",
    hook_before: "pre-step hooks",
    hook_behind: "post-step hooks",
    hook_of_the_private_one: "step_hook",
    another_optimizer: "original_optimizer",
    frozen_later: "params",
    forgotten_state: "momentum_buffer",
    without_noise: "noise_multiplier",
    larger_clip: "max_grad_norm",
    larger_steps: "denominator",
}


@pytest.mark.parametrize("made", SET)
@pytest.mark.parametrize("gradients", ["hooks", "ghost"])
def test_a_number_of_the_optimizer_that_the_loop_sets_ends_the_round_by_its_name(
    made: Any, gradients: str
) -> None:
    def train(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
        after = made(optimizer)
        for x, y in loader:
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()
            after()

    private = layer(gradients=gradients, batch_size=1, examples=4)
    loader = DataLoader(DATA, batch_size=8)  # rate 1/4 of 32: a batch is empty in one of 10,000
    federation = run(train, loader, privacy=[private], optimizer=momentum)
    with pytest.raises(UnaccountedStep, match=f"the optimizer's .*{SET[made]}.* schedule") as refused:
        federation.fit(1)
    assert "0.01" not in str(refused.value)  # what the loop computed is not told
    assert not federation.account.events


def test_a_hook_on_every_optimizer_ends_the_round() -> None:
    handles: list[Any] = []

    def train(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
        handles.append(register_optimizer_step_pre_hook(lambda *_: None))
        once(model, loader, optimizer, criterion)

    try:
        with pytest.raises(UnaccountedStep, match="the optimizer's pre-step hooks"):
            run(train).fit(1)
    finally:
        for handle in handles:
            handle.remove()


def two_layers() -> nn.Module:
    made = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    made[0].requires_grad_(False)
    return made


def thawed(forget: bool) -> Callable[..., None]:
    """A frozen layer has gradients for a moment, for a penalty or a saliency."""

    def train(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
        for x, y in loader:
            optimizer.zero_grad()
            model[0].requires_grad_(True)
            criterion(model(x), y).backward()
            model[0].requires_grad_(False)
            if forget:
                model[0].zero_grad()
            optimizer.step()

    return train


@pytest.mark.parametrize("gradients", ["hooks", "ghost"])
def test_a_frozen_layer_is_not_stepped_by_the_gradient_that_the_loop_gives_it(gradients: str) -> None:
    """Torch steps whatever has a gradient: the frozen layer moved by the examples' own, and was sent."""
    clients = {"a": DataLoader(DATA, batch_size=8)}
    common: dict[str, Any] = {"parameters": "all"}

    def federation(train: Any) -> Federation:
        return Federation(two_layers, clients, train=train, privacy=[layer(gradients=gradients)], **common)

    with pytest.raises(
        UnaccountedStep, match=r"0\.weight does not require gradients and has one at the step"
    ):
        federation(thawed(forget=False)).fit(1)
    sound = federation(thawed(forget=True))
    before = sound.coordinator.reference().tree
    assert sound.fit(1).epsilon
    after = sound.coordinator.reference().tree
    assert (before["0.weight"] == after["0.weight"]).all()
    assert (before["2.weight"] != after["2.weight"]).any()


def test_an_optimizer_that_moves_more_than_was_released_ends_the_round() -> None:
    class Wide(SGD):
        """Writes what it likes."""

        def step(self, closure: Any = None) -> Any:
            super().step(closure)
            for p in self.param_groups[0]["params"]:
                if not p.requires_grad:
                    p.data.add_(1.0)

    with pytest.raises(UnaccountedStep, match=r"0\.\w+ changed outside an accounted step"):
        Federation(
            two_layers, {"a": DataLoader(DATA, batch_size=8)}, train=once, privacy=[layer()], parameters="all",
            optimizer=lambda parameters: Wide(parameters, lr=0.1),
        ).fit(1)  # fmt: skip


def test_a_state_that_is_loaded_before_the_first_step_is_kept() -> None:
    """Momentum from round to round is made of noised steps alone."""
    kept: list[Any] = []

    def train(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
        if kept:
            optimizer.original_optimizer.load_state_dict(kept[-1])
        once(model, loader, optimizer, criterion)
        kept.append(optimizer.original_optimizer.state_dict())

    assert run(train, optimizer=momentum).fit(2).epsilon


def test_a_schedule_follows_the_number_of_the_step_whatever_is_in_the_batches() -> None:
    """Two examples where 64 are public: most batches are empty, and none of them reaches the loop."""
    rates: list[float] = []

    class Noted(SGD):
        def step(self, closure: Any = None) -> Any:
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    few = DataLoader(TensorDataset(torch.randn(2, 4), torch.arange(2)), batch_size=2)
    federation = run(
        loader=few,
        privacy=[layer(batch_size=8, examples=64, schedule=lambda step: 0.9**step)],
        optimizer=lambda parameters: Noted(parameters, lr=0.1),
        local_epochs=2,
    )
    federation.fit(2)
    assert rates == [0.1 * 0.9**step for step in range(32)]


@pytest.mark.parametrize("wrong", [lambda step: 0.0, lambda step: float("nan"), lambda step: -1.0])
def test_a_schedule_that_is_none_is_refused(wrong: Any) -> None:
    with pytest.raises(Misuse, match="schedule: expected a finite factor > 0"):
        run(privacy=[layer(schedule=wrong)]).fit(1)
    with pytest.raises(Misuse, match="schedule: expected a function"):
        layer(schedule=0.5)


# -- how many steps --


@pytest.mark.parametrize(
    ("passes", "said"), [(0, "took no batch"), (20, "draws another batch"), (3, "draws another")]
)
def test_other_passes_than_planned_are_refused(passes: int, said: str) -> None:
    """Twenty passes where epsilon 1 was asked for: 3.9 in memory, and 1 printed on Flower."""

    def train(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
        for _ in range(passes):
            once(model, loader, optimizer, criterion)

    federation = run(train, privacy=[layer(noise_multiplier=None, epsilon=1.0)])
    with pytest.raises(UnaccountedStep, match=said):
        federation.fit(1)
    assert not federation.account.events


@pytest.mark.parametrize(
    ("first", "said"),
    [(1, "left its pass before the end"), (2, "1 of the round's 2 planned steps were taken")],
)
def test_a_pass_that_is_left_before_its_end_is_refused(first: int, said: str) -> None:
    """How many steps were taken, charged and printed followed a loss. first: the loop's call that does so."""
    calls: list[int] = []

    def train(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
        calls.append(1)
        for number, (x, y) in enumerate(loader):
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()
            if number == 0 and len(calls) >= first:  # the first batch is empty in one of 10^9
                break

    federation = run(train, privacy=[layer(batch_size=16)])
    with pytest.raises(UnaccountedStep, match=said):
        federation.fit(1)
    assert not federation.account.events


def test_local_epochs_are_passes() -> None:
    private = layer()
    result = run(privacy=[private], local_epochs=3).fit(2)
    assert private.accounts["a"].taken == 2 * 3 * 4
    assert [event.facts["count"] for event in result.statement.events] == [12, 12]
