"""From bounded floats to bounded integers without bias: conditional stochastic rounding, and the norms it
leaves.

Source: Kairouz, Liu and Steinke, "The Distributed Discrete Gaussian Mechanism for Federated Learning with
Secure Aggregation" (ICML 2021), Algorithm 1 and Theorem 1. Does not belong here: clipping, rotation,
noise.
"""

import math

import numpy as np
from numpy.typing import NDArray

from dp.mechanisms.envelope import Integers
from protocols.errors import Misuse
from protocols.randomness import SecureRandom


def conditional_round(
    random: SecureRandom, vector: NDArray[np.float64], bound: float, beta: float
) -> Integers:
    """Round every coordinate up or down, unbiased, again and again until the norm is at most
    `rounded_l2_bound`.

    `vector` (float64, 1-d) is in grid steps and has L2 norm at most `bound`; the result is int64 and its
    norm keeps `rounded_l2_bound(bound, dims, beta)` with probability one. A try fails with probability at
    most `beta`, and the bias that conditioning adds is of that order. Raises Misuse for NaN, infinity and a
    vector whose norm exceeds `bound`.
    """
    limit = rounded_l2_bound(bound, vector.size, beta) ** 2
    if limit >= 2.0**62 or not np.all(np.isfinite(vector)):
        raise Misuse(
            f"expected finite values and a rounded norm below 2^31 steps, got a bound of {bound} steps"
        )
    if float(np.einsum("i,i->", vector, vector)) > (bound * (1 + 2.0**-30)) ** 2:
        raise Misuse(f"expected a vector of norm at most {bound} steps: clip before rounding")
    down = np.floor(vector)
    fraction = vector - down
    base = down.astype(np.int64)
    while True:
        words = np.frombuffer(random.bytes(8 * vector.size), dtype="<u8") >> np.uint64(11)
        rounded = base + (words.astype(np.float64) * 2.0**-53 < fraction)
        if int(np.dot(rounded, rounded)) <= limit:
            return rounded


def dithered_round(random: SecureRandom, vector: NDArray[np.float64]) -> Integers:
    """Round every coordinate down after a uniform shift, unbiased: floor(x + u), u in [0, 1) of 53 bits.

    Under the same u a vector nearby is rounded to this plus the difference, stochastically rounded: floor(x + v + u) -
    floor(x + u) is floor(v) or one more, on average v. `vector` (float64, 1-d) is in grid steps.
    """
    words = np.frombuffer(random.bytes(8 * vector.size), dtype="<u8") >> np.uint64(11)
    # apart from the rest, which a large value would take the last bits of the shift from
    whole = np.floor(vector)
    up = vector - whole + words.astype(np.float64) * 2.0**-53 >= 1
    return whole.astype(np.int64) + up


def rounded_l2_bound(bound: float, dims: int, beta: float) -> float:
    """L2 bound after conditional stochastic rounding of a vector of norm `bound`, both in grid steps.

    min(bound + sqrt(d), sqrt(bound^2 + d/4 + sqrt(2 log(1/beta)) (bound + sqrt(d)/2))), Kairouz, Liu and
    Steinke, Algorithm 1, where 0 < beta < 1 bounds the probability that one rounding is drawn again. Raises
    Misuse for nonsense.
    """
    if not (0 <= bound < math.inf and dims >= 0 and 0 < beta < 1):
        raise Misuse(f"expected bound >= 0, dims >= 0, 0 < beta < 1, got {bound}, {dims}, {beta}")
    root = math.sqrt(dims)
    unlikely = math.sqrt(bound**2 + dims / 4 + math.sqrt(2 * math.log(1 / beta)) * (bound + root / 2))
    return min(bound + root, unlikely) * (1 + 2.0**-40)


def l1_bound(l2: float, dims: int) -> float:
    """L1 bound of an integer vector whose L2 norm is at most `l2`: min(sqrt(d) l2, l2^2), as |x| <= x^2 on
    integers."""
    return min(math.sqrt(dims), l2) * l2
