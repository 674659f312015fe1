"""Secret sampling whose amplification is claimed: who or what takes part, from a cryptographic source.

Belongs here too: how likely a number is chosen with which a round fails.
Sampling from a user's seed belongs elsewhere: nothing private may
rest on it.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.errors import require
from protocols.randomness import SecureRandom

TAIL = 1e-40
"""Sizes this unlikely on either side are not looked at, and count as failing."""


def poisson_sample(random: SecureRandom, size: int, rate: float) -> NDArray[np.int64]:
    """Return the sorted indices out of range(size) that an independent coin of probability `rate` each
    takes.

    The probability used is `rate` rounded down to a multiple of 2^-64, so that what is accounted is never
    too small. Raises Misuse for size < 0 and for a rate outside [0, 1].
    """
    require(size >= 0 and 0 <= rate <= 1, "size >= 0 and a rate in [0, 1]", f"{size} and {rate}")
    if rate == 1:
        return np.arange(size, dtype=np.int64)
    words = np.frombuffer(random.bytes(8 * size), dtype="<u8")
    return np.flatnonzero(words < np.uint64(math.floor(math.ldexp(rate, 64)))).astype(np.int64)


def fixed_sample(random: SecureRandom, size: int, count: int) -> NDArray[np.int64]:
    """Return `count` distinct indices out of range(size), sorted, every subset of that size equally likely.

    The subset is that of the smallest of 128-bit keys; ties (probability below size^2 2^-129) would be
    broken by position. Raises Misuse unless 0 <= count <= size.
    """
    require(0 <= count <= size, "0 <= count <= size", f"{count} of {size}")
    keys = np.frombuffer(random.bytes(16 * size), dtype="<u8").reshape(2, size)
    return np.sort(np.lexsort((keys[1], keys[0]))[:count]).astype(np.int64)


def chance_of_fewer(size: int, rate: float, least: int) -> float:
    """The probability that a Poisson sample of range(size) at `rate` has fewer than `least` members, rounded up.

    The binomial distribution's tail (scipy), plus a relative 1e-9 for its rounding. Raises Misuse for size < 0 and for
    a rate outside [0, 1].
    """
    law = _binomial(size, rate)
    return _rounded_up(law.cdf(least - 1)) if least > 0 else 0.0


def likely_sizes(size: int, rate: float) -> range:
    """The sizes of a Poisson sample between which nearly all of the binomial distribution lies: 1e-40 is left on
    either side at most.
    """
    law, absent = _binomial(size, rate), _binomial(size, 1 - rate)  # isf takes 1 - 1e-40 for 1
    return range(int(law.ppf(TAIL)), size - int(absent.ppf(TAIL)) + 1)


def chance_of(size: int, rate: float, failing: Mapping[int, float]) -> float:
    """The probability of an event whose chance, given the number of members of a Poisson sample of range(size) at
    `rate`, is `failing`, and 1 outside `likely_sizes`; rounded up like `chance_of_fewer`.
    """
    law = _binomial(size, rate)
    chances = law.pmf(list(failing)) * list(failing.values())
    return _rounded_up(float(chances.sum()) + 2 * TAIL)


def _binomial(size: int, rate: float) -> Any:
    require(size >= 0 and 0 <= rate <= 1, "size >= 0 and a rate in [0, 1]", f"{size} and {rate}")
    from scipy.stats import binom

    return binom(size, rate)


def _rounded_up(probability: float) -> float:
    return min(1.0, float(probability) * (1 + 1e-9))
