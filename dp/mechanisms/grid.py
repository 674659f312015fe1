"""Noise that lives on an integer grid: what a trusted server or a client's own loop adds before it releases
floats.

Floating-point noise leaks through its low bits (Mironov, CCS 2012). Here a value is rounded to a multiple
of a public step, the noise is a whole number of steps, and both are added as integers; the product with the
step comes last and is post-processing. Rounding moves every coordinate by at most half a step:
`rounded_bound` is the norm that is accounted.
"""

import math

import numpy as np
from numpy.typing import NDArray

from dp.mechanisms.draw_gaussian import discrete_gaussian
from dp.mechanisms.envelope import Integers
from protocols.errors import Misuse, require
from protocols.randomness import SecureRandom

LIMIT = 2**62


def to_grid(values: NDArray[np.float64], step: float) -> Integers:
    """Return the nearest multiples of `step`, as counts of steps, int64 of the same shape.

    Raises Misuse for NaN, infinity, step <= 0 and values beyond 2^62 steps: nothing wraps.
    """
    require(0 < step < math.inf, "a grid step > 0", step)
    counts = np.rint(np.asarray(values, dtype=np.float64) / step)
    if not np.all(np.abs(counts) < LIMIT):
        raise Misuse(f"a value is not finite or exceeds 2^62 steps of {step}; choose a larger step")
    return counts.astype(np.int64)


def rounded_bound(bound: float, dims: int, step: float) -> float:
    """L2 bound, in steps, on `to_grid` of a vector of `dims` coordinates whose L2 norm is at most `bound`.

    bound / step + sqrt(dims) / 2, the triangle inequality, with probability one; with a margin for float64
    arithmetic.
    """
    if not (bound >= 0 and dims >= 0 and step > 0):
        raise Misuse(f"expected bound >= 0, dims >= 0, step > 0, got {bound}, {dims}, {step}")
    return (bound / step + math.sqrt(dims) / 2) * (1 + 2.0**-30)


def grid_noise(random: SecureRandom, sigma: float, step: float, count: int) -> Integers:
    """Return `count` draws, in steps, of discrete Gaussian noise whose standard deviation is `sigma` in the
    values' unit.

    Raises Misuse where sigma / step is outside the sampler's range: below 2^-6 steps or above 2^40.
    """
    require(0 < step < math.inf, "a grid step > 0", step)
    return discrete_gaussian(random, sigma / step, count)


def noise_step(sigma: float, resolution: int = 20) -> float:
    """A power of two near sigma / 2^resolution: fine enough that rounding costs nothing, exact in every
    float width."""
    require(0 < sigma < math.inf, "sigma > 0", sigma)
    return math.ldexp(1.0, math.floor(math.log2(sigma)) - resolution)
