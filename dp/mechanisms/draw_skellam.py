"""Symmetric Skellam noise: the difference of two Poisson variables, closed under sums (n shares of variance
v: n v).

Source: Agarwal, Kairouz and Liu, "The Skellam Mechanism for Differentially Private Federated Learning"
(NeurIPS 2021).
"""

from dp.mechanisms.draw_poisson import MAX_MEAN, poisson
from dp.mechanisms.envelope import Integers
from protocols.errors import Misuse
from protocols.randomness import SecureRandom


def skellam(random: SecureRandom, variance: float, count: int) -> Integers:
    """Return `count` independent Skellam draws of mean 0, int64, each within `SAMPLER_DISTANCE` of the law.

    `variance` is the sum of the two equal Poisson means, in grid steps squared, 2^-19 to 2^49. Raises
    Misuse outside that range, for NaN and for a negative count.
    """
    if not 2.0**-19 <= variance <= 2 * MAX_MEAN:
        raise Misuse(
            f"expected a Skellam variance from 2^-19 to 2^49, got {variance}; choose another grid step"
        )
    return poisson(random, variance / 2, count) - poisson(random, variance / 2, count)
