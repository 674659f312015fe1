"""A torch loop as it stands: dict batches, several inputs, own loss, augmentation, a schedule, mixed precision."""

import runpy
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as lrs
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.diffs import Pair
from dp import ClientDP, SampleDP
from fl import FedProx
from fl.adapters import from_torch
from he import CKKSSum
from protocols.errors import Misuse
from secagg import SecAgg, SecAggPlus

X = torch.arange(24.0).reshape(12, 2) / 24
FULL = DataLoader(TensorDataset(X, (X.sum(1) > 1).long()), 12)


def train(model: nn.Module, loader: Any, optimizer: Any) -> None:
    for x, y in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def parts(gamma: float = 0.5) -> tuple[nn.Module, torch.optim.Optimizer, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))
    slow = [
        {"params": model[0].parameters(), "lr": 0.01},
        {"params": model[2].parameters(), "weight_decay": 0.1},
    ]
    optimizer = torch.optim.AdamW(slow, lr=0.1)
    return model, optimizer, torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma)


def test_a_round_of_one_client_is_the_loop_and_what_was_given_stays_as_it_was() -> None:
    model, optimizer, scheduler = parts()
    result = from_torch(model, train, {"a": FULL}, optimizer, scheduler, local_epochs=3, bits=28).fit(
        rounds=1
    )
    same, _, _ = parts()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), same.parameters(), strict=True))
    assert not optimizer.state
    for _ in range(3):
        train(model, FULL, optimizer)
        scheduler.step()
    for name, value in model.state_dict().items():
        assert result.model.state_dict()[name] == pytest.approx(value, abs=1e-5)


def warm_then_cosine(optimizer: Any) -> Any:
    parts = [lrs.LinearLR(optimizer, 0.1, total_iters=2), lrs.CosineAnnealingLR(optimizer, 4)]
    return lrs.SequentialLR(optimizer, parts, milestones=[2])


SCHEDULES = {
    "decay": lambda optimizer: lrs.ExponentialLR(optimizer, 0.5),
    "warm-up": lambda optimizer: lrs.LinearLR(optimizer, 0.1, total_iters=4),
    "warm-up by a function": lambda optimizer: lrs.LambdaLR(optimizer, lambda epoch: (epoch + 1) / 4),
    "warm-up, then cosine": warm_then_cosine,
    "one cycle": lambda optimizer: lrs.OneCycleLR(optimizer, 0.1, total_steps=7),
    "chained": lambda optimizer: lrs.ChainedScheduler(
        [lrs.LinearLR(optimizer, 0.1, total_iters=2), lrs.ExponentialLR(optimizer, 0.5)]
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("begun", [0, 1])
def test_the_schedule_runs_over_the_run_as_it_would_in_the_loop(name: str, begun: int) -> None:
    rates: list[list[float]] = []

    def watching(model: nn.Module, loader: Any, optimizer: Any) -> None:
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()

    model, optimizer, _ = parts(gamma=1.0)
    scheduler = SCHEDULES[name](optimizer)
    for _ in range(begun):
        optimizer.step(), scheduler.step()
    federation = from_torch(model, watching, {"a": FULL}, optimizer, scheduler, local_epochs=2)
    wanted = []
    for _ in range(6):  # that the caller's own goes on changes nothing
        wanted.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step(), scheduler.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*training changed nothing")  # it only watches
        federation.fit(rounds=3)
    assert np.array(rates) == pytest.approx(np.array(wanted))


@pytest.mark.parametrize(
    "options",
    [
        {"privacy": [CKKSSum()]},
        {"privacy": [ClientDP(noise_multiplier=1.0, clip=1.0, delta=1e-5), SecAgg()]},
        {"privacy": [SampleDP(noise_multiplier=1.0, delta=1e-5), SecAggPlus()]},
        {"strategy": FedProx(0.1)},
    ],
    ids=["ckks", "client-dp", "sample-dp", "fedprox"],
)
def test_every_layer_and_strategy_takes_the_loop(options: dict[str, Any]) -> None:
    model, optimizer, _ = parts()
    own = {name: DataLoader(TensorDataset(X.clone(), (X.sum(1) > 1).long()), 12) for name in "abc"}
    result = from_torch(model, train, own, optimizer, **options).fit(rounds=1)
    assert result.survivors == [("a", "b", "c")]


def test_parts_that_do_not_belong_together_are_refused() -> None:
    model, optimizer, scheduler = parts()
    other, others, _ = parts()
    with pytest.raises(Misuse, match="expected one of the model's parameters"):
        from_torch(other, train, {"a": FULL}, optimizer)
    with pytest.raises(Misuse, match="expected one of the given optimizer"):
        from_torch(other, train, {"a": FULL}, others, scheduler)
    with pytest.raises(Misuse, match="expected a torch module"):
        from_torch(lambda: model, train, {"a": FULL}, optimizer)  # type: ignore[arg-type]


def test_the_example_runs_and_five_lines_change(capsys: pytest.CaptureFixture[str]) -> None:
    assert Pair("examples/adapters/torch").changed <= 5
    torch.manual_seed(0)  # the example's module is drawn from it
    runpy.run_module("examples.adapters.torch_after")
    assert float(capsys.readouterr().out.split()[-1]) > 0.5


def test_a_loop_that_nobody_made_a_function_of_changes_by_five_lines_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert Pair("examples/adapters/inline").changed <= 5
    torch.manual_seed(0)
    runpy.run_module("examples.adapters.inline_after")
    assert "accuracy 0.9" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["clip_grad_norm_", "clip_grad_value_", "GradScaler", "outer", "helper"])
def test_a_loop_that_changes_gradients_is_told_before_round_1_beside_a_clip_of_every_example(
    name: str,
) -> None:
    scaler = torch.amp.GradScaler("cpu", enabled=False)

    def scaling(model: Any, loader: Any, optimizer: Any) -> None:
        torch.amp.GradScaler("cpu")

    def scaled_outside(model: Any, loader: Any, optimizer: Any) -> None:
        scaler.step(optimizer)

    def clipping(model: Any, loader: Any, optimizer: Any) -> None:
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)

    def by_value(model: Any, loader: Any, optimizer: Any) -> None:
        nn.utils.clip_grad_value_(model.parameters(), 1.0)

    def calling(model: Any, loader: Any, optimizer: Any) -> None:
        clipping(model, loader, optimizer)

    loops = {"clip_grad_norm_": clipping, "clip_grad_value_": by_value, "GradScaler": scaling}
    loop = {**loops, "outer": scaled_outside, "helper": calling}[name]
    model, optimizer, _ = parts()
    said = {"outer": "GradScaler", "helper": "clip_grad_norm_"}.get(name, name)
    with pytest.raises(Misuse, match=f"uses {said}, and SampleDP clips every example's own gradient"):
        from_torch(model, loop, {"a": FULL}, optimizer, privacy=[SampleDP(noise_multiplier=1.0, delta=1e-3)])
    from_torch(model, loop, {"a": FULL, "b": FULL, "c": FULL}, optimizer, privacy=["secagg"])


class Counting(torch.optim.SGD):
    """An optimizer with a field of its own, which torch does not copy."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, lr=lr)
        self.firm = 2.0

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for p in group["params"]:
                p.data -= self.firm * group["lr"] * p.grad


def test_optimizers_with_fields_of_their_own_are_copied_whole() -> None:
    def closing(model: nn.Module, loader: Any, optimizer: Any) -> None:
        for x, y in loader:

            def loss(x: torch.Tensor = x, y: torch.Tensor = y) -> torch.Tensor:
                optimizer.zero_grad()
                (value := nn.functional.cross_entropy(model(x), y)).backward()
                return value

            optimizer.step(loss)

    model, _, _ = parts()
    for optimizer, loop in [
        (torch.optim.LBFGS(model.parameters(), lr=0.1), closing),
        (Counting(model.parameters(), 0.1), train),
    ]:
        result = from_torch(model, loop, {"a": FULL}, optimizer, bits=28, range=8.0).fit(rounds=1)
        same, _, _ = parts()
        loop(same, FULL, type(optimizer)(same.parameters(), lr=0.1))
        for name, value in same.state_dict().items():
            assert result.model.state_dict()[name] == pytest.approx(value, abs=1e-5)


OUTER, _, _ = parts()


def test_a_loop_that_trains_what_is_outside_of_it_is_named_before_round_1() -> None:
    def globally(model: nn.Module, loader: Any, optimizer: Any) -> None:
        train(OUTER, loader, optimizer)

    optimizer = torch.optim.SGD(OUTER.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)

    def stepping(model: nn.Module, loader: Any, optimizer: Any) -> None:
        train(model, loader, optimizer)
        scheduler.step()

    with pytest.raises(Misuse, match=r"globally uses 'OUTER' from outside.*take it as the argument 'model'"):
        from_torch(OUTER, globally, {"a": FULL}, optimizer)
    with pytest.raises(
        Misuse, match=r"stepping uses 'scheduler' from outside.*take it as the argument 'scheduler'"
    ):
        from_torch(OUTER, stepping, {"a": FULL}, optimizer, scheduler)


def test_classes_lists_and_nothing_in_the_place_of_objects_are_named() -> None:
    model, optimizer, _ = parts()
    given: dict[str, Any] = {"model": model, "train": train, "clients": {"a": FULL}, "optimizer": optimizer}
    for wrong, said in {
        "model": (nn.Linear, r"got the class Linear: write Linear\(...\)"),
        "optimizer": (torch.optim.SGD, r"got the class SGD: write SGD\(...\)"),
        "train": (None, "train: expected a function"),
    }.items():
        with pytest.raises(Misuse, match=said[1]):
            from_torch(**{**given, wrong: said[0]})
    with pytest.raises(Misuse, match="several of them builds them itself, inside train"):
        from_torch(**{**given, "optimizer": [optimizer, optimizer]})
