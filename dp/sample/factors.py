"""Per-example gradients of linear layers as outer products, never written out.

For one input vector per example the gradient of a linear layer's weight is d x^T, with d the gradient at
the output. Its norm is |d| |x|, and its rounded sum can be built entry by entry: less memory than the
gradient itself, the same exact integers (Goodfellow 2015; Bu et al. 2022). Products of two float32 are
exact in float64. Everything else stays with Opacus' hooks.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from opacus.grad_sample import GradSampleHooks
from torch import nn

from dp.sample import layout, sums
from dp.sample.errors import UnaccountedStep

Part = torch.Tensor | tuple[torch.Tensor, torch.Tensor]
"""One parameter's per-example gradients: rows (n, k), or the factors (d, x) of a linear layer's weight."""


class FactoredHooks(GradSampleHooks):  # type: ignore[misc]  # Opacus ships no types
    """Opacus' hooks, but a plain nn.Linear that saw one vector per example leaves `weight.factors = (d,
    x)`."""

    GRAD_SAMPLERS = layout.dense(GradSampleHooks.GRAD_SAMPLERS)

    def capture_backprops_hook(
        self, module: Any, _forward_input: Any, forward_output: Any, loss_reduction: str, batch_first: bool
    ) -> None:
        if not self.hooks_enabled or not _factors_well(module):
            super().capture_backprops_hook(
                module, _forward_input, forward_output, loss_reduction, batch_first
            )
            return
        activations, backprops = self.rearrange_grad_samples(
            module=module,
            backprops=forward_output[0].detach(),
            loss_reduction=loss_reduction,
            batch_first=batch_first,
        )
        if module.weight.requires_grad and getattr(module.weight, "factors", None) is not None:
            raise UnaccountedStep(
                "two backward passes in one batch: call optimizer.step() and zero_grad() after each"
            )
        d, x = backprops.float().contiguous(), activations[0].float().contiguous()
        if module.weight.requires_grad:
            module.weight.factors = (d, x)
            module.weight._forward_counter -= 1
        if module.bias is not None and module.bias.requires_grad:
            module.bias.grad_sample = d
            module.bias._forward_counter -= 1
        if hasattr(module, "max_batch_len"):
            del module.max_batch_len


def _factors_well(module: nn.Module) -> bool:
    seen = getattr(module, "activations", [])
    return (
        type(module) is nn.Linear
        and len(seen) == 1
        and seen[0][0].dim() == 2
        and seen[0][0].device.type == "cpu"
        and module.weight.dtype in (torch.float32, torch.float16, torch.bfloat16)
        and all(getattr(p, "_forward_counter", 0) in (0, 1) for p in module.parameters())
    )


def squared_norms(d: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """|d|^2 |x|^2 for each row, float64 (n,)."""
    squared: torch.Tensor = d.double().pow(2).sum(dim=1) * x.double().pow(2).sum(dim=1)
    return squared


def grid_sum(d: torch.Tensor, x: torch.Tensor, factors: torch.Tensor, step: float) -> torch.Tensor:
    """Sum over examples of rint(factor d x^T / step): (n, o), (n, i) and (n,) to int64 (o i,), exact."""
    out = np.zeros((d.shape[1], x.shape[1]), dtype=np.int64)
    scaled = d.double() * (factors.to(torch.float64) / step)[:, None]
    _kernel()(scaled.numpy(), x.double().numpy(), out)
    return torch.from_numpy(out.reshape(-1))


def squared(part: Part, name: str) -> torch.Tensor:
    """Squared norm of each example's gradient, float64 (n,). Raises NonFiniteGradient naming the
    parameter."""
    if isinstance(part, tuple):
        return sums.finite(squared_norms(*part), name)
    return sums.squared_norms(part, name).cpu()


def summed(part: Part, scale: torch.Tensor, step: float) -> torch.Tensor:
    """Sum over examples of rint(scale x gradient / step), int64 (k,), exact."""
    return grid_sum(*part, scale, step) if isinstance(part, tuple) else sums.grid_sum(part, scale, step)


def examples(p: Any) -> int:
    """How many examples' gradients a parameter holds; 0 for none."""
    if getattr(p, "factors", None) is not None:
        return len(p.factors[0])
    rows = getattr(p, "grad_sample", None)
    return len(rows) if isinstance(rows, torch.Tensor) else 0


@cache
def _kernel() -> Callable[..., Any]:
    import numba  # half a second: only who trains pays for it

    def outer(d: Any, x: Any, out: Any) -> None:
        for row in range(d.shape[1]):  # one row of the sum stays in the first-level cache
            for i in range(d.shape[0]):
                factor = d[i, row]
                for j in range(x.shape[1]):
                    out[row, j] += np.int64(np.rint(factor * x[i, j]))

    compiled: Callable[..., Any] = numba.njit(nogil=True)(outer)
    return compiled
