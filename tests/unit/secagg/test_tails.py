"""Hypergeometric tails against exact arithmetic: every value of small urns, and the formulas behind large ones."""

import itertools
import math
from collections.abc import Iterator
from decimal import Decimal, localcontext
from fractions import Fraction
from math import comb

import pytest

from secagg.parameters import tails
from secagg.parameters.tails import (
    LOG_ZERO,
    log_mass,
    log_tail_at_least,
    log_tail_below,
)

POPULATIONS = (1, 2, 3, 6, 11, 17)
Urn = tuple[int, int, int]


def urns() -> Iterator[Urn]:
    for population in POPULATIONS:
        for marked, drawn in itertools.product(range(population + 1), repeat=2):
            yield population, marked, drawn


def masses(urn: Urn) -> list[Fraction]:
    """P[X = 0], ..., P[X = drawn]."""
    population, marked, drawn = urn
    ways = [comb(marked, x) * comb(population - marked, drawn - x) for x in range(drawn + 1)]
    return [Fraction(w, comb(population, drawn)) for w in ways]


def ln(probability: Fraction) -> float:
    if not probability:
        return LOG_ZERO
    with localcontext() as context:
        context.prec = 40
        return float((Decimal(probability.numerator) / Decimal(probability.denominator)).ln())


def near(value: float) -> object:
    return pytest.approx(value, rel=1e-12, abs=1e-13)


def test_every_mass_of_a_small_urn() -> None:
    for urn in urns():
        exact = masses(urn)
        found = [log_mass(x, *urn) for x in range(-1, urn[2] + 2)]
        assert found == [LOG_ZERO, *(near(ln(p)) for p in exact), LOG_ZERO], urn
        assert log_mass(urn[-1], *urn) == near(ln(exact[-1])), urn


def test_every_tail_of_a_small_urn() -> None:
    for urn in urns():
        exact = masses(urn)
        for least in range(-1, urn[2] + 3):
            above, below = sum(exact[max(0, least) :]), sum(exact[: max(0, least)])
            assert log_tail_at_least(least, *urn) == near(ln(Fraction(above))), (urn, least)
            assert log_tail_below(least, *urn) == near(ln(Fraction(below))), (urn, least)


def test_support_and_mode_of_every_small_urn() -> None:
    for urn in urns():
        exact = masses(urn)
        possible = [x for x, p in enumerate(exact) if p]
        assert tails._support(*urn) == (possible[0], possible[-1])
        assert exact[tails._mode(*urn)] == max(exact), urn


@pytest.mark.parametrize(
    ("urn", "least"),
    [
        ((10**6, 500_000, 20_000), 10_010),
        ((10**6, 500_000, 20_000), 10_300),
        ((2 * 10**15, 10**15, 30_000), 15_500),
        ((10**6, 999_000, 1_500), 1_499),
        ((10**6, 1_500, 999_000), 1_499),
    ],
)
def test_a_long_tail_is_the_sum_of_its_masses(urn: Urn, least: int) -> None:
    """More values than are summed at once, and products beyond 64 bits."""
    rest = range(least, min(least + 1_500, *urn[1:]) + 1)
    exact = math.log(math.fsum(math.exp(log_mass(x, *urn)) for x in rest))
    assert log_tail_at_least(least, *urn) == pytest.approx(exact, rel=1e-11)


def stirling(n: int) -> float:
    with localcontext() as context:
        context.prec = 60
        whole, two_pi = Decimal(n), Decimal("6.28318530717958647692528676655900576839433879875021")
        formula = (whole + Decimal("0.5")) * whole.ln() - whole + two_pi.ln() / 2
        return float(Decimal(math.factorial(n)).ln() - formula)


def test_stirlings_remainder() -> None:
    for n in range(1, 16):
        assert tails._stirling(n) == pytest.approx(stirling(n), abs=2e-14)
    for n in (*range(16, 40), 100, 1000):
        assert tails._stirling(n) == pytest.approx(stirling(n), abs=2e-16)  # the series' next term at 16


def test_deviances() -> None:
    with localcontext() as context:
        context.prec = 50
        for x, mean in itertools.product(
            (1e-3, 1.0, 7.0, 1e6, 1e9), (0.5, 0.82, 0.999, 1.0, 1.0001, 1.22, 3.0)
        ):
            given, around = Decimal(x), Decimal(x * mean)
            exact = float(given * (given / around).ln() + around - given)
            assert tails._deviance(x, x * mean) == pytest.approx(exact, rel=1e-13, abs=1e-40)


@pytest.mark.parametrize("x", [-1e-300, -1e-17, -1e-9, -0.3, -0.6931, -0.6932, -1.0, -1.0986, -40.0, -800.0])
def test_the_complement_of_a_probability(x: float) -> None:
    with localcontext() as context:
        context.prec = 400
        exact = float((1 - Decimal(x).exp()).ln())
    assert tails._log_complement(x) == pytest.approx(exact, rel=1e-14, abs=1e-320)


def test_what_rounding_lifts_above_one_has_no_complement() -> None:
    assert [tails._log_complement(x) for x in (0.0, 1e-17, 0.5)] == [LOG_ZERO] * 3
    assert tails._log_complement(LOG_ZERO) == 0.0
