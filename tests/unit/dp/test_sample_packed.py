"""Rows of several examples on one axis: padded to the longest they are told apart, packed one after the other not.

An example of other length shifted the rows of all others, 43 clips, where the sum of lengths happened to divide.
"""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from dp.sample.engine import ClientEngine
from dp.sample.errors import NotPerExample, UnaccountedStep
from dp.sample.options import Clipping

Bag = tuple[torch.Tensor, int]


class Bags(Dataset[Bag]):
    def __init__(self, lengths: Sequence[int]) -> None:
        drawn = torch.Generator().manual_seed(1)
        self.bags = [torch.rand(length, 8, generator=drawn) for length in lengths]

    def __len__(self) -> int:
        return len(self.bags)

    def __getitem__(self, index: int) -> Bag:
        return self.bags[index], index % 2


def packed(items: list[Bag]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    counts = torch.tensor([len(bag) for bag, _ in items])
    owner = torch.repeat_interleave(torch.arange(len(items)), counts)
    return torch.cat([bag for bag, _ in items]), owner, torch.tensor([label for _, label in items])


def padded(items: list[Bag]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """All as long as the longest of the batch, with zeros that count nothing, folded into one axis."""
    x = nn.utils.rnn.pad_sequence([bag for bag, _ in items], batch_first=True)
    owner = torch.repeat_interleave(torch.arange(len(items)), x.shape[1])
    return x.flatten(0, 1), owner, torch.tensor([label for _, label in items])


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(8, 2, bias=False)

    def forward(self, x: torch.Tensor, owner: torch.Tensor, size: int) -> torch.Tensor:
        return torch.zeros(size, 2).index_add(0, owner, self.line(x))


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(5, 2, mode="sum")

    def forward(self, x: torch.Tensor, owner: torch.Tensor, size: int) -> torch.Tensor:
        counts = torch.bincount(owner, minlength=size)
        made: torch.Tensor = self.bag((x[:, 0] * 5).long(), counts.cumsum(0) - counts)
        return made


def trained(net: nn.Module, lengths: Sequence[int], collate: Any, later: Sequence[int] = ()) -> int:
    """One step of all examples, checked before; how many were accounted. later: lengths that the examples have from
    then on.
    """
    data, engine = Bags(lengths), ClientEngine(Clipping(), 1.0, 1.0, 1)
    loader = DataLoader(data, batch_size=len(lengths), collate_fn=collate)
    engine.size(len(lengths))
    at = engine.begin(net, torch.optim.SGD(net.parameters(), lr=0.1), loader, nn.CrossEntropyLoss())

    def loop() -> None:
        for x, owner, y in at.loader:
            at.optimizer.zero_grad()
            at.criterion(at.model(x, owner, len(y)), y).backward()
            at.optimizer.step()

    try:
        with engine.watched():
            engine.probe(loop)
            data.bags = Bags(later).bags if later else data.bags
            loop()
        return engine.finish()
    finally:
        engine.abandon()


ALIKE, LONGER = [4] * 25, [4] * 24 + [4 + 4 * 25]


@pytest.mark.parametrize("at", [0, 5, 24])
@pytest.mark.parametrize("length", [4 + 4 * 25, 104, 3, 1])
def test_one_example_of_another_length_is_refused_where_rows_lie_packed(at: int, length: int) -> None:
    lengths = [4] * 25
    lengths[at] = length
    with pytest.raises(NotPerExample, match=r"line: .*(different numbers of rows on one axis|rows for the)"):
        trained(Pooled(), lengths, packed)


def test_examples_of_one_length_train_and_stay_so() -> None:
    assert trained(Pooled(), ALIKE, packed) == 1
    with pytest.raises(UnaccountedStep, match="different numbers of rows"):
        trained(Pooled(), ALIKE, packed, later=LONGER)


@pytest.mark.parametrize("lengths", [ALIKE, LONGER, [2 + i % 5 for i in range(25)]])
def test_what_is_padded_or_says_whose_a_row_is_trains(lengths: list[int]) -> None:
    assert trained(Pooled(), lengths, padded) == 1
    assert trained(Words(), lengths, packed) == 1
