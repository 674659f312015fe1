"""Several models of one architecture as one module, and how well each of them fits some data.

What does not belong here: who trains which (`fl.strategies.ifca`).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fl.training import pair_of, tensors_of


class Copies(torch.nn.Module):
    """`copies` (a ModuleList) under one state dict. Called with a batch of examples, it lets each be answered by the
    copy that is surest of a class; train and call a copy by itself.
    """

    def __init__(self, copies: Sequence[torch.nn.Module]) -> None:
        super().__init__()
        self.copies = torch.nn.ModuleList(copies)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits = torch.stack([copy(inputs) for copy in self.copies], 1)
        surest = logits.softmax(-1).amax(-1).argmax(1)
        return logits[torch.arange(len(logits)), surest]


@torch.no_grad()
def losses_of(
    model: Copies,
    loader: Any,
    criterion: Callable[..., Any] | None = None,
    device: Any = "cpu",
    loss: Callable[..., Any] | None = None,
) -> NDArray[np.float64] | None:
    """Return each copy's mean loss over a loader's batches (float64 [copies]), None for a loader without examples.

    criterion: of outputs and labels (default: cross entropy). loss: `loss(model, batch)` in its place. A loss that is
    not a number counts as infinite. Raises Misuse for batches that are no (inputs, labels) where there is no `loss`.
    """
    criterion, training = criterion or torch.nn.CrossEntropyLoss(), model.training
    model.eval()
    totals, seen = np.zeros(len(model.copies)), 0
    for batch in loader:
        if loss is None:
            pair = (
                pair_of("loss", batch)
                if isinstance(criterion, torch.nn.CrossEntropyLoss)
                else tensors_of("loss", batch)
            )
            inputs, labels = (part.to(device) for part in pair)
            each, size = [criterion(copy(inputs), labels) for copy in model.copies], len(labels)
        else:
            each, size = [loss(copy, batch) for copy in model.copies], 1
        totals += size * np.array([float(value) for value in each])
        seen += size
    model.train(training)
    return np.nan_to_num(totals / seen, nan=np.inf) if seen else None


def begun_anew(
    model: NDArray[np.float64], chosen: NDArray[np.float64], few: Sequence[int], share: float, seed: int
) -> NDArray[np.float64]:
    """Return a flat model of copies in which those of `few` are the most chosen copy, moved by noise: at the optimum of
    two clusters together, what is worse for the one is better for the other.

    chosen: how many clients took each copy. share: of that copy's root mean square, the noise's deviation.
    """
    copies = model.reshape(len(chosen), -1).copy()
    most = copies[int(np.argmax(chosen))]
    width = share * float(np.sqrt(np.mean(most**2)))
    for c in few:
        copies[c] = most + width * np.random.default_rng([seed, c]).standard_normal(most.size)
    return copies.ravel()
