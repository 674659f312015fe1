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

from dp.sample.draws import seed_torch

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
DRAWS = ((0, 0.5), (1751, 0.01), (1470, 0.99))
"""Seeds and the constant noise, middling, low and high: code behind a coin (mixup half of the time) runs in one."""


class _Still(TorchFunctionMode):
    """Dropout passes everything; noise of any shape is a constant, so that a batch's is its examples'."""

    level = DRAWS[0][1]

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = dict(kwargs or {})
        if function in _DROPOUT:
            return args[0] if args else options["input"]
        if function is functional.scaled_dot_product_attention and len(args) < 5:
            options["dropout_p"] = 0.0
        made = function(*args, **options)
        return (
            made.detach().fill_(self.level).requires_grad_(made.requires_grad) if function in _NOISE else made
        )


@contextmanager
def steady() -> Iterator[Callable[[int], None]]:
    """Within it, call what is given, with a place in `DRAWS`, before each batch: all generators start again there."""
    still = _Still()

    def again(draw: int) -> None:
        # Gradients are comparable under the same draws alone, so the user's model and loss draw from public seeds here:
        # nothing is trained or released, and a layer's own draws never come from these generators.
        seed, still.level = DRAWS[draw]
        seed_torch(seed)
        random.seed(seed)
        np.random.seed(seed)

    kept = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    with torch.random.fork_rng(devices=devices), still:
        try:
            yield again
        finally:
            random.setstate(kept[0])
            np.random.set_state(kept[1])
