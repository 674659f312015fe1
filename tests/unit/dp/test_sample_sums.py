"""Sums of clipped gradients are exact integers, and secret batches have Poisson sizes."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from dp.sample.gradients import clipped_sum
from dp.sample.loader import PrivateLoader
from dp.sample.sums import clip_factors, grid_sum, squared_norms
from protocols.errors import Misuse
from protocols.randomness import SystemRandom
from tests.unit.dp.sample_rig import loader, model

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook:UserWarning")


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e30])
def test_an_example_moves_the_integer_sum_by_no_more_than_its_bound(scale: float) -> None:
    gradients = (torch.randn(50, 300, generator=torch.Generator().manual_seed(1)) * scale).float()
    clip, step = 0.7, 2.0**-12
    factors = clip_factors(squared_norms(gradients), clip)
    whole = grid_sum(gradients, factors, step)
    for left_out in range(5):
        keep = torch.arange(50) != left_out
        without = grid_sum(gradients[keep], factors[keep], step)
        moved = float((whole - without).double().norm())
        assert moved <= clip / step + math.sqrt(300) / 2


def test_clipped_sums_agree_with_a_plain_loop_over_examples() -> None:
    net, data = model(), loader()
    named, _ = clipped_sum(
        net, lambda m, b: nn.functional.cross_entropy(m(b[0]), b[1]), data, rate=1.0, clip=0.3, step=2.0**-30,
        random=SystemRandom(),
    )  # fmt: skip
    expected = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
    for x, y in zip(*data.dataset.tensors, strict=True):  # type: ignore[attr-defined]
        net.zero_grad()
        nn.functional.cross_entropy(net(x[None]), y[None]).backward()
        norm = math.sqrt(sum(float(p.grad.double().pow(2).sum()) for p in net.parameters()))  # type: ignore[union-attr]
        for name, p in net.named_parameters():
            expected[name] += p.grad * min(1.0, 0.3 / norm)  # type: ignore[operator]
    for name, total in named.items():
        assert np.allclose(total * 2.0**-30, expected[name].numpy(), atol=1e-4)


def test_examples_whose_gradient_is_not_finite_count_as_zero(caplog: pytest.LogCaptureFixture) -> None:
    net, data = model(), loader()
    with torch.no_grad():
        net[2].weight[0, 0] = math.inf  # type: ignore[index]
    step, random = 2.0**-20, SystemRandom()
    named, _ = clipped_sum(net, _square, data, rate=1.0, clip=1.0, step=step, random=random, whose="ward-1")
    assert not any(total.any() for total in named.values())
    assert f"ward-1: the gradients of {len(data.dataset)} examples held NaN" in caplog.text  # type: ignore[arg-type]


def _square(net: Any, batch: Any) -> torch.Tensor:
    out: torch.Tensor = net(batch[0]).square().mean()
    return out


class _Steps:
    def __init__(self) -> None:
        self.sizes: list[int] = []

    def expect(self, size: int, *, first: bool, last: bool) -> None:
        self.sizes.append(size)

    def empty(self) -> None:
        self.sizes.append(0)


class _Words(Dataset[Any]):
    """A map-style data set that is no TensorDataset and needs the user's own collation."""

    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int) -> tuple[list[int], int]:
        return [index] * 3, index % 2


def _collate(examples: list[Any]) -> dict[str, torch.Tensor]:
    return {"words": torch.tensor([e[0] for e in examples]), "label": torch.tensor([e[1] for e in examples])}


def test_secret_batches_have_poisson_sizes_and_pass_the_users_collation() -> None:
    steps = _Steps()
    batches = PrivateLoader(
        DataLoader(_Words(), collate_fn=_collate), 0.2, 600, SystemRandom(), steps, most=None
    )
    for batch in batches:
        assert batch["words"].shape == (steps.sizes[-1], 3)
        assert len(set(batch["words"][:, 0].tolist())) == steps.sizes[-1]  # nobody twice in a batch
    # 60,000 coins of probability 0.2: sd 98 of 12,000; 7 sd are a false alarm below 10^-11
    assert abs(sum(steps.sizes) - 12_000) < 690
    # variance of binomial(100, 0.2) is 16; sd of the estimate over 600 batches below 1; 7 sd
    assert 9 < float(np.var(steps.sizes)) < 24


def test_streams_without_length_are_refused() -> None:
    class Stream(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(())

    with pytest.raises(Misuse, match="stream"):
        PrivateLoader(DataLoader(Stream()), 0.2, 3, SystemRandom(), _Steps())
