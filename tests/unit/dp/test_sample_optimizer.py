"""A private optimizer's own numbers: noise, grid, denominator, count; and what it refuses."""

import math
from typing import Any

import pytest
import torch

from dp.layering import integer_sigma
from dp.mechanisms.grid import noise_step, rounded_bound
from dp.sample.errors import UnaccountedStep
from dp.sample.optimizers import checked_part, forget
from dp.sample.options import AdaptiveClip, Clipping
from tests.defects.dp.sample_models import vectors
from tests.unit.dp.test_dp_sample_rows import line, made
from tests.unit.dp.test_sample_engine import played
from tests.unit.dp.test_sample_steps import begun


def private(clipping: Clipping | None = None, noise: float = 1.0) -> tuple[Any, Any, Any]:
    client, at = begun(made(line), vectors(), clipping or Clipping(2.0))
    at.optimizer.noise_multiplier = noise
    at.optimizer.freeze()
    return client, at, at.optimizer


def test_the_noise_of_a_gradient_and_of_a_count_cost_what_was_stated_together() -> None:
    own = private()[2]
    assert (own.gradient_noise(), own.dims, own.denominator, own.accumulated_iterations) == (1.0, 43, 12.0, 1)
    assert own.grid == noise_step(2.0)
    assert own.bound() == rounded_bound(2.0, 43, own.grid)
    follows = private(Clipping(AdaptiveClip(start=2.0, count_noise=0.05)))[2]
    assert follows._count_noise() == pytest.approx(1.2)
    assert follows.gradient_noise() == pytest.approx((1 - 1 / 1.44) ** -0.5)
    assert follows.grid == noise_step(2.0 * follows.gradient_noise())
    assert private(noise=0.0)[2].grid == noise_step(2.0**-19)
    silent = private(Clipping(AdaptiveClip(start=2.0)), noise=0.0)[2]
    assert silent.gradient_noise() == 0.0


def test_how_many_more_examples_are_below_the_clip_than_above() -> None:
    own = private(Clipping(AdaptiveClip(start=2.0)))[2]
    assert own._balance == 0
    own._count(torch.tensor([0.5, 2.0, 2.5]))
    assert own._balance == 1
    own._count(torch.tensor([2.5, 2.5]))
    assert own._balance == -1
    fixed = private()[2]
    fixed._count(torch.tensor([0.5]))
    assert fixed._balance == 0


def step(noise: float) -> torch.Tensor:
    client, at, own = private(noise=noise)
    before = torch.cat([p.detach().reshape(-1).clone() for p in own.params])
    played(at)
    assert client.finish() == 1
    moved = torch.cat([p.detach().reshape(-1) for p in own.params]) - before
    return moved * 12


def test_without_noise_a_step_is_the_same_each_time_and_with_noise_it_is_not() -> None:
    assert step(0.0).equal(step(0.0))
    apart = [float((step(30.0) - step(0.0)).norm()) for _ in range(3)]
    wanted = integer_sigma(30.0, rounded_bound(2.0, 43, noise_step(60.0))) * noise_step(60.0) * 43**0.5
    assert all(0.4 * wanted < each < 1.8 * wanted for each in apart)  # 7 deviations


def test_an_empty_batch_is_noise_alone_and_leaves_nothing() -> None:
    client, _, own = private()
    before = [p.detach().clone() for p in own.params]
    client.empty()
    assert all(not torch.equal(p, b) for p, b in zip(own.params, before, strict=True))
    assert (client.guard.drawn, client.guard.accounted, client.finish()) == (1, 1, 1)
    assert [p.summed_grad for p in own.params if hasattr(p, "summed_grad")] == []
    client, _, own = private(noise=0.0)
    own.original_optimizer.param_groups[0]["lr"] = 0.5
    with pytest.raises(UnaccountedStep, match="lr"):
        client.empty()


CHANGED: dict[str, Any] = {
    "noise_multiplier": lambda own: setattr(own, "noise_multiplier", 0.5),
    "max_grad_norm": lambda own: setattr(own, "max_grad_norm", 9.0),
    "clips": lambda own: setattr(own, "clips", [1.0]),
    "adaptive": lambda own: setattr(own, "adaptive", AdaptiveClip()),
    "denominator": lambda own: setattr(own, "denominator", 1.0),
    "schedule": lambda own: setattr(own, "schedule", (2.0,)),
    "step_hook": lambda own: own.attach_step_hook(print),
    "original_optimizer": lambda own: setattr(own, "original_optimizer", torch.optim.SGD(own.params, lr=1.0)),
    "param_groups[0]['lr']": lambda own: own.param_groups[0].update(lr=2.0),
}


def test_every_number_is_frozen_by_name() -> None:
    for name, change in CHANGED.items():
        own = private()[2]
        own._insist()
        change(own)
        with pytest.raises(UnaccountedStep) as refused:
            own._insist()
        assert str(refused.value).startswith(f"the optimizer's {name} is not what it was")
    own = private()[2]
    first = own.params[0]
    first.requires_grad_(False)
    own.freeze()
    first.grad = torch.ones_like(first)
    with pytest.raises(UnaccountedStep, match=r"^0\.weight does not require gradients and has one"):
        own._insist()


def test_gradients_of_examples_are_those_of_the_batch() -> None:
    p: Any = torch.nn.Parameter(torch.zeros(2))
    with pytest.raises(UnaccountedStep, match=r"^w has no fresh per-example gradients"):
        checked_part(p, "w", 3)
    p.total = torch.zeros(2)
    with pytest.raises(UnaccountedStep, match=r"^w is used outside the module"):
        checked_part(p, "w", 3)
    p.grad_sample = torch.ones(3, 2)
    assert checked_part(p, "w", 3).shape == (3, 2)  # type: ignore[union-attr]
    with pytest.raises(UnaccountedStep, match=r"^w has gradients of 3 examples where 4 were drawn"):
        checked_part(p, "w", 4)
    forget(p)
    assert (p.grad_sample, p.factors, p.total) == (None, None, None)


def test_one_parameter_after_the_other_is_compared_in_later_steps() -> None:
    client, _, own = private()
    assert own._turn() is None
    client.guard.accounted = 6
    assert own._turn() is None  # nothing was checked before
    client._hooks.layouts.calls = {}
    assert own._turn() == 2
    client.guard.accounted = 0
    assert own._turn() is None
    own.hooks = None
    client.guard.accounted = 6
    assert own._turn() is None


def test_a_loss_may_be_called_by_the_step() -> None:
    client, at, own = private()
    seen = []
    for x, y in at.loader:

        def closure(x: Any = x, y: Any = y) -> Any:
            seen.append(torch.is_grad_enabled())
            loss = at.criterion(at.model(x), y)
            loss.backward()
            return loss

        with torch.no_grad():
            own.step(closure)
    assert (seen, client.finish()) == ([True], 1)


def test_gradients_of_all_kinds_are_forgotten() -> None:
    client, at, own = private()
    x, y = next(iter(at.loader))
    at.criterion(at.model(x), y).backward()
    assert own._examples() == 12
    assert all(p.total is not None and p.grad is not None for p in own.params)
    own.zero_grad()
    assert own._examples() == 0
    assert all(p.total is None and p.factors is None and p.grad_sample is None for p in own.params)
    client.abandon()


def test_every_coordinate_has_noise_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    own = private()[2]
    assert own._noise(0.0).dtype == torch.int64
    monkeypatch.setattr(own, "_noise", lambda sigma: torch.arange(43))
    for p in own.params:
        p.summed_grad = torch.full((p.numel(),), 100)
    own.add_noise()
    flat = torch.cat([p.grad.reshape(-1) for p in own.params])
    assert torch.allclose(flat, (100 + torch.arange(43)) * own.grid)
    assert [p.summed_grad for p in own.params] == [None] * 4
    own.scale_grad()
    assert torch.allclose(torch.cat([p.grad.reshape(-1) for p in own.params]), flat / 12)


def test_an_empty_batch_is_a_planned_step_of_whole_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    client, _, own = private()
    kinds: list[Any] = []
    monkeypatch.setattr(own, "_release", lambda: kinds.extend(p.summed_grad.dtype for p in own.params))
    client.empty()
    assert kinds == [torch.int64] * 4
    client.guard.part_done()
    with pytest.raises(UnaccountedStep, match="1 planned steps are taken"):
        client.empty()


def test_a_clip_moves_by_the_noised_count(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def noise(random: Any, sigma: float, size: int) -> list[int]:
        asked.append((random, sigma, size))
        return [3]

    own = private(Clipping(AdaptiveClip(start=2.0)))[2]
    monkeypatch.setattr("dp.sample.optimizers.discrete_gaussian", noise)
    own._balance = 1
    own._after_noise()
    assert asked == [(own.random, integer_sigma(1.2, 1.0), 1)]
    assert own.max_grad_norm == pytest.approx(2.0 * math.exp(-0.2 * 4 / 24))
    assert own._balance == 0
    own.max_grad_norm = 1e3
    own._balance = -100
    own._after_noise()
    assert own.max_grad_norm == 1e3
    own.max_grad_norm, own._balance = 1e-3, 100
    own._after_noise()
    assert own.max_grad_norm == 1e-3
