"""A loop held still: the same random numbers in every batch, no dropout. For comparing gradients, not for training.

Torch's, NumPy's and Python's generators are put back afterwards. What draws once per example from another
source stays random, and the comparison says so.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_DROPOUT = {
    getattr(functional, name)
    for name in (
        "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"
    )
} | {torch.dropout}  # fmt: skip
_NOISE = {
    torch.rand,
    torch.randn,
    torch.rand_like,
    torch.randn_like,
    torch.Tensor.normal_,
    torch.Tensor.uniform_,
}
_HALF = 0.5


class _Still(TorchFunctionMode):
    """Dropout passes everything; noise of any shape is a constant, so that a batch's is its examples'."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = dict(kwargs or {})
        if function in _DROPOUT:
            return args[0] if args else options["input"]
        if function is functional.scaled_dot_product_attention and len(args) < 5:
            options["dropout_p"] = 0.0
        made = function(*args, **options)
        return made.detach().fill_(_HALF).requires_grad_(made.requires_grad) if function in _NOISE else made


@contextmanager
def steady() -> Iterator[Callable[[], None]]:
    """Within it, call what is given before each batch: all generators start again from one point."""

    def again() -> None:
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)

    kept = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    with torch.random.fork_rng(devices=devices), _Still():
        try:
            yield again
        finally:
            random.setstate(kept[0])
            np.random.set_state(kept[1])
