"""Every parameter's rows are those of the drawn examples, in every mode and layout, or the parameter is named.

One step of the user's loop after the check before training, beside a plain loop over examples; and the
movement of the sum when one example is removed, in clips.
"""

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Subset, TensorDataset

from dp.sample.engine import ClientEngine
from dp.sample.errors import NotPerExample, UnaccountedStep
from dp.sample.gradients import clipped_sum, prove
from dp.sample.options import Clipping
from protocols.errors import Misuse
from protocols.randomness import SystemRandom
from tests.defects.dp.sample_models import (
    REFUSED,
    SOUND,
    Case,
    centred,
    functional_tie,
    time_first,
    tokens,
    vectors,
)

CLIP = 0.05
MODES = ("hooks", "functorch", "ew", "ghost")
Loss = Callable[[Any, Any, Any, Any], torch.Tensor]


def made(factory: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(3)
    return factory()


def by_criterion(model: Any, x: Any, y: Any, criterion: Any) -> Any:
    return criterion(model(x), y)


def stepped(
    net: Any, data: Any, mode: str = "hooks", loss: Loss = by_criterion, after: Callable[[Any], object] = id
) -> torch.Tensor:
    """What one step over all examples adds up to, without noise to speak of."""
    trained = [p for p in net.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in trained]
    engine = ClientEngine(Clipping(CLIP, gradients=mode), 1e-5, 1.0, 1)
    engine.size(len(data))
    given = DataLoader(data, batch_size=len(data))
    at = engine.begin(net, torch.optim.SGD(trained, lr=1.0), given, nn.CrossEntropyLoss())

    def loop() -> None:
        for x, y in at.loader:
            at.optimizer.zero_grad()
            loss(at.model, x, y, at.criterion).backward()
            at.optimizer.step()

    try:
        engine.probe(loop)
        # the check leaves no trace
        assert all(torch.equal(p, b) for p, b in zip(trained, before, strict=True))
        after(net)
        loop()
        assert engine.finish() == 1
        return torch.cat(
            [((b - p.detach()) * len(data)).reshape(-1) for p, b in zip(trained, before, strict=True)]
        )
    finally:
        engine.abandon()
        for p, b in zip(trained, before, strict=True):
            p.data.copy_(b)


def plain(net: nn.Module, data: Any) -> torch.Tensor:
    """The same by a loop over single examples, without hooks."""
    trained = [p for p in net.parameters() if p.requires_grad]
    total = torch.zeros(sum(p.numel() for p in trained))
    for x, y in data:
        row = torch.autograd.grad(functional.cross_entropy(net(x[None]), y[None]), trained)
        flat = torch.cat([g.reshape(-1) for g in row])
        total += flat * min(1.0, CLIP / float(flat.norm()))
    return total


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", SOUND.values(), ids=SOUND)
def test_a_step_is_that_of_a_plain_loop(case: Case, mode: str) -> None:
    net, data = made(case[0]), case[1]()
    # torch's expanded weights know few layouts: what they do not know is named, with the cure
    if mode == "ew":
        try:
            found = stepped(net, data, mode)
        except Misuse as refused:
            assert 'gradients="hooks"' in str(refused) or isinstance(refused, NotPerExample)  # noqa: PT017
            return
    else:
        found = stepped(net, data, mode)
    assert float((found - plain(net, data)).norm()) < 1e-2 * CLIP


@pytest.mark.parametrize("mode", ["hooks", "functorch", "ghost"])
@pytest.mark.parametrize(
    "name", ["time first", "two layouts, as many steps as examples", "padding", "Linears tied"]
)
def test_an_example_moves_the_sum_by_one_clip(name: str, mode: str) -> None:
    net, data = made(SOUND[name][0]), SOUND[name][1]()
    whole = stepped(net, data, mode)
    for left_out in (0, 5, 11):
        kept = Subset(data, [at for at in range(len(data)) if at != left_out])
        assert float((whole - stepped(net, kept, mode)).norm()) < 1.01 * CLIP


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_has_no_rows_of_its_examples_is_refused_by_name(case: Any, mode: str) -> None:
    net, data = made(case[0]), case[1]()
    if mode == "ew" and case[0] is functional_tie:  # torch's expanded weights see functions of a weight too
        assert float((stepped(net, data, mode) - plain(net, data)).norm()) < 1e-2 * CLIP
        return
    with pytest.raises(Misuse, match=case[2] if mode != "ew" else None):
        stepped(net, data, mode)


def summed(model: Any, x: Any, y: Any, _: Any) -> Any:
    return functional.cross_entropy(model(x), y, reduction="sum")


def contrastive(model: Any, x: Any, _y: Any, _c: Any) -> Any:
    h = model(x)
    return functional.cross_entropy(h @ h.T, torch.arange(len(h)))


def shuffled(model: Any, x: Any, y: Any, _: Any) -> Any:
    order = torch.randperm(len(x))
    return functional.cross_entropy(model(0.5 * (x + x[order])), y)


def noisy(model: Any, x: Any, y: Any, _: Any) -> Any:
    return functional.cross_entropy(model(functional.dropout(x + torch.randn_like(x), 0.5)), y)


def by_halves(model: Any, x: Any, y: Any, _: Any) -> Any:
    """Every example twice, as augmentation does."""
    return functional.cross_entropy(model(torch.cat([x, x + 1])), torch.cat([y, y]))


def line() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


@pytest.mark.parametrize("mode", ["hooks", "functorch", "ew"])
def test_a_loss_that_adds_up_is_found_and_scaled_as_one(mode: str) -> None:
    net = made(line)
    assert float((stepped(net, vectors(), mode, summed) - plain(net, vectors())).norm()) < 1e-2 * CLIP


@pytest.mark.parametrize("loss", [contrastive, shuffled])
def test_a_loss_that_mixes_examples_is_refused(loss: Loss) -> None:
    with pytest.raises(NotPerExample, match="changes with the others of its batch"):
        stepped(made(line), vectors(), "hooks", loss)


COINS = {"random": random.random, "numpy": np.random.rand, "torch": lambda: float(torch.rand(1))}


@pytest.mark.parametrize("above", [False, True])
@pytest.mark.parametrize("coin", COINS.values(), ids=COINS)
def test_mixing_that_follows_a_coin_is_refused(coin: Callable[[], float], above: bool) -> None:
    def mixed_up(model: Any, x: Any, y: Any, criterion: Any) -> Any:
        if (coin() > 0.6) if above else (coin() < 0.4):
            x = (x + x.flip(0)) / 2
        return criterion(model(x), y)

    with pytest.raises(NotPerExample, match="changes with the others"):
        stepped(made(lambda: nn.Linear(4, 3)), vectors(), loss=mixed_up)


@pytest.mark.parametrize("mode", ["hooks", "functorch", "ew"])
def test_a_mean_over_class_weights_is_refused_whatever_classes_the_check_sees(mode: str) -> None:
    """The check takes examples at equal distances, which all had one class: it saw no mixing."""
    data, weights = vectors(), torch.tensor([1.0, 1.0, 50.0])
    alike = TensorDataset(torch.stack([x for x, _ in data]), torch.zeros(len(data), dtype=torch.int64))

    def loss(model: Any, x: Any, y: Any, _: Any, weight: torch.Tensor = weights) -> Any:
        return functional.cross_entropy(model(x), y, weight=weight)

    with pytest.raises(NotPerExample, match="class weights"):
        stepped(made(lambda: nn.Linear(4, 3)), alike, mode, loss)
    stepped(made(lambda: nn.Linear(4, 3)), alike, mode, partial(loss, weight=torch.ones(3)))


@pytest.mark.parametrize("loss", [noisy, by_halves])
def test_noise_and_copies_in_the_loop_are_no_mixing(loss: Loss) -> None:
    net, data = made(line), vectors()
    whole, most = stepped(net, data, "hooks", by_halves), 1.01 * CLIP
    without = stepped(net, Subset(data, range(1, len(data))), "hooks", by_halves)
    assert float((whole - without).norm()) < most
    stepped(net, data, "hooks", loss)


def halved(model: Any, x: Any, y: Any, criterion: Any) -> Any:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return criterion(model(x), y)


@pytest.mark.parametrize("mode", ["hooks", "functorch", "ghost", "ew"])
def test_coarser_numbers_in_the_loop_are_refused(mode: str) -> None:
    with pytest.raises(NotPerExample, match="bfloat16"):
        stepped(made(line), vectors(), mode, halved)


@pytest.mark.parametrize("mode", ["hooks", "functorch", "ew"])
def test_what_a_loop_does_to_gradients_afterwards_is_no_mixing(mode: str) -> None:
    """Clipping `p.grad` by itself, as many loops do, changes nothing that is private."""
    net = made(line)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    engine = ClientEngine(Clipping(CLIP, gradients=mode), 1.0, 1.0, 2)
    engine.size(12)
    at = engine.begin(net, optimizer, DataLoader(vectors(), batch_size=12))

    def loop() -> None:
        for x, y in at.loader:
            at.optimizer.zero_grad()
            functional.cross_entropy(at.model(x), y).backward()
            if any(p.grad is not None for p in net.parameters()):
                nn.utils.clip_grad_norm_(net.parameters(), 1e-3)
            at.optimizer.step()

    engine.probe(loop)
    loop()
    assert engine.finish() == 2


def test_padding_to_the_longest_example_is_refused() -> None:
    """A mean over padded time: the longest example of a batch changes every other one's gradient."""
    lengths = [3 + at % 5 for at in range(12)]
    texts = [(torch.arange(1, n + 1), torch.tensor(n % 3)) for n in lengths]

    def collate(examples: list[Any]) -> list[torch.Tensor]:
        rows = nn.utils.rnn.pad_sequence([x for x, _ in examples], batch_first=True)
        return [rows, torch.stack([y for _, y in examples])]

    net = made(SOUND["padding"][0])
    engine = ClientEngine(Clipping(CLIP), 1e-5, 1.0, 1)
    engine.size(12)
    given: Any = DataLoader(texts, batch_size=12, collate_fn=collate)  # type: ignore[arg-type]  # a list has both
    at = engine.begin(net, torch.optim.SGD(net.parameters(), lr=1.0), given)

    def loop() -> None:
        for x, y in at.loader:
            at.optimizer.zero_grad()
            functional.cross_entropy(at.model(x), y).backward()
            at.optimizer.step()

    with pytest.raises(NotPerExample, match="padding to the longest"):
        engine.probe(loop)


class Sly(nn.Module):
    """Uses a weight twice, once behind the module's back, when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.held, self.sly = line(), False

    def forward(self, x: torch.Tensor) -> Any:
        h = self.held(x)
        return h + functional.linear(x, self.held[0].weight)[:, :3] if self.sly else h  # type: ignore[index]


@pytest.mark.parametrize("mode", ["hooks", "functorch", "ghost"])
def test_a_use_that_appears_after_the_check_is_refused_in_its_step(mode: str) -> None:
    with pytest.raises(UnaccountedStep, match="outside"):
        stepped(made(Sly), vectors(), mode, after=lambda net: setattr(net, "sly", True))


def one_step(at: Any) -> None:
    for x, y in at.loader:
        at.criterion(at.model(x), y).backward()
        at.optimizer.step()


@pytest.mark.parametrize("gradients", ["hooks", "functorch", "ghost"])
def test_an_engine_without_a_probe_refuses_what_it_cannot_tell(gradients: str) -> None:
    """Used by itself: as many time steps as examples, time first; another number of steps is never taken either."""
    for data in (tokens(12), tokens(9)):
        net, engine = made(time_first), ClientEngine(Clipping(CLIP, gradients=gradients), 1e-5, 1.0, 1)
        engine.size(12)
        given = DataLoader(data, batch_size=12)
        at = engine.begin(net, torch.optim.SGD(net.parameters(), lr=1.0), given, nn.CrossEntropyLoss())
        with pytest.raises(UnaccountedStep):
            one_step(at)


def loss_of(model: Any, batch: Any) -> torch.Tensor:
    return functional.cross_entropy(model(batch[0]), batch[1])


def test_sums_for_a_distributed_layer_are_checked_the_same_way() -> None:
    net, data = made(time_first), tokens(12)
    given = DataLoader(data, batch_size=12)
    found = prove(net, loss_of, given)
    named, _ = clipped_sum(
        net, loss_of, given, rate=1.0, clip=CLIP, step=2.0**-30, random=SystemRandom(), probed=found
    )
    total = torch.cat([torch.from_numpy(t * 2.0**-30).reshape(-1) for t in named.values()]).float()
    assert float((total - plain(net, data)).norm()) < 1e-2 * CLIP
    with pytest.raises(NotPerExample, match=r"inner\.weight"):
        prove(made(centred), loss_of, DataLoader(vectors(), batch_size=12))
