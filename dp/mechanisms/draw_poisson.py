"""The Poisson distribution, P[X = x] = exp(-l) l^x / x!, through the envelope sampler; Skellam noise is
built on it.

The weight of a large mean is taken in the form of Loader ("Fast and accurate computation of binomial
probabilities", 2000): log p(x) = -s(x) - log(2 pi x) / 2 - l h((x - l) / l), with h(u) = (1 + u) log(1 + u)
- u and s the remainder of Stirling's formula, because x log l - log x! cancels to nothing.
"""

import math
from decimal import Decimal
from functools import lru_cache

import numpy as np

from dp.mechanisms.envelope import Envelope, Floats, Integers, Target, build
from protocols.errors import Misuse
from protocols.randomness import SecureRandom

MAX_MEAN = 2.0**48
_SMALL = 1024.0
_HALF_LOG_TWO_PI = Decimal("0.9189385332046727417803297364056176398613974736377834128171515404827656959")
_BERNOULLI = (
    (1, 6), (-1, 30), (1, 42), (-1, 30), (5, 66), (-691, 2730), (7, 6), (-3617, 510), (43867, 798), (-174611, 330),
    (854513, 138), (-236364091, 2730), (8553103, 6),
)  # fmt: skip


def poisson(random: SecureRandom, mean: float, count: int) -> Integers:
    """Return `count` independent draws, int64, each within 2^-101 of the Poisson law of that mean, 2^-20 <=
    mean <= 2^48.

    Raises Misuse outside that range, for NaN and for a negative count.
    """
    if not 2.0**-20 <= mean <= MAX_MEAN:
        raise Misuse(f"expected a Poisson mean from 2^-20 to 2^48, got {mean}; choose another grid step")
    return _envelope(float(mean)).draw(random, count)


@lru_cache(maxsize=64)
def _envelope(mean: float) -> Envelope:
    return build(target(mean))


def target(mean: float) -> Target:
    """The distribution as the envelope sampler wants it; log_weight and exact are relative to the mode.

    Tails (Boucheron, Lugosi and Massart, "Concentration Inequalities", 2013, section 2.2): P[X <= l - t] <=
    exp(-t^2 / (2 l)) and P[X >= l + t] <= exp(-t^2 / (2 (l + t / 3))); each is below 2^-107 here. Error of
    the weight: l h(u) is a difference of terms of size |x - l|, each good to 2^-51 relative; with |x - l|
    <= 12.3 sqrt(l) that is at most 2^-21 at l = 2^48. For means up to 1,024 it is a difference of terms
    below 2^15, each good to 2^-50 relative: 2^-34.
    """
    nats = 107 * math.log(2)
    low = max(0, math.floor(mean - math.sqrt(2 * mean * nats)) - 1)
    high = math.ceil(mean + nats / 3 + math.sqrt(nats * nats / 9 + 2 * mean * nats)) + 1
    mode = math.floor(mean)
    return _small(mean, mode, low, high) if mean <= _SMALL else _large(mean, mode, low, high)


def _small(mean: float, mode: int, low: int, high: int) -> Target:
    factorials = np.array([math.lgamma(x + 1.0) for x in range(high + 2)])

    def log_weight(x: Integers) -> Floats:
        at = np.clip(x, 0, high + 1)
        change = (at - mode) * math.log(mean) - (factorials[at] - factorials[mode])
        return np.where((x < 0) | (x > high + 1), -np.inf, change)

    def exact(x: int) -> Decimal:
        ratio = Decimal(math.factorial(x)) / Decimal(math.factorial(mode))
        return Decimal(mean).ln() * (x - mode) - ratio.ln()

    return Target(mode, low, high, 2.0**-30, log_weight, exact)


def _large(mean: float, mode: int, low: int, high: int) -> Target:
    def shape(x: Integers) -> Floats:
        at = x.astype(np.float64)
        u = (at - mean) / mean
        stirling = 1 / (12 * at) - 1 / (360 * at**3) + 1 / (1260 * at**5)
        return np.asarray(
            -stirling - 0.5 * np.log(at / mean) - mean * ((1 + u) * np.log1p(u) - u), dtype=np.float64
        )

    peak = float(shape(np.array([mode]))[0])

    def log_weight(x: Integers) -> Floats:
        return shape(x) - peak

    def exact(x: int) -> Decimal:
        return Decimal(mean).ln() * (x - mode) - (_log_factorial(x) - _log_factorial(mode))

    return Target(mode, low, high, 2.0**-19, log_weight, exact)


def _log_factorial(x: int) -> Decimal:
    """log x! for x >= 600 by Stirling's series with 13 terms: the remainder is below the first term left
    out, 1e-68."""
    at = Decimal(x)
    series = sum(
        (
            Decimal(p) / (Decimal(q) * 2 * k * (2 * k - 1) * at ** (2 * k - 1))
            for k, (p, q) in enumerate(_BERNOULLI, 1)
        ),
        Decimal(0),
    )
    return (at + Decimal("0.5")) * at.ln() - at + _HALF_LOG_TWO_PI + series
