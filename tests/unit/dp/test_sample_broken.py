"""An example whose gradient holds NaN or infinity counts as zero in every gradient mode, and a client without examples
takes its steps: an error, or a name, would tell one example from none outside the price.
"""

import logging
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dp import DistributedDP, SampleDP
from dp.sample.options import AdaptiveClip
from fl import Federation, FedSGD
from protocols.errors import Misuse
from secagg import SecAggPlus

N, DIM = 24, 6
ADAPTIVE = {"gradients": "ghost", "clipping": "adaptive", "clip": AdaptiveClip(start=0.5, count_noise=2.0)}


def data(*bad: int, keep: int = N, value: float = math.nan) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(N, DIM, generator=generator), torch.randint(2, (N,), generator=generator)
    for at in bad:
        x[at] = value
    return TensorDataset(x[:keep], y[:keep])


def train(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
    for x, y in loader:
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()


def federation(clients: list[Any], *privacy: Any, **options: Any) -> Federation:
    def make() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(DIM, 5), nn.Tanh(), nn.Linear(5, 2))

    named = {f"ward-{i}": DataLoader(given, 8) for i, given in enumerate(clients)}
    return Federation(make, named, train=train, privacy=privacy, learning_rate=0.5, **options)


def sampled(**options: Any) -> SampleDP:
    return SampleDP(**{"noise_multiplier": 1e-4, "delta": 1e-5, "batch_size": N, "examples": N} | options)


def moved(run: Federation, rounds: int = 2) -> Any:
    before = run.coordinator.reference().flat.vector
    result = run.fit(rounds)
    assert [entry.abandoned for entry in result.history] == [None] * rounds
    return run.coordinator.reference().flat.vector - before


@pytest.mark.parametrize("mode", ["hooks", "functorch", "ew", "ghost"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_one_broken_example_of_a_batch_counts_as_zero(
    mode: str, value: float, caplog: pytest.LogCaptureFixture
) -> None:
    """All are in every batch: what is learnt is what the others teach."""
    with caplog.at_level(logging.WARNING):
        broken = moved(federation([data(N - 1, value=value)], sampled(gradients=mode)))
    assert [r.getMessage() for r in caplog.records if "gradients of 1 examples held NaN" in r.getMessage()]
    without = moved(federation([data(keep=N - 1)], sampled(gradients=mode)))
    assert broken == pytest.approx(without, abs=1e-4)
    assert abs(broken).max() > 1e-2


@pytest.mark.parametrize("mode", ["hooks", "functorch", "ghost", "example"])
@pytest.mark.parametrize("value", [1e17, 1e20, 1e28, 9.96921e36, 3e38])
def test_a_huge_finite_value_ends_nothing(mode: str, value: float) -> None:
    """Sums of such gradients, or of their squares, overflow: such an example counts as zero too. A linear model lets
    the value into its gradient; a missing value of some file formats is 9.96921e36. All are in every batch.
    """
    by_example = {
        "unit": "example",
        "noise_multiplier": 1.0,
        "delta": 1e-5,
        "sample_rate": 1.0,
        "examples": N,
    }

    def options() -> dict[str, Any]:
        if mode == "example":
            return {"privacy": [DistributedDP(**by_example)], "strategy": FedSGD()}
        return {"privacy": [sampled(noise_multiplier=1.0, gradients=mode)]}

    given = data(value=value)
    given.tensors[0][5, 2] = value

    def linear() -> nn.Module:
        made = nn.Linear(DIM, 2)
        nn.init.zeros_(made.weight)
        return made

    clients = {"ward-0": DataLoader(given, 8), "ward-1": DataLoader(data(), 8)}
    assert np.isfinite(moved(Federation(linear, clients, train=train, **options()), 1)).all()


@pytest.mark.parametrize("options", [{"physical_batch": 5}, {"clipping": "per-layer"}, ADAPTIVE])
def test_broken_examples_at_the_head_of_the_data_end_nothing(options: Any) -> None:
    step = moved(federation([data(0, 1, 7)], sampled(noise_multiplier=0.5, **options)))
    assert np.isfinite(step).all()


@pytest.mark.parametrize("mode", ["hooks", "ghost"])
@pytest.mark.parametrize("none", [data(keep=0), data(*range(N))])
def test_a_client_without_a_finite_example_takes_steps_of_noise_alone(mode: str, none: Any) -> None:
    run = federation([none, data()], sampled(noise_multiplier=1.0, gradients=mode))
    assert (moved(run) != 0).any()
    assert run.account.events[0].facts == run.account.events[1].facts


@pytest.mark.parametrize("mode", ["hooks", "functorch", "ew", "ghost", "example"])
def test_one_more_example_does_not_bring_the_others_in(mode: str) -> None:
    """Every gradient is too large for the check, whose parameters are moved, and is none at the model's own. Such a
    client sat out; with one example more that could be checked all 24 took part, 24 clips apart.
    """

    def linear() -> nn.Module:
        made = nn.Linear(DIM, 1, bias=False)
        nn.init.zeros_(made.weight)
        return made

    def squares(model: Any, batch: Any) -> torch.Tensor:
        return nn.functional.mse_loss(model(batch[0]), batch[1])

    def run(more: int) -> Federation:
        x = torch.cat([torch.full((N, DIM), 1e10), torch.full((more, DIM), 0.1)])
        clients = {"ward-0": DataLoader(TensorDataset(x, torch.ones(len(x), 1)), N)}
        common: dict[str, Any] = {"learning_rate": 1.0, "range": 4.0}
        if mode == "example":
            exact = {"noise_multiplier": 1e-4, "delta": 1e-5, "sample_rate": 1.0, "examples": N}
            layer = DistributedDP(unit="example", min_survivors=1, **exact)  # type: ignore[arg-type]  # numbers
            return Federation(
                linear, clients, privacy=[layer], strategy=FedSGD(lr=1.0), loss=squares, **common
            )
        layers = [sampled(gradients=mode)]
        return Federation(linear, clients, train=train, criterion=nn.MSELoss, privacy=layers, **common)

    steps = [moved(run(more), 1) * N for more in (0, 1)]
    assert np.linalg.norm(steps[1] - steps[0]) < 1.02
    assert np.linalg.norm(steps[0]) > 0.9 * N


def test_without_a_public_number_a_client_without_examples_is_refused_with_the_cure() -> None:
    with pytest.raises(Misuse, match="ward-0 holds no example: leave it out, or give a public number"):
        federation([data(keep=0), data()], sampled(examples=None)).fit(1)


@pytest.mark.parametrize("other", [data(3), data(*range(N)), data(keep=0)])
def test_at_example_level_shares_are_sent_whatever_a_client_holds(other: Any) -> None:
    layer = DistributedDP(noise_multiplier=0.5, delta=1e-5, unit="example", sample_rate=0.9, examples=3 * N)
    run = federation([data(), other, data()], layer, SecAggPlus(dropout=0.0), strategy=FedSGD(), loss=_loss)
    assert (moved(run) != 0).any()


def _loss(model: Any, batch: Any) -> torch.Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])
