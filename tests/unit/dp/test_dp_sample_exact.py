"""One example moves what is released by what is accounted, in every gradient mode: where terms cancel, in crowds of
examples alike, and after many backward passes; coarse number formats are refused. Here are the cases; the audit that
looks for such examples has its own tests.
"""

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from dp.mechanisms.grid import rounded_bound
from dp.sample import remade
from dp.sample.audit.given import LossStep
from dp.sample.audit.per_example import Bench, per_example
from dp.sample.engine import ClientEngine
from dp.sample.errors import NotPerExample, UnaccountedStep, UnsupportedModule
from dp.sample.gradients import clipped_sum, prove
from dp.sample.options import AdaptiveClip, Clipping
from dp.sample.validation import validate
from protocols.randomness import SystemRandom

MODES = ("hooks", "functorch", "ghost")
FEW = 16
COARSE = (torch.bfloat16, torch.float16)
ROUNDED = rounded_bound(1.0, 10_000, 2.0**-21) * 2.0**-21
"""A clip and the rounding of ten thousand coordinates, at the grid of a run without noise (2^-40) and above."""


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def moved(model: nn.Module, loss: Any, mode: str, given: Any, *examples: Any) -> float:
    """Clips by which the sum over `given` moves at most when one of the examples joins it. The check before, which
    tells the loss's reduction and where the examples lie, looks at the first few alone.
    """
    data, few = TensorDataset(*given), TensorDataset(*[part[:FEW] for part in given])
    bench = Bench(model, LossStep(loss), DataLoader(few, batch_size=len(few)), 1.0, ClientEngine)
    probed = bench._checked(mode)
    before, most = bench.summed(mode, probed, data), 0.0
    for example in examples:
        more = TensorDataset(*[torch.cat([a, b[None]]) for a, b in zip(given, example, strict=True)])
        most = max(most, float((bench.summed(mode, probed, more) - before).norm()))
    return most


def pairwise(model: Any, batch: Any, criterion: Any) -> Any:
    """Cross entropy of a score against nought, in float32."""
    score = model(batch[0]).float().reshape(len(batch[0]))
    return criterion(torch.stack([torch.zeros_like(score), score], dim=1), batch[1])


def under(kind: torch.dtype) -> Any:
    """The same, the model under autocast."""

    def loss(model: Any, batch: Any, criterion: Any) -> Any:
        def coarse(x: torch.Tensor) -> Any:
            with torch.autocast("cpu", dtype=kind):
                return model(x)

        return pairwise(coarse, batch, criterion)

    return loss


class Rank(nn.Module):
    """The difference of two items' scores (RankNet): what both have in common cancels in the gradient."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.score = kind()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        score = self.score(x).flatten(2).sum(dim=2)
        return score[:, 1] - score[:, 0]


class Convolved(nn.Conv1d):
    """A convolution of width one over the items."""

    def __init__(self) -> None:
        super().__init__(8, 1, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


KINDS = {"linear": lambda: nn.Linear(8, 1, bias=False), "conv": Convolved}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("offset", [2e4, 5e4, 1e6])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_an_example_whose_terms_cancel_is_clipped(kind: Any, offset: float, mode: str) -> None:
    """A norm from sums of products lost all of it: 59 clips from one example, with a factor of one."""
    torch.manual_seed(0)
    net = Rank(kind)
    way = next(net.parameters()).detach().reshape(-1)
    given = torch.randn(64, 2, 8, generator=seeded(1)), torch.arange(64) % 2
    base, steps = torch.full((8,), offset), [length * way / way.norm() for length in (3.0, 24.0, 59.5)]
    examples = [(torch.stack([base, base + step]), torch.tensor(0)) for step in steps]
    assert moved(net, pairwise, mode, given, *examples) <= ROUNDED


LOSSES: dict[str, Any] = {
    "mean": lambda model, batch: functional.softplus(model(batch[0]) - 3).mean(),
    "cross entropy": lambda model, batch: pairwise(model, batch, nn.CrossEntropyLoss(label_smoothing=0.1)),
    "squares": lambda model, batch: functional.mse_loss(model(batch[0]), batch[1] + 0.3),
    "weighed": lambda model, batch: (
        0.3 * functional.huber_loss(model(batch[0]), batch[1] + 0.3)
        + 0.7 * functional.softplus(model(batch[0]) - 3).sum() / len(batch[1])
    ),
}


@pytest.mark.parametrize("mode", [*MODES, "ew"])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_one_more_in_a_crowd_of_examples_alike_moves_no_other(loss: Any, mode: str) -> None:
    """A mean's gradient divided by 3,994, and then by 3,995, was rounded alike in all rows: where a difference of
    scores magnified that, up to 8 clips, under torch's expanded weights 104."""
    torch.manual_seed(0)
    x, y = torch.rand(2, 8, generator=seeded(1)) + 2e4, torch.tensor(1)
    for many in (998, 3994):
        given = x.expand(many, 2, 8).contiguous(), y.expand(many).contiguous()
        assert moved(Rank(KINDS["linear"]), loss, mode, given, (x, y)) <= 1.02


def test_a_gradient_is_multiplied_for_the_private_model_alone() -> None:
    """A model of the loop's own trains as it would elsewhere."""
    engine, net, other = ClientEngine(Clipping(), 0.0, 1.0, 1), nn.Linear(3, 1), nn.Linear(3, 1)
    engine.size(8)
    x = torch.randn(8, 3, generator=seeded(2))
    at = engine.begin(
        net, torch.optim.SGD(net.parameters(), lr=0.1), DataLoader(TensorDataset(x), batch_size=8)
    )
    with engine.watched():
        for (batch,) in at.loader:
            other(batch).mean().backward()
            at.model(batch).mean().backward()
            at.optimizer.step()
    assert other.weight.grad is not None
    torch.testing.assert_close(other.weight.grad, x.mean(dim=0, keepdim=True))
    engine.abandon()


@pytest.mark.parametrize("mode", [*MODES, "ew"])
@pytest.mark.parametrize("kind", COARSE, ids=str)
def test_gradients_in_few_bits_are_refused_by_name(kind: torch.dtype, mode: str) -> None:
    """Rounded with the number of examples around them: one more in a crowd moved the sum by 22 clips."""
    net = nn.Linear(8, 1, bias=False)
    given = torch.randn(12, 8, generator=seeded(1)), torch.arange(12) % 2
    with pytest.raises(NotPerExample, match=f"linear gives {str(kind)[6:]}.*float32: take torch.autocast"):
        moved(net, under(kind), mode, given, (given[0][0], given[1][0]))
    audit = per_example(net, under(kind), given, gradients=mode, ascent=1, modes=())
    assert not audit.passed
    assert {each.status for each in audit.modes} == {"refused"}


def test_matrix_products_in_fewer_bits_are_refused() -> None:
    given = torch.randn(12, 8, generator=seeded(1)), torch.arange(12) % 2
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with pytest.raises(NotPerExample, match=r"matrix product.*highest"):
            moved(nn.Linear(8, 1), pairwise, "hooks", given, (given[0][0], given[1][0]))
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_distributed_sum_of_gradients_is_as_exact() -> None:
    """The sum that a client gives to DistributedDP(unit="example")."""
    torch.manual_seed(0)
    net, x = Rank(KINDS["linear"]), torch.rand(2, 8, generator=seeded(1)) + 2e4
    near = TensorDataset(torch.randn(16, 2, 8, generator=seeded(2)), torch.ones(16, dtype=torch.int64))
    found = prove(net, LOSSES["squares"], DataLoader(near, batch_size=16))
    sums = []
    for many in (3994, 3995):
        data = TensorDataset(x.expand(many, 2, 8).contiguous(), torch.ones(many, dtype=torch.int64))
        loader = DataLoader(data, batch_size=many)
        options: dict[str, Any] = {"rate": 1.0, "clip": 1.0, "step": 2.0**-20, "random": SystemRandom()}
        made, _ = clipped_sum(net, LOSSES["squares"], loader, probed=found, physical_batch=None, **options)
        sums.append(np.concatenate([each.reshape(-1) for each in made.values()]) * 2.0**-20)
    assert np.linalg.norm(sums[1] - sums[0]) <= 1.02


@pytest.mark.parametrize("mode", [*MODES, "ew"])
@pytest.mark.parametrize("kind", COARSE, ids=str)
def test_a_half_model_is_refused_by_name(kind: torch.dtype, mode: str) -> None:
    """One more example moved such a sum by up to 1.006 clips: gradients of others followed the batch around them."""
    with pytest.raises(UnsupportedModule, match=f"{str(kind)[6:]}.*float32"):
        validate(Rank(KINDS["linear"]).to(kind), mode)
    frozen = nn.Sequential(nn.Linear(4, 4).to(kind).requires_grad_(False), nn.Linear(4, 2))
    validate(frozen, mode)


def released(passes: int, extra: bool, mode: str, kind: type[ClientEngine] = ClientEngine) -> float:
    """Unclipped minus clipped examples, with noise, as the adaptive clip tells it."""
    torch.manual_seed(0)
    net, x = nn.Linear(8, 3), torch.randn(64, 8, generator=seeded(1))
    x = torch.cat([x, torch.full((1, 8), 1e3)]) if extra else x
    y = torch.arange(len(x)) % 3
    clip = AdaptiveClip(start=20.0, count_noise=0.1, least=1e-30, most=1e30)
    engine = kind(Clipping(clip, gradients=mode), 4.0, 1.0, 1)
    engine.size(64)
    data = DataLoader(TensorDataset(x, y), batch_size=64)
    at = engine.begin(net, torch.optim.SGD(net.parameters(), lr=0.1), data, nn.CrossEntropyLoss())
    for batch, labels in at.loader:
        for _ in range(passes):
            at.optimizer.zero_grad()
            at.criterion(at.model(batch), labels).backward()
        at.optimizer.step()
    engine.finish()
    return -math.log((engine.clip or 0.0) / 20.0) / clip.rate * 2 * 64


@pytest.mark.parametrize("mode", [*MODES, "ew"])
def test_unclipped_examples_are_counted_once_however_many_passes_a_loop_makes(mode: str) -> None:
    """The count's noise has a deviation of 12.8, two counts differ by 362 in one of 10^88 runs; fifty times would be
    3,136."""
    one, many = released(1, False, mode), released(50, False, mode)
    assert abs(many - one) < 362
    assert abs(released(50, True, mode) - many) < 363


@cache
def summed(mode: str) -> torch.Tensor:
    """The clipped gradients of twelve examples."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv1d(2, 3, 3, padding=1), nn.Linear(8, 9), nn.LayerNorm(9), nn.Flatten(), nn.Linear(27, 2)
    )
    data = TensorDataset(torch.randn(12, 2, 8, generator=seeded(1)), torch.arange(12) % 2)
    bench = Bench(net, LossStep(None), DataLoader(data, batch_size=12), 0.5, ClientEngine)
    return bench.summed(mode, bench._checked(mode), data)


@pytest.mark.parametrize("kept", [0, 12 * 81, 2**24])
@pytest.mark.parametrize("block", [1, 500, 2**22])
def test_rows_kept_and_made_twice_add_alike(kept: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which rows are kept is a matter of memory: of a convolution with short rows, sequences, a norm, a tied table."""
    kept_at_once = summed("hooks")
    monkeypatch.setattr(remade, "KEPT", kept)
    monkeypatch.setattr(remade, "BLOCK", block)
    assert torch.allclose(kept_at_once, summed.__wrapped__("ghost"), atol=1e-6)


def test_an_input_that_is_written_to_before_the_step_is_refused() -> None:
    """Its rows would be made from what stands there then."""
    net, x = nn.Sequential(nn.Linear(8, 3)), torch.randn(16, 2, 8, generator=seeded(1))
    engine = ClientEngine(Clipping(1.0, gradients="ghost"), 1.0, 1.0, 1)
    engine.size(16)
    data = DataLoader(TensorDataset(x, torch.arange(16) % 3), batch_size=16)
    at = engine.begin(net, torch.optim.SGD(net.parameters(), lr=0.1), data, nn.CrossEntropyLoss())
    for batch, labels in at.loader:
        at.criterion(at.model(batch).sum(dim=1), labels).backward()
        batch.zero_()
        with pytest.raises(UnaccountedStep, match="written to before"):
            at.optimizer.step()
    engine.abandon()
