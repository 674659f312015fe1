"""Public arithmetic of distributed noise: grid, modulus and noise shares from clip, cohort and survivors.

Source: Kairouz, Liu and Steinke, "The Distributed Discrete Gaussian Mechanism for Federated Learning with
Secure Aggregation" (ICML 2021), sections 3 and 4; Agarwal, Kairouz and Liu (NeurIPS 2021) for Skellam
noise. All numbers here are public and equal on server and clients. Drawing, rounding and the layer itself
belong elsewhere.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from dp.accountants.reduction import SMOOTHING_VARIANCE
from dp.rounding import rounded_l2_bound
from protocols.errors import CapacityError, Misuse, require

BETA = math.exp(-0.5)
"""Chance that one conditional rounding is drawn again, at most (the paper's choice)."""
DITHERED = 2.0**-70
"""Chance that two sums that differ by one unit, rounded with the same dither, lie further apart than is accounted."""
OVERFLOW = 2.0**-40
CLOSENESS = 2.0**-34
"""The sum of discrete Gaussian shares is a discrete Gaussian up to a factor exp(+-this), over all
coordinates together."""
MAX_BITS = 60


@dataclass(frozen=True)
class Demand:
    """What the arithmetic is chosen for.

    clip: L2 norm of one unit's contribution. dims: coordinates after padding. clients: most in a sum. shares:
    honest survivors that are guaranteed. multiplier: noise over sensitivity. units: most clips that one sum can
    hold (clients, or examples). weights: how often, in clips, one contribution enters each of the sums that it is
    in; their squares add up to 1 (one sum, once, unless noise is correlated). conditional: rounded stochastically,
    one vector per unit; otherwise one vector for many units: to nearest, or dithered.
    """

    clip: float
    dims: int
    clients: int
    shares: int
    multiplier: float
    units: float
    conditional: bool = True
    weights: tuple[float, ...] = (1.0,)
    dithered: bool = False


@dataclass(frozen=True)
class Grid:
    """The choice. step: real value of the integer 1. modulus: a power of two. sensitivity: L2 norm, in
    steps, by which one unit moves the sum of integers, with probability one. share_variance: of each
    client's noise, in steps^2.
    """

    step: float
    modulus: int
    sensitivity: float
    share_variance: float

    @property
    def bits(self) -> int:
        return self.modulus.bit_length() - 1


def sensitivity(demand: Demand, step: float) -> float:
    """L2 bound in steps after rounding, with probability one, over all sums that a contribution enters.

    conditional: the bound that conditional rounding keeps. Otherwise two sums that differ by one unit are
    rounded to nearest: each coordinate moves by at most a half in either, so the difference grows by at
    most sqrt(dims). dithered: the same uniform shift goes before either rounding down, so that the rounded difference
    is the difference, stochastically rounded; its bound holds but with probability `DITHERED` a sum.
    """
    bounds = [weight * demand.clip / step for weight in demand.weights if weight]
    if demand.conditional or demand.dithered:
        beta = BETA if demand.conditional else DITHERED
        return math.hypot(*(rounded_l2_bound(bound, demand.dims, beta) for bound in bounds))
    return math.hypot(*(bound + math.sqrt(demand.dims) for bound in bounds)) * (1 + 2.0**-30)


def share_variance(demand: Demand, step: float) -> float:
    """Variance of one share, in steps^2: `shares` of them together are priced at `multiplier` times the
    sensitivity."""
    total = (demand.multiplier * sensitivity(demand, step)) ** 2 + SMOOTHING_VARIANCE
    return total / demand.shares * (1 + 2.0**-40)


def tau(share: float, shares: int) -> float:
    """Kairouz, Liu and Steinke's tau per coordinate, from above: 10 (exp(-pi^2 v) + shares exp(-4/3 pi^2
    v)) for variance v."""
    return 10 * (math.exp(-(math.pi**2) * share) + shares * math.exp(-4 / 3 * math.pi**2 * share))


def least_modulus(demand: Demand, step: float, overflow: float) -> float:
    """The modulus at which some coordinate of the sum wraps with probability at most `overflow`, in the
    worst case.

    Sub-Gaussian tails, union bound over coordinates: rotated signal (units x clip)^2 / dims (Hoeffding over
    the signs), rounding 1/4 each, noise of every client that may come.
    """
    signal = (demand.units * sum(demand.weights) * demand.clip / step) ** 2 / demand.dims
    noise = demand.clients * (share_variance(demand, step) + 0.25)
    return 2 * math.sqrt(2 * (signal + noise) * math.log(2 * demand.dims / overflow)) + 2


def choose(demand: Demand, bits: int | None = None, overflow: float = OVERFLOW, waste: float = 0.005) -> Grid:
    """Choose step and modulus: as fine a grid as `bits` allow, or the coarsest on which rounding costs less
    than `waste`.

    waste: relative growth of the noise through rounding (sensitivity, and variance of rounding). Raises
    CapacityError where the bits do not suffice, or the noise would be too narrow for its account.
    """
    if not 0 < overflow < 1 or demand.shares < 1 or demand.units <= 0:
        raise Misuse(
            f"expected 0 < overflow < 1, shares >= 1, units > 0, got {overflow}, {demand.shares}, {demand.units}"
        )
    if bits is None:
        step = _bisect(lambda s: _waste(demand, s) <= waste, demand)
        modulus = 1 << max(2, math.ceil(math.log2(least_modulus(demand, step, overflow))))
        # the power of two leaves room
        step = _bisect(lambda s: least_modulus(demand, s, overflow) > modulus, demand)
    else:
        require(2 <= bits <= MAX_BITS, f"from 2 to {MAX_BITS} bits per value", bits)
        modulus = 1 << bits
        step = _bisect(lambda s: least_modulus(demand, s, overflow) > modulus, demand)
    return _grid(demand, step * (1 + 1e-9), modulus, overflow)


def _grid(demand: Demand, step: float, modulus: int, overflow: float) -> Grid:
    share = share_variance(demand, step)
    if least_modulus(demand, step, overflow) > modulus or modulus.bit_length() - 1 > MAX_BITS:
        raise CapacityError(
            f"{modulus.bit_length() - 1} bits per value are too few for {demand.clients} clients: allow more bits"
        )
    if demand.dims * tau(share, demand.clients) > CLOSENESS:
        raise CapacityError(
            f"each client's noise would have a variance of {share:.3g} steps^2, so narrow that the sum is no discrete "
            "Gaussian: allow more bits per value, fewer clients, or a larger noise multiplier"
        )
    return Grid(step, modulus, sensitivity(demand, step), share)


def _waste(demand: Demand, step: float) -> float:
    growth = sensitivity(demand, step) * step / demand.clip - 1
    rounding = demand.clients * 0.25 / (demand.shares * share_variance(demand, step))
    return max(growth, rounding / 2)


def _bisect(fine: Callable[[float], bool], demand: Demand) -> float:
    """The border between steps for which `fine` holds (small ones) and those for which it does not, from
    above."""
    low, high = demand.clip * 2.0**-40, demand.clip * 2.0**10
    for _ in range(120):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if fine(middle) else (low, middle)
    return high
