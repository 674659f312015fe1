"""What a user's own loop and loader may do beside the private steps: each thing that would release something of the
data without a clip and noise is refused, with the cure."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler, TensorDataset
from torch.utils.data import SubsetRandomSampler as Subset

from dp import DistributedDP, SampleDP
from fl import Federation, FedSGD
from protocols.errors import Misuse

COUNT = 32
DATA = TensorDataset(
    torch.randn(COUNT, 4, generator=torch.Generator().manual_seed(0)), torch.arange(COUNT) % 2
)
Z: dict[str, Any] = {"noise_multiplier": 2.0, "delta": 1e-5}


def layer(**options: Any) -> SampleDP:
    return SampleDP(**(Z | {"batch_size": 8, "examples": COUNT} | options))


def once(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
    for x, y in loader:
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()


def run(train: Callable[..., Any] = once, loader: Any = None, **options: Any) -> Federation:
    clients = {"a": loader or DataLoader(DATA, batch_size=8)}
    return Federation(lambda: nn.Linear(4, 2), clients, train=train, **({"privacy": [layer()]} | options))


class Draws(DataLoader[Any]):
    """Serves the first half only."""

    def __iter__(self) -> Any:
        yield from list(super().__iter__())[:2]


FOREIGN = {
    "a batch sampler over a part": lambda: DataLoader(
        DATA, batch_sampler=BatchSampler(Subset(range(8)), 4, drop_last=False)
    ),
    "a batch sampler of one's own": lambda: DataLoader(DATA, batch_sampler=[[0, 1], [2, 3]]),
    "a sampler over a part": lambda: DataLoader(DATA, 4, sampler=SequentialSampler(range(8))),
    "with replacement": lambda: DataLoader(DATA, 4, sampler=RandomSampler(DATA, replacement=True)),
    "a number of samples": lambda: DataLoader(DATA, 4, sampler=RandomSampler(DATA, num_samples=8)),
    "no batches": lambda: DataLoader(DATA, batch_size=None),
    "an iteration of its own": lambda: Draws(DATA, batch_size=8),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_loader_that_draws_its_own_way_is_refused(name: str) -> None:
    """Behind a batch sampler each client trained on everybody's examples, and each example was priced once."""
    with pytest.raises(Misuse, match="draws by its own"):
        run(loader=FOREIGN[name]()).fit(1)
    summed = DistributedDP(**Z, unit="example", sample_rate=0.5, examples=COUNT)
    with pytest.raises(Misuse, match="draws by its own"):
        run(loader=FOREIGN[name](), privacy=[summed], strategy=FedSGD()).fit(1)


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(DATA, batch_size=8, shuffle=True, drop_last=True),
        DataLoader(DATA, batch_sampler=BatchSampler(RandomSampler(DATA), 8, drop_last=False)),
    ],
)
def test_torchs_own_ways_over_the_whole_data_set_train(loader: Any) -> None:
    assert run(loader=loader).fit(1).epsilon


@pytest.mark.parametrize("name", ["dataset", "sampler", "batch_sampler", "collate_fn"])
def test_the_loop_sees_batches_alone(name: str) -> None:
    """A second model trained on `loader.dataset` and distilled, class weights, a mean of inputs: all in the clear."""

    def reads(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
        assert len(loader) == 4
        getattr(loader, name)
        once(model, loader, optimizer, criterion)

    with pytest.raises(Misuse, match=f"loader.{name}: the loop sees secret batches alone"):
        run(reads).fit(1)
