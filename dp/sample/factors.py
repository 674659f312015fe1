"""Per-example gradients of linear layers as outer products, never written out.

For one input vector per example the gradient of a linear layer's weight is d x^T, with d the gradient at
the output. Its norm is |d| |x|, and its rounded sum can be built entry by entry: less memory than the
gradient itself, the same exact integers (Goodfellow 2015; Bu et al. 2022). Products of two float32 are
exact in float64. Who makes the factors belongs to `hooks`.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch

from dp.sample import sums
from dp.sample.remade import Again, LookedUp

Part = torch.Tensor | tuple[torch.Tensor, torch.Tensor] | LookedUp | Again
"""One parameter's per-example gradients: rows (n, k), the factors (d, x) of a linear layer's weight, or what `remade`
has."""


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


def squared(part: Part) -> torch.Tensor:
    """Squared norm of each example's gradient, float64 (n,)."""
    if isinstance(part, LookedUp | Again):
        return part.squared()
    return squared_norms(*part) if isinstance(part, tuple) else sums.squared_norms(part).cpu()


def counted(parts: list[Part], squares: list[torch.Tensor]) -> tuple[list[Part], list[torch.Tensor], int]:
    """All parameters' gradients and squared norms in which an example counts as zero whose gradient holds NaN or
    infinity anywhere or is longer than `sums.LARGEST`, and how many those are: their number is as private as they are,
    and no reason to stop.
    """
    broken = ~(torch.stack([s.cpu() for s in squares]).sum(dim=0) <= sums.LARGEST**2)  # true of NaN
    lost = int(broken.sum())
    if not lost:
        return parts, squares, 0
    return (
        [without(part, broken) for part in parts],
        [s.masked_fill(broken.to(s.device), 0.0) for s in squares],
        lost,
    )


def without(part: Part, broken: torch.Tensor) -> Part:
    """A parameter's gradients with zero for the examples that `broken` (n,) marks."""
    if isinstance(part, LookedUp | Again):
        return part.without(broken)
    if isinstance(part, tuple):
        d, x = (f.masked_fill(broken[:, None].to(f.device), 0.0) for f in part)
        return d, x
    return part.masked_fill(broken[:, None].to(part.device), 0.0)


def summed(part: Part, scale: torch.Tensor, step: float) -> torch.Tensor:
    """Sum over examples of rint(scale x gradient / step), int64 (k,), exact."""
    if isinstance(part, LookedUp | Again):
        return part.summed(scale, step)
    return grid_sum(*part, scale, step) if isinstance(part, tuple) else sums.grid_sum(part, scale, step)


def plain_sum(part: Part) -> torch.Tensor:
    """The unclipped sum of all examples' gradients, float32 (k,), to compare with autograd's."""
    if isinstance(part, LookedUp | Again):
        return part.plain_sum().float()
    if isinstance(part, tuple):
        return (part[0].T @ part[1]).reshape(-1)
    return part.sum(dim=0).float()


def part_of(p: Any) -> Part | None:
    """What a parameter holds, or None for nothing fresh."""
    held: Part | None = getattr(p, "factors", None)
    if held is not None:
        return held
    rows = getattr(p, "grad_sample", None)
    return sums.rows(rows) if isinstance(rows, torch.Tensor) else None


def written_out(part: Part) -> torch.Tensor:
    """Rows (n, k), factors multiplied out."""
    if isinstance(part, LookedUp | Again):
        return part.rows().flatten(1)
    if isinstance(part, tuple):
        return torch.einsum("no,ni->noi", *part).flatten(1)
    return part


def count(part: Part) -> int:
    """How many examples' gradients these are."""
    return len(part[0]) if isinstance(part, tuple) else len(part)


@cache
def _kernel() -> Callable[..., Any]:
    import numba  # half a second: only who trains pays for it

    def outer(d: Any, x: Any, out: Any) -> None:
        for row in range(d.shape[1]):  # one row of the sum stays in the first-level cache
            for i in range(d.shape[0]):
                factor = d[i, row]
                for j in range(x.shape[1]):
                    out[row, j] += np.int64(np.rint(factor * x[i, j]))

    compiled: Callable[..., Any] = numba.njit(cache=True, nogil=True)(outer)
    return compiled
