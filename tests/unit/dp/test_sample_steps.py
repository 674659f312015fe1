"""One step of a small model, without the check before training, is that of a plain loop over examples: in every mode,
for every kind of module, however the loop differentiates its loss. What the check finds has tests of its own.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from dp.sample import remade
from dp.sample.audit.probe import Probed
from dp.sample.engine import Attached, ClientEngine
from dp.sample.layout import Layout, Layouts
from dp.sample.options import AdaptiveClip, Clipping
from tests.defects.dp.sample_models import SOUND, Case, Model, sequences, vectors
from tests.unit.dp.test_dp_sample_rows import CLIP, line, made, plain

FIRST = (
    "Linear called twice",
    "Linears tied",
    "modules tied",
    "padding",
    "bag, mean",
    "bag, sum, padding",
    "bag, offsets, padding",
    "module in a loop",
    "LSTM",
    "attention",
    "Conv1d",
    "Conv1d, same",
    "Conv2d",
    "Conv3d",
    "weight norm",
    "checkpoint",
    "frozen",
    "dictionary",
)
"""Those of which the examples lie first, so that no check need find them."""
Loss = Callable[[Any, torch.Tensor, torch.Tensor, Any], torch.Tensor]


def mean(model: Any, x: torch.Tensor, y: torch.Tensor, criterion: Any) -> Any:
    return criterion(model(x), y)


def total(model: Any, x: torch.Tensor, y: torch.Tensor, _: Any) -> Any:
    return functional.cross_entropy(model(x), y, reduction="sum")


def begun(
    net: nn.Module,
    data: TensorDataset,
    clipping: Clipping,
    reduction: str = "mean",
    layouts: Layouts | None = None,
) -> tuple[ClientEngine, Attached]:
    """An engine whose every batch is all of the data."""
    engine = ClientEngine(clipping, 1e-5, 1.0, 1)
    engine.size(len(data))
    engine.probed = Probed(layouts or Layouts(), reduction, (), len(data))
    trained = [p for p in net.parameters() if p.requires_grad]
    sgd = torch.optim.SGD(trained, lr=1.0)
    return engine, engine.begin(net, sgd, DataLoader(data, batch_size=4), nn.CrossEntropyLoss())


def stepped(
    net: nn.Module,
    data: TensorDataset,
    clipping: Clipping,
    loss: Loss = mean,
    watched: bool = True,
    **options: Any,
) -> torch.Tensor:
    """What one step over all examples adds up to."""
    engine, at = begun(net, data, clipping, **options)
    trained = [p for p in net.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in trained]
    with engine.watched() if watched else nullcontext():
        for x, y in at.loader:
            at.optimizer.zero_grad()
            loss(at.model, x, y, at.criterion).backward()  # type: ignore[no-untyped-call]  # torch has not typed it
            at.optimizer.step()
    assert engine.finish() == 1
    moved = [((b - p.detach()) * len(data)).reshape(-1) for p, b in zip(trained, before, strict=True)]
    for p, b in zip(trained, before, strict=True):
        p.data.copy_(b)
    return torch.cat(moved)


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return float((one - other).norm()) < 1e-2 * CLIP


@pytest.mark.parametrize("mode", ["hooks", "functorch", "ghost"])
@pytest.mark.parametrize("name", FIRST)
def test_a_step_of_any_module_is_that_of_a_plain_loop(name: str, mode: str) -> None:
    net, data = made(SOUND[name][0]), SOUND[name][1]()
    assert close(stepped(net, data, Clipping(CLIP, gradients=mode)), plain(net, data))


@pytest.mark.parametrize("mode", ["hooks", "functorch", "ew", "ghost"])
def test_a_batch_that_passes_in_parts_is_one_step(mode: str) -> None:
    net, data = made(line), vectors()
    assert close(stepped(net, data, Clipping(CLIP, gradients=mode, physical_batch=5)), plain(net, data))


@pytest.mark.parametrize("name", FIRST)
def test_rows_made_twice_are_those_of_a_plain_loop(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is kept, and one example at a time."""
    monkeypatch.setattr(remade, "KEPT", 0)
    monkeypatch.setattr(remade, "BLOCK", 1)
    net, data = made(SOUND[name][0]), SOUND[name][1]()
    assert close(stepped(net, data, Clipping(CLIP, gradients="ghost")), plain(net, data))


@pytest.mark.parametrize("watched", [True, False])
@pytest.mark.parametrize("loss", [mean, total])
@pytest.mark.parametrize("mode", ["hooks", "functorch", "ew", "ghost"])
def test_a_mean_and_a_sum_of_losses_give_the_same_step(mode: str, loss: Loss, watched: bool) -> None:
    """Whether or not what a loop calls is seen, which multiplies a mean's gradient by the number of examples."""
    net, data = made(line), vectors()
    reduction = "mean" if loss is mean else "sum"
    found = stepped(net, data, Clipping(CLIP, gradients=mode), loss, watched, reduction=reduction)
    assert close(found, plain(net, data))
    loose = stepped(net, data, Clipping(50.0, gradients=mode), loss, watched, reduction=reduction)
    assert torch.allclose(loose, unclipped(net, data), atol=1e-2)


def unclipped(net: nn.Module, data: TensorDataset) -> torch.Tensor:
    """The sum of all examples' gradients."""
    x, y = data.tensors
    grads = torch.autograd.grad(functional.cross_entropy(net(x), y, reduction="sum"), list(net.parameters()))
    return torch.cat([grad.reshape(-1) for grad in grads])


def given(model: Any, x: torch.Tensor, y: torch.Tensor, criterion: Any) -> Any:
    """The gradient that the loop itself gives is multiplied too."""

    class Third:
        def backward(self) -> None:
            loss = criterion(model(x), y) / 3
            torch.autograd.backward(loss, grad_tensors=torch.full_like(loss, 3.0))  # type: ignore[no-untyped-call]

    return Third()


@pytest.mark.parametrize("mode", ["hooks", "ew", "ghost"])
def test_a_gradient_that_the_loop_gives_is_counted(mode: str) -> None:
    net, data = made(line), vectors()
    assert close(stepped(net, data, Clipping(CLIP, gradients=mode), given), plain(net, data))


def thrice() -> nn.Module:
    """One module, time first, examples first, time first."""

    def run(m: Any, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(m.inner(x.transpose(0, 1))).transpose(0, 1)
        h = torch.tanh(m.inner(h)).transpose(0, 1)
        return m.out(torch.tanh(m.inner(h)).mean(0))  # type: ignore[no-any-return]

    return Model(run, inner=nn.Linear(4, 4), out=nn.Linear(4, 3))


LAID: dict[str, tuple[Case, dict[str, list[Layout]]]] = {
    "time first": (SOUND["norm over time"], {"norm": [Layout((1,), 1)], "out": [Layout()]}),
    "folded": (
        SOUND["time folded into the batch"],
        {
            "words": [Layout()],
            "inner": [Layout(folded=True)],
            "norm": [Layout(folded=True)],
            "out": [Layout()],
        },
    ),
    "folded, the example fastest": (
        SOUND["batch folded into time"],
        {
            "words": [Layout((1,), 1)],
            "inner": [Layout(folded=True, inner=True)],
            "norm": [Layout(folded=True, inner=True)],
            "out": [Layout()],
        },
    ),
    "one layout in each call": (
        SOUND["two layouts, as many steps as examples"],
        {"inner": [Layout((1,), 1), Layout()], "out": [Layout()]},
    ),
    "convolution": (
        SOUND["convolution over folded time"],
        {"conv": [Layout(folded=True)], "norm": [Layout(folded=True)], "out": [Layout()]},
    ),
    "as many as calls": (
        (thrice, lambda: sequences(12)),
        {"inner": [Layout((1,), 1), Layout(), Layout((1,), 1)], "out": [Layout()]},
    ),
    "own parameter": (
        SOUND["own parameter, time first"],
        {"scale": [Layout((1,), 1)], "out": [Layout((1,), 1)]},
    ),
}


@pytest.mark.parametrize("mode", ["hooks", "functorch", "ghost"])
@pytest.mark.parametrize(("case", "calls"), LAID.values(), ids=LAID)
def test_rows_are_found_where_the_layout_says(case: Case, calls: dict[str, list[Layout]], mode: str) -> None:
    net, data = made(case[0]), case[1]()
    assert close(stepped(net, data, Clipping(CLIP, gradients=mode), layouts=Layouts(calls)), plain(net, data))


def shared() -> nn.Module:
    """The first layer has the weight of the second one and the bias of the third."""
    first, second, third = (nn.Linear(4, 4) for _ in range(3))
    first.weight, first.bias = second.weight, third.bias
    return nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), third, nn.Linear(4, 3))


@pytest.mark.parametrize("mode", ["hooks", "functorch", "ghost"])
def test_calls_that_share_parameters_with_several_others_add_to_all(mode: str) -> None:
    net, data = made(shared), vectors()
    assert close(stepped(net, data, Clipping(CLIP, gradients=mode)), plain(net, data))


@pytest.mark.parametrize("mode", ["hooks", "functorch", "ew"])
def test_every_tensor_has_its_own_clip(mode: str) -> None:
    clips, net, data = (0.01, 0.02, 0.03, 0.04), made(line), vectors()
    wanted = [torch.zeros_like(p) for p in net.parameters()]
    for x, y in data:
        row = torch.autograd.grad(functional.cross_entropy(net(x[None]), y[None]), list(net.parameters()))
        for total, grad, clip in zip(wanted, row, clips, strict=True):
            total += grad * min(1.0, clip / float(grad.norm()))
    found = stepped(net, data, Clipping(clips, per_layer=True, gradients=mode))
    assert close(found, torch.cat([each.reshape(-1) for each in wanted]))


def rounds(net: nn.Module, data: TensorDataset, clipping: Clipping, many: int) -> Iterator[ClientEngine]:
    engine = ClientEngine(clipping, 1e-3, 1.0, 1)
    engine.size(len(data))
    for _ in range(many):
        sgd = torch.optim.SGD(net.parameters(), lr=1e-2)
        at = engine.begin(net, sgd, DataLoader(data, batch_size=12), nn.CrossEntropyLoss())
        for x, y in at.loader:
            at.criterion(at.model(x), y).backward()
            at.optimizer.step()
        engine.finish()
        yield engine


def test_a_clip_that_follows_a_quantile_goes_where_andrew_says_and_on_from_there() -> None:
    """All 1,200 examples are above the clip, or below it; seven deviations of the count's noise move it by 0.1%."""
    x = torch.randn(1200, 4, generator=torch.Generator().manual_seed(1))
    data = TensorDataset(x, torch.arange(1200) % 3)
    for start, factor in ((1e-3, 0.1), (100.0, -0.1)):
        clip = AdaptiveClip(start=start, rate=0.2, quantile=0.5, count_noise=1e-3, least=1e-4, most=1e3)
        many = [engine.clip for engine in rounds(made(line), data, Clipping(clip), 3)]
        assert many == pytest.approx([start * math.exp(factor * at) for at in (1, 2, 3)], rel=4e-3)


def test_the_steps_of_an_account_are_those_that_were_taken() -> None:
    engine = list(rounds(made(line), vectors(), Clipping(CLIP), 3))[-1]
    assert engine.taken == 3
    assert engine.account.history == [(1e-3, 1.0, 3)]
