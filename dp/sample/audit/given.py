"""What a user gives an audit: a loss as a step of a loop, data of any kind as a loader. No checks of gradients here."""

import inspect
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from dp.sample.engine import Attached
from dp.sample.targets import OwnLosses
from protocols.errors import Misuse


class LossStep:
    """A user's loss in a loop: what is called between `zero_grad` and `step`."""

    def __init__(self, loss: Any) -> None:
        self.criterion = nn.CrossEntropyLoss() if loss is None or not hasattr(loss, "reduction") else loss
        self._loss = None if loss is None or hasattr(loss, "reduction") else loss
        takes = [] if self._loss is None else list(inspect.signature(self._loss).parameters)
        self._passes = "criterion" in takes

    def __call__(self, model: Any, batch: Any, criterion: Any) -> Any:
        with OwnLosses():
            if self._loss is None:
                return criterion(model(batch[0]), batch[1])
            return self._loss(model, batch, criterion) if self._passes else self._loss(model, batch)

    def loop(self, attached: Attached) -> None:
        """One pass, as a user writes it."""
        for batch in attached.loader:
            attached.optimizer.zero_grad()
            self(attached.model, batch, attached.criterion).backward()
            attached.optimizer.step()


class Slices(Dataset[Any]):
    """The examples of nested tensors, along their first axis."""

    def __init__(self, batch: Any) -> None:
        self._leaves, self._spec = torch.utils._pytree.tree_flatten(batch)
        sizes = {len(leaf) for leaf in self._leaves if isinstance(leaf, torch.Tensor) and leaf.dim()}
        if len(sizes) != 1:
            raise Misuse(
                f"expected tensors with the examples on their first axis, got lengths {sorted(sizes)}"
            )
        self._size = sizes.pop()

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Any:
        each = [
            leaf[index] if isinstance(leaf, torch.Tensor) and leaf.dim() else leaf for leaf in self._leaves
        ]
        return torch.utils._pytree.tree_unflatten(each, self._spec)


def loader_of(given: Any) -> Any:
    """A DataLoader over what a user calls data: a loader, a data set or a batch. Raises Misuse for anything else."""
    if isinstance(given, DataLoader):
        return given
    data = given if isinstance(given, Dataset) else Slices(given)
    if not hasattr(data, "__len__"):
        raise Misuse("expected a data set with a length and indices, not a stream")
    return DataLoader(data, batch_size=max(1, min(64, len(data))))
