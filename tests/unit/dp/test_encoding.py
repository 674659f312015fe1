"""The arithmetic of distributed noise by numbers that were worked out by hand, and its refusals at their limits."""

import math
from dataclasses import replace
from typing import Any

import pytest

from dp import encoding
from dp.accountants.reduction import SMOOTHING_VARIANCE
from dp.encoding import Demand, _waste, choose, least_modulus, sensitivity, share_variance, tau
from protocols.errors import CapacityError, Misuse

DEMAND = Demand(clip=2.0, dims=16, clients=10, shares=5, multiplier=1.5, units=10)
STEP = 0.5
"""The clip is 4 steps, and the root of the dimension 4."""
CONDITIONAL = math.sqrt(4**2 + 16 / 4 + 1 * (4 + 4 / 2))  # sqrt(2 log(1 / beta)) is 1


@pytest.mark.parametrize(
    ("demand", "exact"),
    [
        (DEMAND, CONDITIONAL),
        (replace(DEMAND, conditional=False), 4.0 + 4.0),
        (
            replace(DEMAND, conditional=False, dithered=True),
            4.0 + 4.0,
        ),  # of so few values the other bound is longer
        (replace(DEMAND, weights=(0.0, 1.0)), CONDITIONAL),
        (replace(DEMAND, conditional=False, weights=(0.75, 0.25)), math.hypot(3 + 4, 1 + 4)),
    ],
)
def test_what_one_unit_moves_is_its_clip_and_its_rounding(demand: Demand, exact: float) -> None:
    assert exact < sensitivity(demand, STEP) <= exact * (1 + 2.0**-29)


def test_a_longer_dithered_vector_keeps_the_bound_that_holds_but_rarely() -> None:
    demand = replace(DEMAND, conditional=False, dithered=True, clip=500.0, dims=4096)
    rarely = math.sqrt(1000**2 + 4096 / 4 + math.sqrt(2 * 70 * math.log(2)) * (1000 + 64 / 2))
    assert rarely < 1000 + 64
    assert sensitivity(demand, STEP) == pytest.approx(rarely, rel=1e-9)


def test_shares_together_have_the_variance_that_is_priced() -> None:
    exact = ((1.5 * sensitivity(DEMAND, STEP)) ** 2 + SMOOTHING_VARIANCE) / 5
    assert exact < share_variance(DEMAND, STEP) <= exact * (1 + 2.0**-39)


def test_rounding_wastes_by_what_it_moves_or_half_of_its_variance() -> None:
    assert _waste(DEMAND, STEP) == pytest.approx(CONDITIONAL / 4 - 1, rel=1e-9)
    thin = replace(DEMAND, multiplier=1e-4)
    variance = ((1e-4 * 2048) ** 2 + SMOOTHING_VARIANCE) / 5
    assert _waste(thin, 2.0**-10) == pytest.approx(10 * 0.25 / (5 * variance) / 2, rel=1e-3)


def test_tau_is_that_of_the_paper() -> None:
    assert tau(0.25, 3) == pytest.approx(
        10 * (math.exp(-0.25 * math.pi**2) + 3 * math.exp(-(math.pi**2) / 3)), rel=1e-12
    )


@pytest.mark.parametrize(("weights", "signal"), [((1.0,), 100.0), ((0.5, 0.25), 56.25)])
def test_the_modulus_holds_signal_and_noise(weights: tuple[float, ...], signal: float) -> None:
    demand = replace(DEMAND, weights=weights)
    noise = 10 * (share_variance(demand, STEP) + 0.25)
    exact = 2 * math.sqrt(2 * (signal + noise) * math.log(2 * 16 / 0.125)) + 2
    assert least_modulus(demand, STEP, 0.125) == pytest.approx(exact, rel=1e-12)


BIG = Demand(clip=1.0, dims=256, clients=50, shares=50, multiplier=1.5, units=50)


def wasted(demand: Demand, grid: encoding.Grid) -> float:
    """How much rounding adds to the noise, at worst: by what one unit moves, or by its own variance (half of that)."""
    moved = grid.sensitivity * grid.step / demand.clip - 1
    return max(moved, demand.clients * 0.25 / (demand.shares * grid.share_variance) / 2)


@pytest.mark.parametrize(
    "demand", [BIG, replace(BIG, multiplier=0.02), replace(BIG, shares=1, clip=0.125), replace(BIG, clip=8.0)]
)
def test_without_bits_the_modulus_is_the_least_that_wastes_no_more_than_a_half_per_cent(
    demand: Demand,
) -> None:
    grid = choose(demand)
    assert wasted(demand, grid) <= 0.005 < wasted(demand, choose(demand, grid.bits - 1))


@pytest.mark.parametrize("bits", [None, 20])
def test_the_grid_is_as_fine_as_its_modulus_holds(bits: int | None) -> None:
    grid = choose(BIG, bits)
    assert least_modulus(BIG, grid.step, encoding.OVERFLOW) <= grid.modulus
    assert least_modulus(BIG, grid.step * (1 - 1e-8), encoding.OVERFLOW) > grid.modulus
    assert grid.sensitivity == sensitivity(BIG, grid.step)
    assert grid.share_variance == share_variance(BIG, grid.step)
    assert 1 << grid.bits == grid.modulus


@pytest.mark.parametrize(
    "change",
    [{"overflow": 0.0}, {"overflow": 1.0}, {"overflow": 1.5}, {"shares": 0}, {"units": 0.0}, {"units": -1.0}],
)
def test_what_no_grid_is_for_is_refused(change: dict[str, Any]) -> None:
    overflow = change.pop("overflow", 0.5)
    with pytest.raises(Misuse, match=r"expected 0 < overflow < 1, shares >= 1, units > 0"):
        choose(replace(BIG, **change), overflow=overflow)


def test_one_share_of_half_a_unit_has_a_grid() -> None:
    assert choose(replace(BIG, shares=1, units=0.5, clients=1), overflow=0.99).bits > 2


@pytest.mark.parametrize("bits", [1, 61])
def test_bits_beyond_a_64_bit_sum_are_refused(bits: int) -> None:
    with pytest.raises(Misuse, match="from 2 to 60 bits"):
        choose(BIG, bits)


def test_sixty_bits_are_the_widest_grid_and_two_too_few() -> None:
    assert choose(BIG, 60).modulus == 2**60
    with pytest.raises(CapacityError, match="2 bits per value are too few for 50 clients"):
        choose(BIG, 2)
    assert choose(replace(BIG, units=7e15)).modulus == 2**60
    with pytest.raises(CapacityError, match="61 bits per value are too few"):  # its own choice is wider
        choose(replace(BIG, units=1e16))


def test_noise_too_narrow_to_add_up_to_a_discrete_gaussian_is_refused() -> None:
    thin = replace(BIG, clients=10_000, shares=10_000, units=10_000)
    assert thin.dims * tau(choose(thin, 24).share_variance, thin.clients) <= encoding.CLOSENESS
    with pytest.raises(CapacityError, match=r"so narrow that the sum is no discrete Gaussian"):
        choose(replace(thin, multiplier=0.01), 16)
