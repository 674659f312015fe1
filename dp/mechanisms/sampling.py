"""Secret sampling whose amplification is claimed: who or what takes part, from a cryptographic source.

Belongs here too: how likely too few are chosen. Sampling from a user's seed belongs elsewhere: nothing private may
rest on it.
"""

import math

import numpy as np
from numpy.typing import NDArray

from protocols.errors import Misuse
from protocols.randomness import SecureRandom


def poisson_sample(random: SecureRandom, size: int, rate: float) -> NDArray[np.int64]:
    """Return the sorted indices out of range(size) that an independent coin of probability `rate` each
    takes.

    The probability used is `rate` rounded down to a multiple of 2^-64, so that what is accounted is never
    too small. Raises Misuse for size < 0 and for a rate outside [0, 1].
    """
    if size < 0 or not 0 <= rate <= 1:
        raise Misuse(f"expected size >= 0 and a rate in [0, 1], got {size} and {rate}")
    if rate == 1:
        return np.arange(size, dtype=np.int64)
    words = np.frombuffer(random.bytes(8 * size), dtype="<u8")
    return np.flatnonzero(words < np.uint64(math.floor(math.ldexp(rate, 64)))).astype(np.int64)


def fixed_sample(random: SecureRandom, size: int, count: int) -> NDArray[np.int64]:
    """Return `count` distinct indices out of range(size), sorted, every subset of that size equally likely.

    The subset is that of the smallest of 128-bit keys; ties (probability below size^2 2^-129) would be
    broken by position. Raises Misuse unless 0 <= count <= size.
    """
    if not 0 <= count <= size:
        raise Misuse(f"expected 0 <= count <= size, got {count} of {size}")
    keys = np.frombuffer(random.bytes(16 * size), dtype="<u8").reshape(2, size)
    return np.sort(np.lexsort((keys[1], keys[0]))[:count]).astype(np.int64)


def chance_of_fewer(size: int, rate: float, least: int) -> float:
    """The probability that a Poisson sample of range(size) at `rate` has fewer than `least` members, rounded up.

    The binomial distribution's tail (scipy), plus a relative 1e-9 for its rounding. Raises Misuse for size < 0 and for
    a rate outside [0, 1].
    """
    if size < 0 or not 0 <= rate <= 1:
        raise Misuse(f"expected size >= 0 and a rate in [0, 1], got {size} and {rate}")
    from scipy.stats import binom

    return min(1.0, float(binom.cdf(least - 1, size, rate)) * (1 + 1e-9)) if least > 0 else 0.0
