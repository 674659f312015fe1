"""Losses whose divisor follows the batch: targets that a mean ignores, class weights, values picked by a mask, counts.

Each example's gradient then follows its neighbours. Refused in the step where it happens, before anything of it is
summed. Torch tells every call that a loop makes, by whatever name the loop holds the function; compiled losses and
plain numbers are not seen. What is found before training, whatever the code, belongs to `dp.sample.audit`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from dp.sample.errors import NotPerExample

_CLASSES = {functional.cross_entropy, functional.nll_loss}
_NAMES = ("input", "target", "weight", "size_average", "ignore_index", "reduce", "reduction")
_PICKS = {torch.Tensor.__getitem__, torch.Tensor.masked_select, torch.masked_select}
_COUNTS = {torch.Tensor.sum, torch.sum, torch.Tensor.count_nonzero, torch.count_nonzero}
_DIVIDES = {
    torch.Tensor.__truediv__,
    torch.Tensor.div,
    torch.div,
    torch.Tensor.true_divide,
    torch.true_divide,
}
CURE = '; take reduction="none" and a mean whose divisor is each example\'s own'


class OwnLosses(TorchFunctionMode):
    """Within it a mean over targets of which one is ignored, over unequal class weights, or over values that a mask
    picked, and a division by a count, raise NotPerExample where the divisor follows the batch.

    size: says how many examples are in the batch under way; 0 where nobody knows, and masks and counts pass then.
    """

    def __init__(self, size: Callable[[], int] = lambda: 0) -> None:
        super().__init__()
        self._size, self._marked = size, False

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        if function in _CLASSES:
            _insist(dict(zip(_NAMES, args, strict=False)) | options)
        made = function(*args, **options)
        size = self._size()
        if self._marked or function in _PICKS or function in _COUNTS:
            self._follow(function, args, options, made, size)
        return made

    def _follow(self, function: Any, args: Any, options: Any, made: Any, size: int) -> None:
        """Mark what holds another number of values than the batch, and refuse a mean over it."""
        if not size or not isinstance(made, torch.Tensor):
            return
        ragged = any(hasattr(each, "ragged") for each in args)
        if function in _PICKS:
            self._mark(made, made.dim() > 0 and len(made) % size > 0 and _mask(args[1:], options))
        elif function in _COUNTS:
            self._mark(made, made.dim() == 0 and not made.requires_grad and float(made) % size > 0)
        elif ragged and made.dim() > 0:
            self._mark(made, True)
        elif ragged and not made.requires_grad:  # a count made larger than zero, or of another type
            self._mark(made, float(made) % size > 0)
        elif ragged and (function in _DIVIDES or options.get("reduction", "mean") == "mean"):
            raise NotPerExample(
                {"(the loss)": "a loss divides by how many values of the whole batch count" + CURE}
            )

    def _mark(self, made: Any, ragged: bool) -> None:
        if ragged:
            made.ragged = self._marked = True


def _mask(arguments: Any, options: Any) -> bool:
    leaves = torch.utils._pytree.tree_leaves((arguments, options))
    return any(isinstance(each, torch.Tensor) for each in leaves)


def _insist(named: dict[str, Any]) -> None:
    target, weights = named["target"], named.get("weight")
    if named.get("reduction", "mean") != "mean" or torch.is_floating_point(target):
        return
    if weights is not None and bool((weights != weights.reshape(-1)[0]).any()):
        raise NotPerExample(
            {"(the loss)": "a mean over class weights divides by those of the whole batch" + CURE}
        )
    if bool((target == named.get("ignore_index", -100)).any()):
        reason = "a mean loss met a target with ignore_index: it divides by how many of the whole batch are not ignored"
        raise NotPerExample({"(the loss)": reason + CURE})
