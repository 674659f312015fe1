"""The criterion of ghost clipping: two backward passes, the first for norms, the second for the clipped
sum.

Li et al. 2022, section 4, through `hooks`. Only what keeps the clip's bound is allowed on the loss: a
term that reaches the parameters past the hooks (a weight penalty added to the loss) would not be clipped,
and is refused.
"""

import math
from typing import Any

import torch

from dp.sample import factors, sums
from dp.sample.audit.compare import weights
from dp.sample.errors import UnaccountedStep, UnclippedLoss
from dp.sample.hooks import RowHooks
from dp.sample.optimizers import GhostOptimizer


class GhostLoss:
    """The losses of a batch's examples; `backward` clips. Behaves like a scalar for printing and
    scaling."""

    def __init__(self, losses: torch.Tensor, hooks: RowHooks, optimizer: GhostOptimizer) -> None:
        self._losses, self._hooks, self._optimizer = losses, hooks, optimizer

    def backward(self) -> None:
        """Put the sum of clipped gradients into p.grad, and seal it for the optimizer's check."""
        losses = self._by_example()
        if not self._hooks.enabled:  # a reference of the check before training
            losses.mean().backward()  # type: ignore[no-untyped-call]  # torch has not typed it
            self._optimizer.seal(len(losses))
            return
        losses.mean().backward(retain_graph=True)  # type: ignore[no-untyped-call]  # torch has not typed it
        probe = self._optimizer.probe
        parameters = [p for group in self._optimizer.param_groups for p in group["params"] if p.requires_grad]
        try:
            norms = self._hooks.example_norms(parameters, lenient=probe is not None)
        except UnaccountedStep as error:
            raise UnclippedLoss(str(error)) from error
        broken = ~(norms <= sums.LARGEST)  # true of NaN
        if probe is None and bool(broken.any()):
            norms = norms.masked_fill(broken, 0.0)
            self._optimizer.lost += int(broken.sum())
        elif probe is None and not self._optimizer.guard.accounted:  # a round's first step
            self._check(losses, parameters, norms)
        for p in parameters:
            p.grad = None
        clip = float(self._optimizer.max_grad_norm)
        coefficients = sums.clip_factors(norms.double() ** 2, clip) if probe is None else weights(len(norms))
        if probe is None and bool(broken.any()):
            self._by_rows((coefficients.to(losses) * losses).sum(), parameters, broken)
        else:
            self._hooks.enabled = False
            (coefficients.to(losses) * losses).sum().backward()  # type: ignore[no-untyped-call]  # as above
            self._hooks.enabled = True
        self._optimizer.seal(len(losses), norms if probe is None else None)

    def _by_rows(self, weighted: torch.Tensor, parameters: list[Any], broken: torch.Tensor) -> None:
        """The weighted sum from rows, without the examples that `broken` marks: zero times NaN is NaN, so autograd's
        own sum cannot leave them out. Takes the memory of rows, for such a batch alone."""
        hooks, reduction = self._hooks, self._hooks.reduction
        hooks.clear()
        hooks.norms, hooks.reduction = False, "sum"
        try:
            weighted.backward()  # type: ignore[no-untyped-call]  # torch has not typed it
            for p in parameters:
                part = factors.part_of(p)
                p.grad = None
                if part is not None:
                    p.grad = factors.plain_sum(factors.without(part, broken)).to(p).reshape(p.shape)
        finally:
            hooks.norms, hooks.reduction = True, reduction
            hooks.clear()

    def _check(self, losses: torch.Tensor, parameters: list[torch.Tensor], norms: torch.Tensor) -> None:
        """The first example's norm beside autograd's own."""
        self._hooks.enabled = False
        exact = torch.autograd.grad(losses[0], parameters, retain_graph=True, allow_unused=True)
        self._hooks.enabled = True
        wanted = math.sqrt(sum(float(g.double().pow(2).sum()) for g in exact if g is not None))
        if not abs(float(norms[0]) - wanted) <= 1e-2 * wanted + 1e-6:
            raise UnclippedLoss(
                f"an example's gradient has norm {wanted:.4g}, ghost clipping found {float(norms[0]):.4g}: a parameter "
                "is used outside its module, or the examples' axis is not the first; ClientEngine.probe(loop) before "
                "the loop (SampleDP does it) names the parameter"
            )

    def _by_example(self) -> torch.Tensor:
        """One loss for each example drawn: a loss for every token, say, is averaged over the example's."""
        each, left = divmod(len(self._losses), max(1, self._hooks.size))
        if left or not each:
            raise UnaccountedStep(
                f"the criterion gave {len(self._losses)} losses for the {self._hooks.size} examples drawn: take "
                "examples from the given loader only, and give the criterion the whole batch"
            )
        return self._losses.reshape(-1, each).mean(dim=1)

    def item(self) -> float:
        """The mean loss as a float; private, not noised."""
        return float(self._losses.detach().mean())

    def detach(self) -> torch.Tensor:
        """The mean loss, cut from the graph; private, not noised."""
        return self._losses.detach().mean()

    def __float__(self) -> float:
        return self.item()

    def __mul__(self, factor: float) -> "GhostLoss":
        return self._with(self._losses * _number(factor))

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> "GhostLoss":
        return self._with(self._losses / _number(divisor))

    def __add__(self, other: Any) -> "GhostLoss":
        if isinstance(other, GhostLoss):
            return self._with(self._losses + other._losses)
        return self._with(self._losses + _number(other))

    __radd__ = __add__

    def _with(self, losses: torch.Tensor) -> "GhostLoss":
        return GhostLoss(losses, self._hooks, self._optimizer)

    def __repr__(self) -> str:
        return f"GhostLoss({len(self._losses)} examples)"


def _number(value: Any) -> float:
    if isinstance(value, torch.Tensor) and (value.requires_grad or value.numel() != 1):
        raise UnclippedLoss(
            "expected a plain number beside the private loss: a tensor that depends on parameters would "
            "reach them unclipped; "
            "put weight decay into the optimizer instead"
        )
    return float(value)


class GhostCriterion:
    """The user's criterion, called for one loss per example. The criterion must have a `reduction`
    attribute, as torch's do."""

    def __init__(self, criterion: Any, hooks: RowHooks, optimizer: GhostOptimizer) -> None:
        if not hasattr(criterion, "reduction"):
            raise UnclippedLoss(
                f"ghost clipping needs a criterion with a reduction attribute, as torch.nn's losses "
                f"have, got {type(criterion).__name__}"
            )
        self.criterion, self._hooks, self._optimizer = criterion, hooks, optimizer

    def __call__(self, *arguments: Any, **options: Any) -> GhostLoss:
        before = self.criterion.reduction
        self.criterion.reduction = "none"
        try:
            losses = self.criterion(*arguments, **options)
        finally:
            self.criterion.reduction = before
        return GhostLoss(losses.reshape(len(losses), -1).mean(dim=1), self._hooks, self._optimizer)
