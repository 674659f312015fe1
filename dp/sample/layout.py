"""Per-example gradients for activations in any memory layout.

Opacus' unfolding of images reads its input through strides that it computes for dense rows. An image in
channels-last order, or any permuted view, is read in the wrong places: the gradients are wrong, and where the
batch is not the outermost stride one example's pixels reach another example's gradient, so that the clip no
longer bounds what one example does. Dense copies of the activations cure both; dense ones are not copied.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch

Sampler = Callable[[Any, list[Any], Any], Any]


def dense(samplers: dict[Any, Sampler]) -> dict[Any, Sampler]:
    """The same samplers, each given contiguous activations and backprops."""
    return {kind: _dense(sampler) for kind, sampler in samplers.items()}


def _dense(sampler: Sampler) -> Sampler:
    @wraps(sampler)
    def call(layer: Any, activations: list[Any], backprops: Any) -> Any:
        return sampler(layer, [_contiguous(each) for each in activations], _contiguous(backprops))

    return call


def _contiguous(value: Any) -> Any:
    return value.contiguous() if isinstance(value, torch.Tensor) else value
