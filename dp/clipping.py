"""Bounding what one contribution can weigh: L2 clipping of flat vectors.

Belongs here: clipping whose bound holds in exact arithmetic. Does not belong here:
noise, rounding (`dp.rounding`), the choice of the bound over rounds (adaptive clipping is `dp.client`'s),
per-example gradients (`dp.sample`).

The whole update is one vector, rank 0 included. A bound that holds "up to rounding" is no bound: the scale
factor is made a hair smaller, so that the norm of what comes out is at most the bound for any order of
summation in float64, and for exact rationals.
"""

import logging
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocols.errors import require

Floats = NDArray[np.float64]
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clipped:
    """A clipped vector, the norm it had (rounded up) and whether it was scaled down. The norm is
    private."""

    vector: Floats
    norm: float
    was_clipped: bool

    def __repr__(self) -> str:
        return f"Clipped({self.vector.size} coordinates)"


def l2_norm(vector: Floats) -> float:
    """L2 norm rounded up: at least the exact one, at most (1 + dims 2^-50) of it. No overflow, no
    underflow.

    Raises Misuse for NaN and infinity.
    """
    values = np.asarray(vector, dtype=np.float64).ravel()
    largest = float(np.max(np.abs(values), initial=0.0))
    require(math.isfinite(largest), "finite values", "NaN or infinity; nothing of this vector may be sent")
    if largest == 0:
        return 0.0
    unit = math.ldexp(1.0, min(math.frexp(largest)[1], 1023))
    scaled = values / unit
    # no BLAS, whose threads wait for each other on busy cores for much longer than this takes
    root = math.sqrt(float(np.einsum("i,i->", scaled, scaled)))
    if root * unit >= 1e308:
        return math.inf
    return math.nextafter(root * _margin(values.size) * unit, math.inf)  # up also where numbers are subnormal


def _margin(dims: int) -> float:
    """Relative error of any float64 summation of `dims` squares, with room: 1 + (dims + 8) 2^-52."""
    return 1 + (dims + 8) * 2.0**-52


def clip(vector: Floats, bound: float) -> Clipped:
    """Scale `vector` (float64, any shape; flattened) down to L2 norm `bound` > 0 if it is longer; never up.

    The result's norm is at most `bound` in exact arithmetic and as `numpy.linalg.norm` measures it. A zero
    vector stays zero. Raises Misuse for NaN, infinity and a bound outside [2^-500, 2^500].
    """
    _check_bound(bound)
    values = np.asarray(vector, dtype=np.float64).ravel()
    norm = l2_norm(values)
    if norm * _margin(values.size) <= bound:
        return Clipped(values.copy(), norm, False)
    largest = float(np.max(np.abs(values)))
    small = values / largest  # first to [-1, 1]: the norm itself may not fit a float64
    factor = bound / (l2_norm(small) * _margin(values.size) * (1 + 2.0**-50))
    return Clipped(small * factor, norm, True)


def clip_or_drop(vector: Floats, bound: float, whose: str) -> Clipped:
    """`clip`, but a vector that holds NaN or infinity counts as zero (its norm is infinite).

    Whether one does is private like everything else in it: only the log of the client itself says so, under `whose`.
    """
    values = np.asarray(vector, dtype=np.float64).ravel()
    broken = np.flatnonzero(~np.isfinite(values))
    if not broken.size:
        return clip(values, bound)
    _check_bound(bound)
    _LOG.warning(
        "%s: %d of the update's %d values are NaN or infinite, the first is number %d; the update counts as zero, and "
        "nobody else is told: check the data, the loss and the learning rate",
        *(whose, broken.size, values.size, broken[0]),
    )
    return Clipped(np.zeros_like(values), math.inf, True)


def _check_bound(bound: float) -> None:
    require(2.0**-500 <= bound <= 2.0**500, "a clip norm from 2^-500 to 2^500", bound)
