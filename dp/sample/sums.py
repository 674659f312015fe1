"""Clipped sums of per-example gradients, exactly: every example is rounded to an integer grid before it is
added.

Sums of floats depend on their order, so that one example more or less moves the rounding of all others, and
no bound on what one example changes can be proved. Here an example contributes rint(c g / step), whose norm
is at most clip / step + sqrt(d) / 2, and integers add exactly. Noise does not belong here.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch

Tensor = torch.Tensor
LARGEST = 2.0**50
"""The longest gradient of an example that counts; a longer one counts as zero, like one that is not finite: sums of
its float32 coordinates, or of their squares, could overflow, and the checks of a step could not tell why.
"""


def rows(gradients: Tensor) -> Tensor:
    """Per-example gradients (n, ...) as a contiguous (n, k) float32 or float64 tensor; n may be 0."""
    wide = gradients.detach()
    if wide.dtype not in (torch.float32, torch.float64):
        wide = wide.float()
    return wide.reshape(len(wide), math.prod(wide.shape[1:])).contiguous()


def squared_norms(gradients: Tensor) -> Tensor:
    """Squared L2 norm of each row of (n, k), float64 (n,): not finite where a value is not, or is too large."""
    if gradients.device.type == "cpu":
        out = np.zeros(len(gradients))
        _kernels()[0](gradients.numpy(), out)
        return torch.from_numpy(out)
    return gradients.double().pow(2).sum(dim=1)


def clip_factors(squared: Tensor, clip: float) -> Tensor:
    """min(1, clip / norm) for each example, float64; 1 for a zero gradient: nothing is divided by zero."""
    norms = squared.sqrt()
    return torch.where(
        norms > clip, clip / norms.clamp(min=torch.finfo(torch.float64).tiny), torch.ones_like(norms)
    )


def grid_sum(gradients: Tensor, factors: Tensor, step: float) -> Tensor:
    """Sum over examples of rint(factor * gradient / step): (n, k) and (n,) to int64 (k,), exact."""
    scaled = factors.to(torch.float64) / step
    if gradients.device.type == "cpu":
        out = np.zeros(gradients.shape[1], dtype=np.int64)
        _kernels()[1](gradients.numpy(), scaled.cpu().numpy(), out)
        return torch.from_numpy(out)
    total = torch.zeros(gradients.shape[1], dtype=torch.int64, device=gradients.device)
    scaled = scaled.to(gradients.device)
    for at in range(0, len(gradients), 64):
        part, factor = gradients[at : at + 64], scaled[at : at + 64]
        total += torch.round(part.double() * factor[:, None]).to(torch.int64).sum(dim=0)
    return total


@cache
def _kernels() -> tuple[Callable[..., Any], Callable[..., Any]]:
    import numba  # half a second: only who trains pays for it

    def norms(values: Any, out: Any) -> None:
        for i in range(values.shape[0]):
            # parts, or the sum of a billion squares is off by 10^-8
            for at in range(0, values.shape[1], 4096):
                total = 0.0
                for j in range(at, min(at + 4096, values.shape[1])):
                    value = np.float64(values[i, j])
                    total += value * value
                out[i] += total

    def sums(values: Any, factors: Any, out: Any) -> None:
        for i in range(values.shape[0]):
            factor = factors[i]
            for j in range(values.shape[1]):
                out[j] += np.int64(np.rint(np.float64(values[i, j]) * factor))

    # Re-association lets the norm's sum run in vector registers; NaN and infinity keep their meaning.
    return numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})(norms), numba.njit(
        cache=True, nogil=True
    )(sums)
