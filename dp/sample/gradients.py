"""The sum of clipped per-example gradients of one secret batch, as exact integers: what a client gives to a
distributed sum.

No optimizer and no noise here: the model stays as it is, and the integers leave through a layer that adds
the noise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dp.sample import factors, sums
from dp.sample.errors import UnaccountedStep
from dp.sample.loader import PrivateLoader
from dp.sample.validation import validate
from protocols.randomness import SecureRandom


@dataclass
class _Arrivals:
    """Counts what the loader hands out; an empty secret batch adds nothing to the sum."""

    size: int = 0

    def expect(self, size: int, *, first: bool, last: bool) -> None:
        self.size = size

    def empty(self) -> None:
        self.size = 0


def clipped_sum(
    model: nn.Module,
    loss: Callable[[Any, Any], torch.Tensor],
    loader: Any,
    *,
    rate: float,
    clip: float,
    step: float,
    random: SecureRandom,
    reduction: str = "mean",
    physical_batch: int | None = 256,
) -> tuple[dict[str, NDArray[np.int64]], dict[str, float]]:
    """Sum of rint(clipped gradient / step) over a Poisson sample of the loader's examples, by parameter
    name.

    loss: `loss(model, batch)`, the mean (or sum, see `reduction`) over the batch; scaling it wrongly costs
    accuracy, never privacy. Each example's integer vector has L2 norm at most clip / step + sqrt(d) / 2.
    Returns int64 arrays of the parameters' shapes, and private figures (mean loss). Raises
    UnsupportedModule, NonFiniteGradient, Misuse.
    """
    training = model.training
    model.train()
    validate(model)
    named: list[tuple[str, Any]] = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    totals = [torch.zeros(p.numel(), dtype=torch.int64, device=p.device) for _, p in named]
    hooks = factors.FactoredHooks(model, loss_reduction=reduction)
    arrivals, seen, lost = _Arrivals(), 0, 0.0
    try:
        for batch in PrivateLoader(loader, rate, 1, random, arrivals, physical_batch):
            for _, p in named:
                p.grad_sample = None
                p.factors = None
                p.grad = None
            value = loss(model, batch)
            value.backward()  # type: ignore[no-untyped-call]  # torch has not typed it
            lost += float(value.detach()) * (arrivals.size if reduction == "mean" else 1)
            seen += arrivals.size
            _add(named, totals, arrivals.size, clip, step)
    finally:
        hooks.cleanup()
        for _, p in named:
            p.grad = None
            if hasattr(p, "factors"):
                del p.factors
        model.train(training)
    result = {
        name: t.cpu().numpy().reshape(tuple(p.shape)) for (name, p), t in zip(named, totals, strict=True)
    }
    return result, ({"loss": lost / seen} if seen else {})


def _add(
    named: list[tuple[str, Any]], totals: list[torch.Tensor], size: int, clip: float, step: float
) -> None:
    parts = [_part(name, p, size) for name, p in named]
    squares = [factors.squared(part, name) for part, (name, _) in zip(parts, named, strict=True)]
    scale = sums.clip_factors(torch.stack(squares).sum(dim=0), clip)
    for total, part in zip(totals, parts, strict=True):
        total += factors.summed(part, scale, step)


def _part(name: str, p: Any, size: int) -> factors.Part:
    """One parameter's gradients for the batch: rows, or the two factors of a linear layer."""
    if p.factors is not None and len(p.factors[0]) == size:
        d, x = p.factors
        return d, x
    if not isinstance(p.grad_sample, torch.Tensor) or len(p.grad_sample) != size:
        raise UnaccountedStep(
            f"{name} has no gradient for each of the {size} examples drawn: expected loss(model, batch) "
            "to pass the "
            "whole batch through every trainable module once; freeze parameters that it does not use"
        )
    return sums.rows(p.grad_sample)
