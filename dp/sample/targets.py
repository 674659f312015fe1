"""Targets that a mean loss ignores: it divides by how many count in the whole batch, so that an example's gradient
follows its neighbours. Refused in the step where it happens, before anything of it is summed.

What does not belong here: what is seen before training (`dp.sample.audit`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any

import torch
from torch.nn import functional

from dp.sample.errors import NotPerExample

_LOSSES = ("cross_entropy", "nll_loss")
_REASON = (
    "a mean loss met a target with ignore_index: it divides by how many targets of the whole batch are not ignored; "
    'take reduction="none" and a mean with a divisor of each example\'s own'
)


@contextmanager
def counted_targets() -> Iterator[None]:
    """Within it, `torch.nn.functional.cross_entropy` and `nll_loss` raise NotPerExample for a mean over targets of
    which one is ignored, as do modules that call them. A function that was imported by its own name is not seen.
    """
    originals = {name: getattr(functional, name) for name in _LOSSES}
    for name, original in originals.items():
        setattr(functional, name, wraps(original)(partial(_checked, original)))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(functional, name, original)


def _checked(original: Callable[..., Any], input: Any, target: Any, *args: Any, **options: Any) -> Any:
    names = ("weight", "size_average", "ignore_index", "reduce", "reduction")
    named = dict(zip(names, args, strict=False)) | options
    classes = named.get("reduction", "mean") == "mean" and not torch.is_floating_point(target)
    if classes and bool((target == named.get("ignore_index", -100)).any()):
        raise NotPerExample({"(the loss)": _REASON})
    return original(input, target, *args, **options)
