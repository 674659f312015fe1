"""Samplers, the integer grid and the analytic Gaussian: ranges, exactness of the table, refusals."""

import itertools
import math
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dp.mechanisms import (
    analytic_gaussian_delta,
    analytic_gaussian_sigma,
    discrete_gaussian,
    poisson,
    skellam,
)
from dp.mechanisms.draw_gaussian import target as gaussian_target
from dp.mechanisms.draw_poisson import target as poisson_target
from dp.mechanisms.envelope import Envelope, build
from dp.mechanisms.grid import grid_noise, noise_step, rounded_bound, to_grid
from dp.mechanisms.sampling import fixed_sample, poisson_sample
from protocols.errors import Misuse
from protocols.randomness import SystemRandom

RANDOM = SystemRandom()
SIGMAS = [2.0**-6, 0.1, 0.5, 1.0, 2.7, 80.0, 1e3, 1e6, 2.0**40]
MEANS = [2.0**-20, 0.3, 1.0, 17.5, 1023.9, 1025.0, 1e6, 2.0**48]


def column_share(envelope: Envelope) -> list[int]:
    """The exact weight that the alias table gives to each block, out of columns * 2^53."""
    full = 1 << 53
    share = [0] * len(envelope.alias)
    for column, (threshold, alias) in enumerate(
        zip(envelope.threshold.tolist(), envelope.alias.tolist(), strict=True)
    ):
        share[column] += threshold
        share[alias] += full - threshold
    return share


@pytest.mark.parametrize("target", [gaussian_target(s) for s in SIGMAS] + [poisson_target(m) for m in MEANS])
def test_table_is_exact_and_its_envelope_lies_above(target) -> None:
    envelope = build(target)
    share = column_share(envelope)
    assert sum(share) == 2048 << 53
    assert share[:-1] == [int(w) for w in envelope.weight[:-1]]
    size = 1 << envelope.shift
    with localcontext() as context:
        context.prec = 80
        for block in np.flatnonzero(envelope.weight[:-1])[:: max(1, 2048 // 64)]:
            for x in {int(envelope.start[block]), int(envelope.start[block]) + size - 1}:
                if x < 0 and target.low == 0:
                    continue
                keep = Decimal(envelope.scale) * target.exact(x).exp() / int(envelope.weight[block])
                assert keep <= 1
                assert Decimal(int(envelope.surely[block])) / (1 << (64 - envelope.shift)) <= keep


@pytest.mark.parametrize("target", [gaussian_target(s) for s in SIGMAS] + [poisson_target(m) for m in MEANS])
def test_weights_are_as_accurate_as_they_claim(target) -> None:
    at = np.unique(np.linspace(target.low, target.high, 101).astype(np.int64))
    with localcontext() as context:
        context.prec = 80
        for x, fast in zip(at.tolist(), target.log_weight(at).tolist(), strict=True):
            exact = target.exact(x)
            if exact > -80:
                assert abs(Decimal(fast) - exact) <= Decimal(target.error)


class Script:
    """A source that returns bytes made up beforehand, to force the rare branch."""

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = list(chunks)

    def bytes(self, count: int) -> bytes:
        chunk = self.chunks.pop(0)
        assert len(chunk) == count
        return chunk


def test_an_undecided_draw_takes_more_bits_and_decides_by_decimals() -> None:
    envelope = build(gaussian_target(1.0))
    block = int(np.flatnonzero(envelope.start[: np.count_nonzero(envelope.weight)] == 1)[0])
    with localcontext() as context:
        context.prec = 80
        keep = Decimal(envelope.scale) * Decimal("-0.5").exp() / int(envelope.weight[block])
        cut = int(keep * (1 << 192))
    rest, more = cut >> 128, cut & ((1 << 128) - 1)
    weight = int(envelope.weight[block])
    assert envelope._keep_exactly(Script(max(0, more - 1).to_bytes(16, "little")), 1, weight, rest)
    assert not envelope._keep_exactly(Script((more + 1).to_bytes(16, "little")), 1, weight, rest)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_discrete_gaussian_has_its_moments(sigma: float) -> None:
    draws = discrete_gaussian(RANDOM, sigma, 40_000).astype(np.float64)
    weights = [math.exp(-x * x / (2 * sigma * sigma)) for x in range(-40, 41)] if sigma < 3 else None
    variance = sigma**2
    if weights is not None:
        variance = sum(w * x * x for w, x in zip(weights, range(-40, 41), strict=True)) / sum(weights)
    # 7 standard errors (kurtosis at most 1 / variance + 3): a false alarm in 1e-9 runs.
    assert abs(draws.mean()) <= 7 * math.sqrt(variance / 40_000) + 1e-12
    assert (
        abs(draws.var() - variance)
        <= 7 * variance * math.sqrt((2 + 1 / max(variance, 1e-3)) / 40_000) + 7 / 40_000
    )


@pytest.mark.parametrize("mean", MEANS)
def test_poisson_and_skellam_have_their_moments(mean: float) -> None:
    draws = poisson(RANDOM, mean, 40_000).astype(np.float64)
    assert draws.min() >= 0
    assert abs(draws.mean() - mean) <= 7 * math.sqrt(mean / 40_000) + 10 / 40_000
    difference = skellam(RANDOM, 2 * mean, 40_000).astype(np.float64)
    assert abs(difference.mean()) <= 7 * math.sqrt(2 * mean / 40_000) + 10 / 40_000
    assert abs(difference.var() - 2 * mean) <= 7 * 2 * mean * math.sqrt((2 + 1 / mean) / 40_000) + 10 / 40_000


@pytest.mark.parametrize("sigma", [0.0, -1.0, 1e-3, 2.0**41, math.nan, math.inf])
def test_spreads_out_of_range_are_refused(sigma: float) -> None:
    with pytest.raises(Misuse):
        discrete_gaussian(RANDOM, sigma, 1)
    with pytest.raises(Misuse):
        skellam(RANDOM, -1.0 if sigma < 1 else sigma * sigma, 1)


def test_counts() -> None:
    assert discrete_gaussian(RANDOM, 5.0, 0).shape == (0,)
    assert discrete_gaussian(RANDOM, 5.0, 100_001).dtype == np.int64
    with pytest.raises(Misuse):
        discrete_gaussian(RANDOM, 5.0, -1)


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30),
    st.integers(-20, 6),
)
@settings(max_examples=200, deadline=None)
def test_rounding_keeps_the_accounted_bound(values: list[float], exponent: int) -> None:
    step = 2.0**exponent
    vector = np.array(values)
    counts = to_grid(vector, step)
    norm = math.sqrt(sum(Fraction(v) ** 2 for v in values))
    exact = sum(int(c) ** 2 for c in counts)
    assert exact <= rounded_bound(norm * (1 + 1e-12), len(values), step) ** 2


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e300])
def test_grid_refuses_what_does_not_fit(bad: float) -> None:
    with pytest.raises(Misuse):
        to_grid(np.array([0.0, bad]), 0.5)


def test_grid_noise_has_the_stated_deviation() -> None:
    step = noise_step(0.37)
    noise = grid_noise(RANDOM, 0.37, step, 200_000) * step
    assert abs(noise.std() / 0.37 - 1) < 7 / math.sqrt(400_000)
    assert step == 2.0 ** math.floor(math.log2(0.37) - 20)
    for bad in (0.0, math.inf):
        with pytest.raises(Misuse):
            grid_noise(RANDOM, 1.0, bad, 1)
        with pytest.raises(Misuse):
            noise_step(bad)


@pytest.mark.parametrize(
    "epsilon, delta", list(itertools.product([0.01, 0.5, 1.0, 4.0, 30.0], [1e-12, 1e-5, 0.1]))
)
def test_analytic_gaussian_inverts_and_matches_integration(epsilon: float, delta: float) -> None:
    from scipy.integrate import quad
    from scipy.stats import norm

    sigma = analytic_gaussian_sigma(epsilon, delta)
    assert analytic_gaussian_delta(sigma, epsilon) <= delta
    assert analytic_gaussian_delta(sigma * (1 - 1e-6), epsilon) > delta
    crossing = sigma**2 * epsilon + 0.5  # where density at 1 is e^epsilon times the density at 0
    brute, _ = quad(
        lambda x: norm.pdf(x, 1, sigma) - math.exp(epsilon) * norm.pdf(x, 0, sigma),
        crossing,
        crossing + 40 * sigma,
        epsabs=0,
        epsrel=1e-10,
        limit=500,
    )
    assert brute == pytest.approx(delta, rel=1e-5)


def test_analytic_gaussian_refuses_nonsense() -> None:
    for sigma, epsilon in ((0.0, 1.0), (1.0, -1.0), (math.nan, 1.0)):
        with pytest.raises(Misuse):
            analytic_gaussian_delta(sigma, epsilon)
    for epsilon, delta in ((0.0, 1e-5), (1.0, 0.0), (1.0, 1.0), (math.nan, 0.1)):
        with pytest.raises(Misuse):
            analytic_gaussian_sigma(epsilon, delta)


def test_poisson_sample_takes_each_with_its_rate() -> None:
    taken = poisson_sample(RANDOM, 200_000, 0.3)
    assert np.all(np.diff(taken) > 0)
    assert abs(taken.size - 60_000) < 7 * math.sqrt(200_000 * 0.21)
    assert poisson_sample(RANDOM, 5, 0.0).size == 0
    assert poisson_sample(RANDOM, 5, 1.0).tolist() == [0, 1, 2, 3, 4]
    for size, rate in ((-1, 0.5), (3, 1.5), (3, -0.1), (3, math.nan)):
        with pytest.raises(Misuse):
            poisson_sample(RANDOM, size, rate)


def test_fixed_sample_is_uniform_over_subsets() -> None:
    counts = dict.fromkeys(itertools.combinations(range(5), 2), 0)
    for _ in range(5_000):
        counts[tuple(fixed_sample(RANDOM, 5, 2).tolist())] += 1
    # each count is binomial(5000, 1/10): 7 standard deviations of 21
    assert all(abs(c - 500) < 7 * 21.3 for c in counts.values())
    assert fixed_sample(RANDOM, 4, 4).tolist() == [0, 1, 2, 3]
    with pytest.raises(Misuse):
        fixed_sample(RANDOM, 4, 5)
