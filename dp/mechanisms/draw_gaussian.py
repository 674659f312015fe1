"""The discrete Gaussian N_Z(0, s^2): P[X = x] proportional to exp(-x^2 / (2 s^2)) on the integers.

Source: Canonne, Kamath and Steinke, "The Discrete Gaussian for Differential Privacy" (NeurIPS 2020),
Definition 1. The sampler is `dp.mechanisms.envelope`; what belongs here is the weight, its error and where
the tail may be cut.
"""

import math
from decimal import Decimal
from functools import lru_cache

import numpy as np

from dp.mechanisms.envelope import Envelope, Floats, Integers, Target, build
from protocols.errors import Misuse
from protocols.randomness import SecureRandom

MAX_SIGMA = 2.0**40


def discrete_gaussian(random: SecureRandom, sigma: float, count: int) -> Integers:
    """Return `count` independent draws from N_Z(0, sigma^2), int64, within `SAMPLER_DISTANCE` of it each.

    `sigma` is the parameter (for sigma >= 1 the standard deviation, to 1e-7 relative), 2^-6 <= sigma <=
    2^40. Raises Misuse outside that range, for NaN and for a negative count.
    """
    return _envelope(_checked(sigma)).draw(random, count)


def _checked(sigma: float) -> float:
    if not 2.0**-6 <= sigma <= MAX_SIGMA:
        raise Misuse(
            f"expected a standard deviation from 2^-6 to 2^40 grid steps, got {sigma}; choose another grid step"
        )
    return float(sigma)


@lru_cache(maxsize=64)
def _envelope(sigma: float) -> Envelope:
    return build(target(sigma))


def target(sigma: float) -> Target:
    """The distribution as the envelope sampler wants it.

    Tail: P[|X| > t] <= 2 exp(-t^2 / (2 s^2)) (sub-Gaussian: Canonne et al., section 3), and below 2^-105
    at 12.5 s. Error of the weight: x is exact in float64, its square, the product and the division are each
    off by 2^-53 relative, of a value that is at most 2^13 inside the table (at sigma = 2^-6): below 2^-37
    in all.
    """
    reach = math.ceil(12.5 * sigma) + 1

    def log_weight(x: Integers) -> Floats:
        scaled = x.astype(np.float64) / sigma
        return -0.5 * scaled * scaled

    def exact(x: int) -> Decimal:
        ratio = Decimal(x) / Decimal(sigma)
        return -ratio * ratio / 2

    return Target(mode=0, low=-reach, high=reach, error=2.0**-36, log_weight=log_weight, exact=exact)
