"""Per-example gradients do not depend on how activations lie in memory: channels last, or batch last."""

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dp.sample.engine import ClientEngine
from dp.sample.gradients import clipped_sum
from dp.sample.options import Clipping
from protocols.randomness import SystemRandom

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook:UserWarning")
EXAMPLES, CLIP, STEP = 12, 0.05, 2.0**-30
ORDERS = {"channels last": (0, 2, 3, 1), "batch last": (1, 2, 3, 0), "columns first": (0, 1, 3, 2)}


class Laid(nn.Module):
    """Passes values on unchanged, in another order of memory."""

    def __init__(self, order: tuple[int, ...]) -> None:
        super().__init__()
        self.order = order
        self.back = tuple(order.index(axis) for axis in range(4))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.permute(self.order).contiguous().permute(self.back)


def network(order: tuple[int, ...], *, normalised: bool = True) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.Tanh(), Laid(order), nn.Conv2d(3, 4, 3, stride=2), nn.Tanh(), Laid(order),
        nn.GroupNorm(2, 4) if normalised else nn.Tanh(), nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip


def data() -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(EXAMPLES, 1, 8, 8, generator=generator)
    return DataLoader(TensorDataset(images, torch.arange(EXAMPLES) % 3), batch_size=EXAMPLES)


def loss(model: nn.Module, batch: Any) -> torch.Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def expected(net: nn.Module) -> dict[str, torch.Tensor]:
    """Sum of clipped gradients by a plain loop over examples, without hooks."""
    totals = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
    for x, y in zip(*data().dataset.tensors, strict=True):  # type: ignore[attr-defined]
        net.zero_grad()
        loss(net, (x[None], y[None])).backward()  # type: ignore[no-untyped-call]  # torch has not typed it
        grads = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
        norm = math.sqrt(sum(float(g.double().pow(2).sum()) for g in grads.values()))
        assert norm > CLIP
        for name, grad in grads.items():
            totals[name] += grad * (CLIP / norm)
    net.zero_grad(set_to_none=True)
    return totals


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_clipped_sums_are_those_of_a_plain_loop(order: tuple[int, ...]) -> None:
    net = network(order)
    wanted = expected(net)
    named, _ = clipped_sum(net, loss, data(), rate=1.0, clip=CLIP, step=STEP, random=SystemRandom())
    for name, total in named.items():
        assert torch.allclose(torch.from_numpy(total * STEP).float(), wanted[name], atol=1e-4), name


@pytest.mark.parametrize("gradients", ["hooks", "functorch", "ew", "ghost"])
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_a_private_step_is_that_of_a_plain_loop(order: tuple[int, ...], gradients: str) -> None:
    net = network(order, normalised=gradients != "ew")  # torch refuses such layouts there itself
    wanted = expected(net)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    engine = ClientEngine(Clipping(CLIP, gradients=gradients), noise_multiplier=1e-4, rate=1.0, steps=1)
    engine.size(EXAMPLES)
    sgd = torch.optim.SGD(net.parameters(), lr=1.0)
    attached = engine.begin(net, sgd, data(), nn.CrossEntropyLoss())
    for x, y in attached.loader:
        attached.optimizer.zero_grad()
        attached.criterion(attached.model(x), y).backward()
        attached.optimizer.step()
    assert engine.finish() == 1
    for name, p in net.named_parameters():
        moved = (before[name] - p.detach()) * EXAMPLES
        assert torch.allclose(moved, wanted[name], atol=2e-4), name
