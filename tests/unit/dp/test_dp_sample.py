"""Private local training: every clipping mode, steps counted against changes, noise and batches of its own."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from dp.sample.engine import ClientEngine
from dp.sample.errors import UnaccountedStep
from dp.sample.options import AdaptiveClip, Clipping
from tests.unit.dp.sample_rig import begin, honest, loader, model

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook:UserWarning")
MODES = [
    Clipping(1.0),
    Clipping(1.0, per_layer=True),
    Clipping((0.5, 0.5, 0.5, 0.5), per_layer=True),
    Clipping(AdaptiveClip()),
    Clipping(1.0, gradients="functorch"),
    Clipping(1.0, gradients="ew"),
    Clipping(1.0, gradients="ghost"),
    Clipping(AdaptiveClip(), gradients="ghost"),
    Clipping(1.0, physical_batch=7),
    Clipping(1.0, gradients="ghost", physical_batch=7),
]


def clears_the_model(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
    for x, y in loader:
        model.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()


def own_optimizer(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
    mine = torch.optim.SGD(model.parameters(), lr=0.1)
    for x, y in loader:
        mine.zero_grad()
        criterion(model(x), y).backward()
        mine.step()


def own_optimizer_beside(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
    mine = torch.optim.SGD(model.parameters(), lr=0.1)
    for x, y in loader:
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()
        mine.step()


def own_loss(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
    for x, y in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def touched_gradient(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
    for x, y in loader:
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        next(model.parameters()).grad.add_(1.0)
        optimizer.step()


def added_penalty(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
    for x, y in loader:
        optimizer.zero_grad()
        (criterion(model(x), y) + model[0].weight.pow(2).sum()).backward()
        optimizer.step()


def other_examples(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
    for x, _ in loader:
        more = torch.cat([x, torch.randn(5, 6)])
        optimizer.zero_grad()
        criterion(model(more), torch.zeros(len(more), dtype=torch.long)).backward()
        optimizer.step()


def skipped_batch(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
    for i, (x, y) in enumerate(loader):
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        if i != 3:
            optimizer.step()


def two_steps(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
    for x, y in loader:
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()
        optimizer.step()


def trained_copy(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
    honest(model, loader, optimizer, criterion)
    with torch.no_grad():
        model[0].bias.add_(1e-3)


@pytest.mark.parametrize("clipping", MODES, ids=str)
def test_every_mode_trains_over_rounds_and_keeps_names_and_account(clipping: Clipping) -> None:
    net, engine = model(), ClientEngine(clipping, noise_multiplier=0.5, rate=0.1, steps=10)
    names, before = list(net.state_dict()), [p.detach().clone() for p in net.parameters()]
    for taken in (10, 20):
        attached = begin(engine, net)
        honest(attached.model, attached.loader, attached.optimizer, attached.criterion)
        assert engine.finish() == 10
        assert engine.taken == taken
        assert list(net.state_dict()) == names
    assert engine.account.history == [(0.5, 0.1, 20)]  # Opacus' own account agrees on what happened
    assert all(not torch.equal(a, p) for a, p in zip(before, net.parameters(), strict=True))
    assert not any(hasattr(p, "grad_sample") for p in net.parameters())


@pytest.mark.parametrize(
    ("loop", "gradients", "error"),
    [
        (own_optimizer, "hooks", UnaccountedStep),
        (own_optimizer, "ghost", UnaccountedStep),
        (own_optimizer_beside, "hooks", UnaccountedStep),
        (own_optimizer_beside, "ghost", UnaccountedStep),
        (added_penalty, "hooks", UnaccountedStep),
        (added_penalty, "ghost", UnaccountedStep),
        (other_examples, "hooks", UnaccountedStep),
        (other_examples, "ghost", UnaccountedStep),
        (skipped_batch, "hooks", UnaccountedStep),
        (two_steps, "hooks", UnaccountedStep),
        (two_steps, "ghost", UnaccountedStep),
        (trained_copy, "hooks", UnaccountedStep),
    ],
)
def test_a_loop_that_steps_past_the_account_is_refused(
    loop: Any, gradients: str, error: type[Exception]
) -> None:
    engine = ClientEngine(Clipping(1.0, gradients=gradients), 0.5, 0.1, 10)
    attached = begin(engine, model())
    with pytest.raises(error):  # noqa: PT012  # the loop or the end of the round may see it first
        loop(attached.model, attached.loader, attached.optimizer, attached.criterion)
        engine.finish()


@pytest.mark.parametrize("gradients", ["hooks", "functorch", "ghost"])
@pytest.mark.parametrize("loop", [own_loss, touched_gradient])
def test_a_loss_of_the_loops_own_is_clipped_and_what_it_adds_to_a_gradient_counts_for_nothing(
    loop: Any, gradients: str
) -> None:
    ends = []
    for train in (honest, loop):
        torch.manual_seed(0)
        net, engine = model(), ClientEngine(Clipping(0.1, gradients=gradients), 0.0, 1.0, 1)
        at = begin(engine, net)
        train(at.model, at.loader, at.optimizer, at.criterion)
        assert engine.finish() == 1
        ends.append(torch.cat([p.detach().reshape(-1) for p in net.parameters()]))
    assert torch.allclose(*ends, atol=1e-6)


@pytest.mark.parametrize("gradients", ["hooks", "ghost"])
def test_gradients_are_used_once_even_if_the_loop_forgets_the_optimizers_zero_grad(gradients: str) -> None:
    engine = ClientEngine(Clipping(1.0, gradients=gradients), 0.5, 0.1, 10)
    attached = begin(
        engine, nn.Sequential(nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3))
    )
    clears_the_model(attached.model, attached.loader, attached.optimizer, attached.criterion)
    assert engine.finish() == 10


def test_a_step_that_changes_nothing_is_refused() -> None:
    engine = ClientEngine(Clipping(1.0), 0.5, 0.1, 10)
    attached = begin(engine, model(), lr=0.0)
    honest(attached.model, attached.loader, attached.optimizer, attached.criterion)
    with pytest.raises(UnaccountedStep, match="0 changed parameters"):
        engine.finish()


@pytest.mark.parametrize("gradients", ["hooks", "ghost"])
def test_an_empty_secret_batch_is_a_step_of_noise_that_the_loop_never_sees(gradients: str) -> None:
    seen = []

    def loop(attached: Any) -> None:
        for x, y in attached.loader:
            seen.append(len(x))
            attached.optimizer.zero_grad()
            attached.criterion(attached.model(x), y).backward()
            attached.optimizer.step()

    engine, net = ClientEngine(Clipping(1.0, gradients=gradients), 1.0, rate=1 / 400, steps=40), model()
    loop(begin(engine, net))
    assert engine.finish() == 40  # a batch holds half an example on average: many were empty
    assert 0 not in seen
    assert len(seen) < 40


@pytest.mark.parametrize("clipping", [Clipping(1.0), Clipping(1.0, gradients="ghost")], ids=str)
def test_the_noise_has_the_variance_that_is_stated(clipping: Clipping) -> None:
    """At learning rate 1 and rate 2^-40 every step adds pure noise: 110 steps x 53 parameters, 5,830 draws."""
    torch.manual_seed(0)
    multiplier, steps, batch = 2.0, 110, 4.0
    engine, net = ClientEngine(clipping, multiplier, rate=2.0**-40, steps=steps), model()
    engine.size(round(batch * 2**40))
    start = torch.cat([p.detach().reshape(-1) for p in net.parameters()]).double()
    attached = engine.begin(net, torch.optim.SGD(net.parameters(), lr=1.0), loader(), nn.CrossEntropyLoss())
    draws = []
    for _ in range(steps):
        engine.empty()
        now = torch.cat([p.detach().reshape(-1) for p in net.parameters()]).double()
        draws.append((now - start) * batch)
        start = now
    assert attached.optimizer.dims == start.numel()
    variance = float(torch.cat(draws).var())
    # chi-square with 5,830 degrees of freedom: relative sd 1.9 %; 7 sd is a false alarm below 10^-10
    assert abs(variance / multiplier**2 - 1) < 0.13


def test_noise_and_batches_do_not_follow_torchs_generator() -> None:
    ends = []
    for _ in range(2):
        torch.manual_seed(7)
        net = model()
        engine = ClientEngine(Clipping(1.0), 1.0, 0.1, 10)
        attached = begin(engine, net)
        honest(attached.model, attached.loader, attached.optimizer, attached.criterion)
        ends.append(torch.cat([p.detach().reshape(-1) for p in net.parameters()]))
    assert not torch.equal(ends[0], ends[1])


def test_adaptive_clip_moves_towards_the_quantile_and_lives_over_rounds() -> None:
    clip = AdaptiveClip(start=100.0, least=1e-3, most=1e3, rate=0.5, count_noise=0.1)
    engine, net = ClientEngine(Clipping(clip), 0.5, 0.1, 10), model()
    clips = []
    for _ in range(4):
        attached = begin(engine, net)
        honest(attached.model, attached.loader, attached.optimizer, attached.criterion)
        engine.finish()
        clips.append(engine.clip or math.inf)
    assert clips[0] < 20  # nobody's gradient is near 100: every step shrinks the clip by up to exp(-1/4)
    assert max(clips[1:]) < 10  # and the next rounds begin where the last one ended
