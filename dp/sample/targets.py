"""What follows the number of examples in a batch: divisors of losses, and the rounding of gradients by it.

A mean over targets that are not ignored, class weights, values that a mask picked or a count makes each example's
gradient follow its neighbours: refused in the step where it happens, before anything of it is summed. A mean's gradient
is divided by the number of examples, and rounded there: alike for all rows, so that one example more moves them all,
by as much as what cancels later magnifies. Here it is multiplied by that number first, and rounded never. Torch tells
every call that a loop makes, by whatever name the loop holds the function; compiled losses and plain numbers are not
seen. What is found before training, whatever the code, belongs to `dp.sample.audit`.
"""

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from dp.sample.draws import insist_unseeded
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
_BACKWARD = {torch.Tensor.backward: "gradient", torch.autograd.backward: "grad_tensors"}
_TOTALS = {torch.Tensor.mean, torch.mean, torch.Tensor.sum, torch.sum}
HALF = {torch.float16, torch.bfloat16}
COARSE = (
    "{0} gives {1}: gradients of so few bits are rounded by how many examples are around them, alike for all that look "
    "alike, and one more moved them by 22 clips. Train in float32: take torch.autocast out of the loop, and give a "
    'frozen part in half precision .float(); torch.set_float32_matmul_precision("highest") and '
    "torch.backends.cudnn.allow_tf32 = False keep matrix products so"
)
CURE = '; take reduction="none" and a mean whose divisor is each example\'s own'


class OwnLosses(TorchFunctionMode):
    """Within it a mean over targets of which one is ignored, over unequal class weights, or over values that a mask
    picked, and a division by a count, raise NotPerExample where the divisor follows the batch; so does any gradient in
    fewer bits than float32. Means and sums of losses are taken in float64, with the same values.

    size: says how many examples are in the batch under way; 0 where nobody knows, and masks and counts pass then.
    times: told a loss that is differentiated, says what its gradient is multiplied by. seed: torch's, where its
    generator must not be seeded: UnaccountedStep then, at the first call after.
    """

    def __init__(
        self,
        size: Callable[[], int] = lambda: 0,
        times: Callable[[torch.Tensor], int] = lambda loss: 1,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self._size, self._times, self._seed, self._marked = size, times, seed, False

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        if self._seed is not None:
            insist_unseeded(self._seed)
        if function in _CLASSES:
            _insist(dict(zip(_NAMES, args, strict=False)) | options)
        if function in _BACKWARD:
            return function(*args, **self._multiplied(args[0], _BACKWARD[function], options))
        made = _total(function, args, options)
        insist_wide(getattr(function, "__name__", "the loss"), made)
        size = self._size()
        if self._marked or function in _PICKS or function in _COUNTS:
            self._follow(function, args, options, made, size)
        return made

    def _multiplied(self, loss: Any, name: str, options: dict[str, Any]) -> dict[str, Any]:
        """What a loss is differentiated with: from the number of examples down, which a mean divides exactly."""
        given = options.get(name)
        if isinstance(loss, tuple) and len(loss) == 1:  # as torch.autograd.backward tells it
            loss, given = loss[0], given[0] if isinstance(given, list | tuple) else given
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            return options
        _insist_exact(loss.device.type)
        times = self._times(loss)
        if times == 1:
            return options
        return options | {name: torch.full_like(loss, times) if given is None else given * times}

    def _follow(self, function: Any, args: Any, options: Any, made: Any, size: int) -> None:
        """Mark what holds another number of values than the batch, and refuse a mean over it."""
        if not size or not isinstance(made, torch.Tensor):
            return
        ragged = any(hasattr(each, "ragged") for each in args)
        if function in _PICKS:
            by = ragged or tensors_in((args[1:], options))
            self._mark(made, made.dim() > 0 and len(made) % size > 0 and bool(by))
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


def insist_wide(name: str, made: Any) -> None:
    """Raises NotPerExample for a tensor with gradients in fewer bits than float32."""
    if isinstance(made, torch.Tensor) and made.dtype in HALF and made.requires_grad:
        raise NotPerExample({"(the loop)": COARSE.format(name, str(made.dtype)[6:])})


def _insist_exact(device: str) -> None:
    """Raises NotPerExample where matrix products of float32 are made in fewer bits."""
    short = torch.get_float32_matmul_precision() != "highest"
    if short or (device == "cuda" and torch.backends.cudnn.allow_tf32):
        raise NotPerExample({"(the loop)": COARSE.format("a matrix product or convolution", "fewer bits")})


def _total(function: Any, args: Any, options: Any) -> Any:
    """What the function gives; a mean or sum of losses in float64, so that weights on it are rounded by no count."""
    if function in _TOTALS and len(args) == 1 and not options and _counts(args[0]):
        return function(*args, dtype=torch.float64)
    if not (names := _reduces(function)):
        return function(*args, **options)
    named = dict(zip(names, args, strict=False)) | options
    weighed = function in _CLASSES and named.get("weight") is not None
    legacy = named.get("size_average") is not None or named.get("reduce") is not None
    if weighed or legacy or named.get("reduction", "mean") != "mean":
        return function(*args, **options)
    each = function(**(named | {"reduction": "none"}))
    return each.mean(dtype=torch.float64) if _counts(each) else each.mean()


def _counts(losses: Any) -> bool:
    return bool(losses.requires_grad) and losses.dtype == torch.float32 and losses.device.type != "mps"


@cache
def _reduces(function: Any) -> tuple[str, ...]:
    """The arguments' names of a loss whose mean is that of its values, one by one."""
    if getattr(function, "__module__", "") != functional.__name__ or function is functional.ctc_loss:
        return ()
    names = tuple(inspect.signature(function).parameters)
    return names if "reduction" in names else ()


def tensors_in(given: Any) -> list[torch.Tensor]:
    """The tensors among what a function is called with, in order."""
    return [leaf for leaf in torch.utils._pytree.tree_leaves(given) if isinstance(leaf, torch.Tensor)]


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
