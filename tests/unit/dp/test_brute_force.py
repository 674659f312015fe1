"""Every bound of docs/dp-account.md against numbers computed without it, on cases small enough to
enumerate."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ive
from scipy.stats import norm

from dp.accountants import accountant
from dp.accountants.curves import poisson_amplified
from dp.accountants.rdp import curve, orders
from dp.accountants.reduction import eta
from dp.events import (
    DiscreteGaussianSum,
    FixedSizeGaussian,
    Gaussian,
    PoissonGaussian,
    Pure,
    Relation,
    Skellam,
    Unit,
)

ZERO_OUT = {"unit": Unit.EXAMPLE, "relation": Relation.ZERO_OUT}
REPLACE = {"unit": Unit.EXAMPLE, "relation": Relation.REPLACE}
ORDERS = np.array(orders())


def mass(variance: float, reach: int) -> np.ndarray:
    at = np.arange(-reach, reach + 1)
    weights = np.exp(-(at**2) / (2 * variance))
    return weights / weights.sum()


def hockey_stick(p: np.ndarray, q: np.ndarray, epsilon: float) -> float:
    return float(np.maximum(p - math.exp(epsilon) * q, 0).sum())


def renyi(p: np.ndarray, q: np.ndarray, order: float) -> float:
    inside = (p > 0) & (q > 0)
    logs = order * np.log(p[inside]) + (1 - order) * np.log(q[inside])
    return float(np.logaddexp.reduce(logs)) / (order - 1)


@pytest.mark.parametrize("smoothing", [0.15, 0.3, 0.6])
@pytest.mark.parametrize("extra", [0.2, 1.0, 5.0])
def test_eta_bounds_discrete_gaussian_against_postprocessed_continuous(
    smoothing: float, extra: float
) -> None:
    """Section 3: mix the discrete Gaussian centred at y over y ~ N(0, extra), by trapezoids far beyond
    float accuracy."""
    reach = 40
    z = np.arange(-reach, reach + 1)
    y = np.linspace(-12 * math.sqrt(extra), 12 * math.sqrt(extra), 40_001)
    kernel = np.exp(-((z[:, None] - y[None, :]) ** 2) / (2 * smoothing))
    kernel /= kernel.sum(axis=0)
    density = norm.pdf(y, scale=math.sqrt(extra))
    post = np.trapezoid(kernel * density, y, axis=1)
    exact = mass(smoothing + extra, reach)
    middle = exact > 1e-12
    worst = float(np.abs(np.log(exact[middle] / post[middle])).max())
    assert worst <= eta(smoothing) + 1e-9


def test_eta_at_the_smoothing_in_use() -> None:
    assert 0 < eta() < 2.0**-100
    first = math.exp(-2 * math.pi**2 * 0.2)
    assert math.tanh(eta(0.2) / 2) == pytest.approx(2 * first / (1 - first), rel=1e-12)
    assert eta(0.001) == eta(0.0464) == math.inf  # 2 atanh of what is above one


@pytest.mark.parametrize("variance", [0.5, 0.7, 1.0, 2.0])
@pytest.mark.parametrize("shares", [2, 3, 5, 8])
def test_tau_bounds_sums_of_discrete_gaussians(variance: float, shares: int) -> None:
    reach = 30
    total = one = mass(variance, reach)
    for _ in range(shares - 1):
        total = np.convolve(total, one)
    exact = mass(variance * shares, reach * shares)
    middle = exact > 1e-10
    worst = float(np.abs(np.log(total[middle] / exact[middle])).max())
    event = DiscreteGaussianSum(sensitivity=1.0, share_variance=variance, shares=shares, dims=1, **ZERO_OUT)
    assert worst <= event.tau + 1e-8


@pytest.mark.parametrize("name", ["rdp", "pld"])
@pytest.mark.parametrize(
    "shares, variance, sensitivity", [(1, 9.0, 2), (3, 2.0, 1), (4, 5.0, 3), (5, 1.0, 1)]
)
def test_no_sum_of_discrete_gaussians_is_underpriced(
    name: str, shares: int, variance: float, sensitivity: int
) -> None:
    reach = math.ceil(14 * math.sqrt(variance)) + 2
    total = one = mass(variance, reach)
    for _ in range(shares - 1):
        total = np.convolve(total, one)
    p, q = np.pad(total, (sensitivity, 0)), np.pad(total, (0, sensitivity))
    event = DiscreteGaussianSum(
        sensitivity=float(sensitivity), share_variance=variance, shares=shares, dims=1, **ZERO_OUT
    )
    account = accountant(name).add(event)
    for epsilon in (0.1, 0.5, 1.0, 2.0):
        exact = max(hockey_stick(p, q, epsilon), hockey_stick(q, p, epsilon))
        assert exact <= account.delta(epsilon) + 1e-12


@pytest.mark.parametrize("rate", [0.01, 0.3])
def test_no_sampled_discrete_gaussian_is_underpriced_over_two_rounds(rate: float) -> None:
    base = mass(16.0, 70)
    zero, one = np.pad(base, (0, 3)), np.pad(base, (3, 0))
    mixed = (1 - rate) * zero + rate * one
    event = DiscreteGaussianSum(
        sensitivity=3.0, share_variance=16.0, shares=1, dims=1, sample_rate=rate, **ZERO_OUT
    )
    for name in ("rdp", "pld"):
        account = accountant(name).add(event, 2)
        for epsilon in (0.05, 0.3, 1.0):
            p, q = np.outer(mixed, mixed).ravel(), np.outer(zero, zero).ravel()
            exact = max(hockey_stick(p, q, epsilon), hockey_stick(q, p, epsilon))
            assert exact <= account.delta(epsilon) + 1e-10


def skellam_mass(variance: float, reach: int) -> np.ndarray:
    return ive(np.abs(np.arange(-reach, reach + 1)), variance)


@pytest.mark.parametrize("variance", [1.0, 4.0, 30.0, 400.0])
@pytest.mark.parametrize("shift", [1, 2, 5])
def test_no_skellam_is_underpriced(variance: float, shift: int) -> None:
    base = skellam_mass(variance, math.ceil(14 * math.sqrt(variance)) + 60)
    p, q = np.pad(base, (0, shift)), np.pad(base, (shift, 0))
    event = Skellam(l1=float(shift), l2=float(shift), variance=variance, shares=1, dims=1, **ZERO_OUT)
    whole = ORDERS <= 12
    exact = np.array([max(renyi(p, q, a), renyi(q, p, a)) for a in ORDERS[whole]])
    assert np.all(exact <= curve(event)[whole] * (1 + 1e-9))


def test_no_skellam_in_three_dimensions_is_underpriced() -> None:
    base = skellam_mass(4.0, 60)
    sums = {s: (np.pad(base, (0, s)), np.pad(base, (s, 0))) for s in (0, 1, 2)}
    event = Skellam(l1=4.0, l2=math.sqrt(6.0), variance=4.0, shares=1, dims=3, **ZERO_OUT)
    for index, order in enumerate(orders()[:100]):
        exact = sum(renyi(*sums[s], order) for s in (1, 1, 2))  # independent coordinates: divergences add
        assert exact <= curve(event)[index] * (1 + 1e-9)


@pytest.mark.parametrize("rate", [0.01, 0.2, 0.7])
@pytest.mark.parametrize("variance", [4.0, 50.0])
def test_no_sampled_skellam_is_underpriced(rate: float, variance: float) -> None:
    base = skellam_mass(variance, math.ceil(14 * math.sqrt(variance)) + 60)
    zero, one = np.pad(base, (0, 2)), np.pad(base, (2, 0))
    mixed = (1 - rate) * zero + rate * one
    event = Skellam(l1=2.0, l2=2.0, variance=variance, shares=1, dims=1, sample_rate=rate, **ZERO_OUT)
    whole = ORDERS <= 12
    exact = np.array([max(renyi(mixed, zero, a), renyi(zero, mixed, a)) for a in ORDERS[whole]])
    assert np.all(exact <= curve(event)[whole] * (1 + 1e-9))


def test_amplification_ends_are_the_mechanism_and_nothing() -> None:
    assert poisson_amplified(lambda a: 0.1 * a, 0.0, 5) == 0.0
    assert poisson_amplified(lambda a: 0.1 * a, 1.0, 5) == 0.5
    assert poisson_amplified(lambda a: 0.1 * a, 0.999, 5) <= 0.5


@pytest.mark.parametrize("order", [2, 3, 4, 7])
@pytest.mark.parametrize("rate", [0.01, 0.2])
def test_amplification_is_the_sum_that_the_theorem_states(rate: float, order: int) -> None:
    def at(a: int) -> float:
        return 0.05 * a

    total = (1 - rate) ** (order - 1) * (order * rate - rate + 1)
    for size in range(2, order + 1):
        chosen = math.comb(order, size) * rate**size * (1 - rate) ** (order - size)
        total += (1 if size == 2 else 3) * chosen * math.exp((size - 1) * at(size))
    known = min(at(order), math.log(total) / (order - 1))
    assert known < at(order)
    assert poisson_amplified(at, rate, order) == pytest.approx(known, rel=1e-9)


def test_a_sampled_skellam_has_the_amplified_curve_of_the_whole_one() -> None:
    whole = Skellam(l1=2.0, l2=2.0, variance=50.0, shares=1, dims=1, **ZERO_OUT)
    at = dict(zip(orders(), curve(whole), strict=True))
    sampled = curve(replace(whole, sample_rate=0.1))
    for order in (2, 5, 9):
        amplified = poisson_amplified(lambda a: float(at[float(a)]), 0.1, order)
        assert amplified < 0.2 * at[float(order)]
        assert sampled[orders().index(order)] == pytest.approx(amplified, rel=1e-12)


def log_mixture(values: list[float], size: int, sigma: float, x: np.ndarray) -> np.ndarray:
    logs = [norm.logpdf(x, sum(subset), sigma) for subset in itertools.combinations(values, size)]
    return np.logaddexp.reduce(logs, axis=0) - math.log(len(logs))


@pytest.mark.parametrize("sigma", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("population, size", [(4, 1), (5, 2), (6, 5)])
@pytest.mark.parametrize("replacement", [0.0, -1.0])
def test_no_fixed_size_sample_is_underpriced(
    sigma: float, population: int, size: int, replacement: float
) -> None:
    """Every data set of signs, one unit replaced by `replacement`: 0 is zero-out, -1 the far end of
    replace."""
    x = np.linspace(-20 - 12 * sigma, 20 + 12 * sigma, 8001)
    statement = REPLACE if replacement else ZERO_OUT
    event = FixedSizeGaussian(noise_multiplier=sigma, population=population, sample_size=size, **statement)
    chosen = [i for i, a in enumerate(orders()) if a in (1.5, 2.0, 3.0, 5.5, 8.0)]
    for others in itertools.combinations_with_replacement([-1.0, 1.0], population - 1):
        p = log_mixture([*others, 1.0], size, sigma, x)
        q = log_mixture([*others, replacement], size, sigma, x)
        for index in chosen:
            order = orders()[index]
            for first, second in ((p, q), (q, p)):
                logs = order * first + (1 - order) * second
                peak = float(logs.max())
                exact = (math.log(np.trapezoid(np.exp(logs - peak), x)) + peak) / (order - 1)
                assert exact <= curve(event)[index] * (1 + 1e-9) + 1e-12


def wang_theorem_nine(rate: float, sigma: float, order: int) -> float:
    """Wang, Balle and Kasiviswanathan (AISTATS 2019), Theorem 9, for a Gaussian of sensitivity 1 (no bound
    at infinity)."""

    def at(a: int) -> float:
        return a / (2 * sigma**2)

    second = min(4 * math.expm1(at(2)), 2 * math.exp(at(2)))
    total = 1 + rate**2 * math.comb(order, 2) * second
    total += sum(rate**j * math.comb(order, j) * 2 * math.exp((j - 1) * at(j)) for j in range(3, order + 1))
    return math.log(total) / (order - 1)


@pytest.mark.parametrize("sigma, population, size", [(2.0, 100, 10), (4.0, 1000, 20)])
def test_the_fixed_size_curve_is_within_the_general_theorem(sigma: float, population: int, size: int) -> None:
    event = FixedSizeGaussian(noise_multiplier=sigma, population=population, sample_size=size, **REPLACE)
    for order in (2, 3, 5, 8):
        general = wang_theorem_nine(size / population, sigma / 2, order)
        assert curve(event)[orders().index(order)] <= general * (1 + 1e-9)


@pytest.mark.parametrize("epsilon", [0.05, 0.7, 3.0])
def test_pure_mechanisms_cost_what_randomised_response_costs(epsilon: float) -> None:
    keep = math.exp(epsilon) / (1 + math.exp(epsilon))
    p, q = np.array([keep, 1 - keep]), np.array([1 - keep, keep])
    event = Pure(epsilon=epsilon, **ZERO_OUT)
    exact = np.array([renyi(p, q, a) for a in ORDERS])
    assert curve(event) == pytest.approx(exact, rel=1e-6)
    assert np.all(curve(event) <= epsilon * (1 + 1e-9))
    for target in (0.0, epsilon / 2):
        assert accountant("pld").add(event).delta(target) >= hockey_stick(p, q, target) - 1e-12


@pytest.mark.parametrize("rate", [0.05, 0.5])
def test_sampling_under_replace_is_never_underpriced(rate: float) -> None:
    x = np.linspace(-40, 40, 200_001)
    p = (1 - rate) * norm.pdf(x, 0, 2) + rate * norm.pdf(x, 1, 2)
    q = (1 - rate) * norm.pdf(x, 0, 2) + rate * norm.pdf(x, -1, 2)
    account = accountant("pld").add(PoissonGaussian(noise_multiplier=2.0, sample_rate=rate, **REPLACE))
    for epsilon in (0.01, 0.1, 0.5):
        exact = float(np.trapezoid(np.maximum(p - math.exp(epsilon) * q, 0), x))
        assert exact <= account.delta(epsilon) + 1e-9


def test_distance_costs_at_most_one_plus_e_epsilon_of_delta() -> None:
    """Section 2, on random distributions: moving each of a pair by t in total variation adds at most (1 +
    e^epsilon) t."""
    generator = np.random.default_rng(7)
    for _ in range(500):
        p, q = generator.dirichlet(np.ones(6), size=2)
        moved = [generator.dirichlet(np.ones(6)) * 0.1 + r * 0.9 for r in (p, q)]
        distance = max(float(np.abs(m - r).sum() / 2) for m, r in zip(moved, (p, q), strict=True))
        for epsilon in (0.0, 0.5, 2.0):
            allowed = hockey_stick(p, q, epsilon) + (1 + math.exp(epsilon)) * distance
            assert hockey_stick(moved[0], moved[1], epsilon) <= allowed + 1e-12


def test_a_gaussian_among_orders() -> None:
    event = Gaussian(noise_multiplier=3.0, **ZERO_OUT)
    assert curve(event) == pytest.approx(ORDERS / 18.0)
