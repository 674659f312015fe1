"""The exact privacy of one Gaussian mechanism: how much noise one release needs, and what a given noise
gives.

Source: Balle and Wang, "Improving the Gaussian Mechanism for Differential Privacy" (ICML 2018), Theorem 8.
The classical formula sigma = sqrt(2 log(1.25 / delta)) / epsilon holds for epsilon < 1 only and is not
offered.
"""

import math

from protocols.errors import Misuse


def analytic_gaussian_delta(sigma: float, epsilon: float) -> float:
    """The least delta of a Gaussian mechanism with noise `sigma` per unit of L2 sensitivity at `epsilon` >=
    0.

    Raises Misuse for sigma <= 0, epsilon < 0 and what is not finite.
    """
    if not (0 < sigma < math.inf and 0 <= epsilon < math.inf):
        raise Misuse(f"expected sigma > 0 and epsilon >= 0, got {sigma} and {epsilon}")
    from scipy.special import log_ndtr

    first = float(log_ndtr(0.5 / sigma - epsilon * sigma))
    second = float(log_ndtr(-0.5 / sigma - epsilon * sigma)) + epsilon
    return math.exp(first) * -math.expm1(min(0.0, second - first))


def analytic_gaussian_sigma(epsilon: float, delta: float) -> float:
    """The least noise per unit of L2 sensitivity that gives (epsilon, delta) in one release; rounded up by
    1e-9 relative.

    Raises Misuse for epsilon <= 0 and for delta outside (0, 1).
    """
    if not (0 < epsilon < math.inf and 0 < delta < 1):
        raise Misuse(f"expected epsilon > 0 and 0 < delta < 1, got {epsilon} and {delta}")
    low = high = 1.0
    while analytic_gaussian_delta(high, epsilon) > delta:
        high *= 2
    while analytic_gaussian_delta(low, epsilon) <= delta:
        low /= 2
    while high > low * (1 + 1e-9):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if analytic_gaussian_delta(middle, epsilon) > delta else (low, middle)
    return high
