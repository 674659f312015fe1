"""What a loop draws beside rows of single examples: no seed that can be found, none that the loop sets.

A seed of 32 bits is found by trying them all: one example more then showed in every mask.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dp import DistributedDP, SampleDP
from dp.sample.draws import Worker
from dp.sample.errors import UnaccountedStep
from fl import Federation, FedSGD
from fl.seeds import seeded

Words = list[int]


def words() -> tuple[Words, Words, Words]:
    """Of the three generators."""
    numpy_state: Any = np.random.get_state()
    return (
        torch.get_rng_state().view(torch.int64)[3:627].tolist(),
        numpy_state[1].tolist(),
        list(random.getstate()[1][:624]),
    )


def from_a_seed(found: Words) -> bool:
    """Whether each word follows from the one before, as after a seed of 32 bits (Matsumoto and Nishimura's)."""
    return all(
        (1812433253 * (found[i - 1] ^ found[i - 1] >> 30) + i) & 0xFFFFFFFF == found[i] for i in range(1, 20)
    )


def test_whole_states_are_secret_and_put_back() -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    before = words()
    assert from_a_seed(before[0])
    assert from_a_seed(before[1])
    drawn = []
    for _ in range(2):
        with seeded(None):
            now = words()
            assert not any(map(from_a_seed, now))
            assert not {w for each in before for w in each} >= set(now[0])
            drawn += [torch.rand(64), torch.from_numpy(np.random.random(64)).float()]
            drawn.append(torch.tensor([random.random() for _ in range(64)]))
    assert all(0.2 < float(each.mean()) < 0.8 for each in drawn)  # 8 sd
    assert len({tuple(each.tolist()) for each in drawn}) == 6
    assert words() == before


def test_a_loaders_workers_draw_from_whole_states_too() -> None:
    called: list[int] = []
    with torch.random.fork_rng(), seeded(0):
        Worker(called.append)(3)
        assert not any(map(from_a_seed, words()))
    assert called == [3]


def dropping() -> nn.Module:
    return nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 2))


def data() -> DataLoader[Any]:
    x = torch.randn(40, 8, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(x, torch.arange(40) % 2), batch_size=20)


@contextmanager
def forked() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@contextmanager
def stated() -> Iterator[None]:
    torch.set_rng_state(torch.Generator().manual_seed(0).get_state())
    yield


@pytest.mark.parametrize("seeds", [forked, stated])
@pytest.mark.parametrize("whole", [True, False])
def test_a_loop_that_seeds_torch_is_refused_wherever_it_does(seeds: Any, whole: bool) -> None:
    """Within fork_rng the seed was put back before anybody looked."""

    def train(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
        with seeds() if whole else nullcontext():
            for x, y in loader:
                optimizer.zero_grad()
                with nullcontext() if whole else seeds():
                    made = model(x)
                criterion(made, y).backward()
                optimizer.step()

    def honest(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
        for x, y in loader:
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()

    def loss(model: Any, batch: Any) -> torch.Tensor:
        with seeds():
            made = model(batch[0])
        return nn.functional.cross_entropy(made, batch[1])

    shares = DistributedDP(noise_multiplier=1.0, delta=1e-5, unit="example", sample_rate=1.0, examples=80)
    sample = SampleDP(noise_multiplier=1.0, delta=1e-5)
    runs: list[tuple[Any, dict[str, Any]]] = [
        (sample, {"train": train}),
        (shares, {"strategy": FedSGD(), "loss": loss}),
    ]
    for layer, given in runs:
        with pytest.raises(UnaccountedStep, match="the loop seeds torch's generator"):
            Federation(dropping, {"a": data(), "b": data()}, privacy=[layer], metrics=(), **given).fit(1)
    plain = SampleDP(noise_multiplier=1.0, delta=1e-5)
    Federation(dropping, {"a": data()}, honest, privacy=[plain], metrics=()).fit(1)
