"""Renyi curves that dp-accounting does not have, each from its paper.

Theorems that hold at integer orders are carried to others by the convexity of (a - 1) D_a in a (van Erven
and Harremoes, 2014, Corollary 2): a straight line between the two integers, 0 at order 1.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dp.events import PoissonGaussian, Pure, Skellam

Curve = NDArray[np.float64]


def skellam_curve(event: Skellam, orders: Sequence[float]) -> Curve:
    """Agarwal, Kairouz and Liu (NeurIPS 2021), Corollary 4.1, in grid steps; sampled:
    `poisson_amplified`."""
    l1, l2, variance = event.l1 * event.reach, event.l2 * event.reach, event.variance

    def at(order: int) -> float:
        main = order * l2**2 / (2 * variance)
        rest = ((2 * order - 1) * l2**2 + 6 * l1) / (4 * variance**2)
        return main + min(rest, 3 * l1 / (2 * variance))

    if event.sample_rate == 1:
        return between_integers(at, orders)
    return between_integers(lambda order: poisson_amplified(at, event.sample_rate, order), orders)


def sampled_gaussian_curve(event: PoissonGaussian, orders: Sequence[float]) -> Curve:
    """A Gaussian over a Poisson sample, exact at integer orders."""

    def at(order: int) -> float:
        return order / (2 * event.noise_multiplier**2)

    return between_integers(lambda order: poisson_amplified(at, event.sample_rate, order, 1.0), orders)


def poisson_amplified(at: Callable[[int], float], rate: float, order: int, factor: float = 3.0) -> float:
    """Renyi bound of any mechanism with integer curve `at` over a Poisson sample: Zhu and Wang (ICML 2019),
    Theorem 5; with factor 1 that of a Gaussian (Mironov, Talwar and Zhang, 2019, section 3.3).

    1/(a-1) log((1-q)^(a-1) (aq-q+1) + C(a,2) q^2 (1-q)^(a-2) e^D(2) + factor sum_(l>=3) C(a,l) (1-q)^(a-l) q^l
    e^((l-1) D(l))), for add/remove neighbours, and never more than the mechanism without sampling.
    """
    if rate == 0:
        return 0.0
    whole = at(order)
    if rate == 1:
        return whole
    keep, take, logs = math.log1p(-rate), math.log(rate), []
    for size in range(2, order + 1):
        more = (0.0 if size == 2 else math.log(factor)) + (size - 1) * at(size)
        choose = math.lgamma(order + 1) - math.lgamma(size + 1) - math.lgamma(order - size + 1)
        logs.append(choose + (order - size) * keep + size * take + more + math.log(-math.expm1(-more)))
    # the binomial terms alone add up to 1: of the sum less 1 nothing cancels, however small
    return min(whole, float(np.logaddexp(0, np.logaddexp.reduce(logs))) / (order - 1))


def between_integers(at: Callable[[int], float], orders: Sequence[float]) -> Curve:
    """The curve at `orders` from its values at integers of at least 2, by convexity of (a - 1) D_a."""
    values: dict[int, float] = {1: 0.0}

    def scaled(order: int) -> float:
        if order not in values:
            values[order] = (order - 1) * at(order)
        return values[order]

    out = []
    for order in orders:
        low, high = math.floor(order), math.ceil(order)
        part = order - low
        out.append(((1 - part) * scaled(low) + part * scaled(high)) / (order - 1))
    return np.array(out)


def pure_curve(event: Pure, orders: Sequence[float]) -> Curve:
    """Randomised response dominates every epsilon-DP mechanism (Kairouz, Oh and Viswanath, ICML 2015).

    D_a = 1/(a-1) log(p^a (1-p)^(1-a) + (1-p)^a p^(1-a)), p = e^epsilon / (1 + e^epsilon). As differences of logarithms
    that is 0 for small epsilons, whatever their number; of hyperbolic functions it is exact there.
    """
    half = event.epsilon / 2

    def at(order: float) -> float:
        if order * half > 1:
            top = float(np.logaddexp((2 * order - 1) * half, (1 - 2 * order) * half))
            return (top - float(np.logaddexp(half, -half))) / (order - 1)
        ratio = 2 * math.sinh(order * half) * math.sinh((order - 1) * half) / math.cosh(half)
        return math.log1p(ratio) / (order - 1)

    return np.array([at(order) for order in orders])
