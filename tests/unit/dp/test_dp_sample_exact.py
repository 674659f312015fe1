"""One example moves what is released by what is accounted, in every gradient mode: where terms cancel, in coarse number
formats, and after many backward passes. Here are the cases; the audit that looks for such examples has its own tests.
"""

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dp.mechanisms.grid import rounded_bound
from dp.sample import remade
from dp.sample.audit.given import LossStep
from dp.sample.audit.per_example import Bench
from dp.sample.engine import ClientEngine
from dp.sample.errors import UnaccountedStep, UnsupportedModule
from dp.sample.options import AdaptiveClip, Clipping
from dp.sample.validation import validate

MODES = ("hooks", "functorch", "ghost")
COARSE = (torch.bfloat16, torch.float16)
ROUNDED = rounded_bound(1.0, 10_000, 2.0**-21) * 2.0**-21
"""A clip and the rounding of ten thousand coordinates, at the grid of a run without noise (2^-40) and above."""


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def moved(model: nn.Module, loss: Any, mode: str, given: Any, example: Any) -> float:
    """Clips by which the sum over `given` moves when `example` joins it."""
    data = TensorDataset(*given)
    more = TensorDataset(*[torch.cat([a, b[None]]) for a, b in zip(given, example, strict=True)])
    bench = Bench(model, LossStep(loss), DataLoader(data, batch_size=len(data)), 1.0, ClientEngine)
    probed = bench._checked(mode)
    return float((bench.summed(mode, probed, more) - bench.summed(mode, probed, data)).norm())


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
    for length in (3.0, 24.0, 59.5):
        base = torch.full((8,), offset)
        example = torch.stack([base, base + length * way / way.norm()]), torch.tensor(0)
        assert moved(net, pairwise, mode, given, example) <= ROUNDED


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", COARSE, ids=str)
@pytest.mark.parametrize("many", [256, 512, 1028])
def test_many_examples_alike_under_autocast_add_exactly(many: int, kind: torch.dtype, mode: str) -> None:
    """A sum in eight bits: one more example moved it by eight clips."""
    net = nn.Linear(8, 1, bias=False)
    nn.init.zeros_(net.weight)
    x, y = torch.zeros(many, 8), torch.zeros(many, dtype=torch.int64)
    x[:, 0] = 4 + torch.rand(many, generator=seeded(1))
    assert moved(net, under(kind), mode, (x, y), (x[0], y[0])) <= ROUNDED


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


@pytest.mark.parametrize("kept", [0, 12 * 81, 2**24])
@pytest.mark.parametrize("block", [1, 500, 2**22])
def test_rows_kept_and_made_twice_add_alike(kept: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which rows are kept is a matter of memory: of a convolution with short rows, sequences, a norm, a tied table."""
    sums = {}
    for mode in ("hooks", "ghost"):
        monkeypatch.undo()
        monkeypatch.setattr(remade, "KEPT", kept)
        monkeypatch.setattr(remade, "BLOCK", block)
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv1d(2, 3, 3, padding=1), nn.Linear(8, 9), nn.LayerNorm(9), nn.Flatten(), nn.Linear(27, 2)
        )
        data = TensorDataset(torch.randn(12, 2, 8, generator=seeded(1)), torch.arange(12) % 2)
        bench = Bench(net, LossStep(None), DataLoader(data, batch_size=12), 0.5, ClientEngine)
        sums[mode] = bench.summed(mode, bench._checked(mode), data)
    assert torch.allclose(sums["hooks"], sums["ghost"], atol=1e-6)


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
