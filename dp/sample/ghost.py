"""The criterion of ghost clipping: two backward passes, the first for norms, the second for the clipped
sum.

Li et al. 2022, section 4, through Opacus' hooks. Only what keeps the clip's bound is allowed on the loss: a
term that reaches the parameters past the hooks (a weight penalty added to the loss) would not be clipped,
and is refused.
"""

from typing import Any

import torch
from opacus.grad_sample import GradSampleHooksFastGradientClipping

from dp.sample.errors import UnclippedLoss
from dp.sample.optimizers import GhostOptimizer


class GhostLoss:
    """The losses of a batch's examples; `backward` clips. Behaves like a scalar for printing and
    scaling."""

    def __init__(
        self, losses: torch.Tensor, hooks: GradSampleHooksFastGradientClipping, optimizer: GhostOptimizer
    ) -> None:
        self._losses, self._hooks, self._optimizer = losses, hooks, optimizer

    def backward(self) -> None:
        """Put the sum of clipped gradients into p.grad, and seal it for the optimizer's check."""
        if not len(self._losses):
            raise UnclippedLoss("expected the losses of at least one example")
        parameters = [p for group in self._optimizer.param_groups for p in group["params"] if p.requires_grad]
        for p in parameters:
            p._norm_sample = None
        self._losses.mean().backward(retain_graph=True)  # type: ignore[no-untyped-call]  # torch has not typed it
        if any(p._norm_sample is None for p in parameters):
            raise UnclippedLoss(
                "a trainable parameter is not reached by the loss, or is used outside its module; ghost "
                "clipping needs both"
            )
        self._optimizer.zero_grad()
        coefficients = self._hooks.get_clipping_coef()
        self._hooks.disable_hooks()
        (coefficients.to(self._losses.device) * self._losses).sum().backward()
        self._hooks.enable_hooks()
        self._optimizer.seal(len(self._losses), self._hooks.per_sample_gradient_norms)

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

    def __init__(
        self, criterion: Any, hooks: GradSampleHooksFastGradientClipping, optimizer: GhostOptimizer
    ) -> None:
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
