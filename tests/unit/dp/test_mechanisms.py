"""Samplers, the integer grid and the analytic Gaussian: ranges, exactness of the table, refusals."""

import itertools
import math
from collections.abc import Callable
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
from dp.mechanisms.draw_poisson import _log_factorial
from dp.mechanisms.draw_poisson import target as poisson_target
from dp.mechanisms.envelope import Envelope, Target, _alias_table, build
from dp.mechanisms.grid import grid_noise, noise_step, rounded_bound, to_grid
from protocols.errors import Misuse
from protocols.randomness import SystemRandom
from tests.unit.dp.scripted import Script, words

RANDOM = SystemRandom()
Law = Callable[[float], Target]
SIGMAS = [2.0**-6, 0.1, 0.5, 1.0, 2.7, 80.0, 1e3, 1e6, 2.0**40]
MEANS = [2.0**-20, 0.3, 1.0, 17.5, 1023.9, 1025.0, 1e6, 2.0**48]
LAWS = [*((gaussian_target, sigma) for sigma in SIGMAS), *((poisson_target, mean) for mean in MEANS)]


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


@pytest.mark.parametrize(("law", "spread"), LAWS)
def test_table_is_exact_and_its_envelope_lies_above(law: Law, spread: float) -> None:
    target = law(spread)
    envelope = build(target)
    share = column_share(envelope)
    assert sum(share) == 2048 << 53
    assert share[:-1] == [int(w) for w in envelope.weight[:-1]]
    size = 1 << envelope.shift
    with localcontext() as context:
        context.prec = 80
        highest = np.flatnonzero(envelope.start == target.mode)[:1]  # where it stops to rise
        for block in {*np.flatnonzero(envelope.weight[:-1])[:: max(1, 2048 // 64)], *highest}:
            for x in {int(envelope.start[block]), int(envelope.start[block]) + size - 1}:
                if x < 0 and target.low == 0:
                    continue
                keep = Decimal(envelope.scale) * target.exact(x).exp() / int(envelope.weight[block])
                assert keep <= 1
                assert Decimal(int(envelope.surely[block])) / (1 << (64 - envelope.shift)) <= keep


@pytest.mark.parametrize(("law", "spread"), LAWS)
def test_weights_are_as_accurate_as_they_claim(law: Law, spread: float) -> None:
    target = law(spread)
    at = np.unique(np.linspace(target.low, target.high, 101).astype(np.int64))
    with localcontext() as context:
        context.prec = 80
        for x, fast in zip(at.tolist(), target.log_weight(at).tolist(), strict=True):
            exact = target.exact(x)
            if exact > -80:
                assert abs(Decimal(fast) - exact) <= Decimal(target.error)


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
    assert brute == pytest.approx(delta, rel=1e-5, abs=0)


def test_analytic_gaussian_refuses_nonsense() -> None:
    for sigma, epsilon in ((0.0, 1.0), (1.0, -1.0), (math.nan, 1.0)):
        with pytest.raises(Misuse):
            analytic_gaussian_delta(sigma, epsilon)
    for epsilon, delta in ((0.0, 1e-5), (1.0, 0.0), (1.0, 1.0), (math.nan, 0.1)):
        with pytest.raises(Misuse):
            analytic_gaussian_sigma(epsilon, delta)


# -- known answers --


def flat(reach: int) -> Target:
    return Target(0, -reach, reach, 0.0, lambda x: np.zeros(len(x)), lambda _: Decimal(0))


@pytest.mark.parametrize(("law", "spread"), LAWS)
def test_blocks_cover_the_table_without_gaps_and_waste_little(law: Law, spread: float) -> None:
    target = law(spread)
    envelope = build(target)
    size, blocks = 1 << envelope.shift, np.count_nonzero(envelope.weight)
    assert np.all(np.diff(envelope.start[:blocks]) == size)
    assert target.mode in envelope.start
    assert 0 <= target.low - envelope.start[0] < size
    assert 0 <= envelope.start[blocks - 1] + size - 1 - target.high < size
    assert not envelope.start[blocks:].any()
    assert not envelope.surely[blocks:].any()
    assert envelope.shift == 0 or blocks > 2048 // 3  # as fine as the table allows
    assert 0 < column_share(envelope)[-1] < (2048 << 53) * 2.0**-29  # proposals that fall beside every block
    if envelope.shift == 0:
        keep = np.exp(target.log_weight(envelope.start[:blocks]) + envelope.log_ratio[:blocks])
        assert np.all(
            envelope.surely[:blocks] * 2.0**-64 > keep * (1 - 2.0**-26 - 5 * target.error) - 2.0**-60
        )


def test_every_place_is_drawn_into_also_across_chunks() -> None:
    one = build(Target(7, 7, 7, 0.0, lambda x: np.where(x == 7, 0.0, -np.inf), lambda _: Decimal(0)))
    for count in (0, 1, 40_000):
        assert one.draw(RANDOM, count).tolist() == [7] * count


def test_the_widest_table() -> None:
    assert build(flat(2044 * 2**39 - 1)).shift == 40
    with pytest.raises(Misuse, match="too large to sample"):
        build(flat(2045 * 2**39))


def test_an_alias_table_takes_weights_up_to_all_it_has() -> None:
    full = 1 << 53
    threshold, alias = _alias_table([full + full // 4, full // 2, full + full // 4, 0])
    share = [0] * 4
    for column in range(4):
        share[column] += int(threshold[column])
        share[alias[column]] += full - int(threshold[column])
    assert share == [full + full // 4, full // 2, full + full // 4, full]
    assert _alias_table([2 * full, 0])[0].tolist() == [full, 0]  # nothing is left for rejections
    for wrong in ([2 * full + 1, 0], [3 * full, 1, 0], [0, 1]):
        with pytest.raises(AssertionError):
            _alias_table(wrong)


def test_a_draw_follows_its_two_words() -> None:
    """11 bits name a column, 53 choose between it and its alias; the second word says where in the block."""
    envelope = build(gaussian_target(1e3))
    column = int(np.flatnonzero((envelope.threshold < 1 << 53) & (envelope.weight > 0))[0])
    other, cut = int(envelope.alias[column]), int(envelope.threshold[column])
    for fraction, block in ((cut - 1, column), (cut, other)):
        drawn = envelope._some(Script(words((column << 53) | fraction, 5)), 1)
        assert drawn.tolist() == [envelope.start[block] + 5]
    assert envelope._some(Script(words(2047 << 53, 0)), 1).size == 0  # beside every block


def test_the_far_tail_is_drawn_too() -> None:
    """12 deviations off: a block of the least weight, 2^-64 of all proposals; what is kept of it decimals decide."""
    envelope = build(gaussian_target(1.0))
    block = int(np.flatnonzero(envelope.start == 12)[0])
    assert envelope.weight[block] == 1
    with localcontext() as context:
        context.prec = 80
        rest = int(Decimal(envelope.scale) * Decimal(-72).exp() * (1 << 64))
    for more, kept in ((bytes(16), [12]), (b"\xff" * 16, [])):
        assert envelope._some(Script(words(block << 53, rest), more), 1).tolist() == kept


@pytest.mark.parametrize(("sigma", "x", "near"), [(1.0, 1, 0.01), (2.0**40, 2**41, 0.3)])
def test_floats_decide_where_they_can_and_only_there(sigma: float, x: int, near: float) -> None:
    envelope = build(gaussian_target(sigma))
    blocks = np.count_nonzero(envelope.weight)
    block = int(np.searchsorted(envelope.start[:blocks], x, side="right")) - 1
    unit = 2.0 ** -(64 - envelope.shift)
    probability = math.exp(-0.5 * (x / sigma) ** 2 + envelope.log_ratio[block])
    margin = 2.0**-36 + 2 * unit + 2.0**-40
    for distance in (-1 - near, near - 1, 1 - near, 1 + near):
        rest = round((probability + distance * margin) / unit)
        source = Script(bytes(16))
        kept = envelope._keep(source, np.array([x]), np.array([block]), np.array([rest], dtype=np.uint64))
        assert kept.tolist() == [distance < 0]
        assert len(source.chunks) == (abs(distance) > 1)


def test_the_gaussian_is_cut_beyond_twelve_and_a_half_deviations() -> None:
    target = gaussian_target(2.0)
    assert (target.mode, target.low, target.high, target.error) == (0, -26, 26, 2.0**-36)
    assert target.exact(-3) == Decimal(-9) / 8


@pytest.mark.parametrize("mean", [0.3, 17.5, 1023.9, 1025.0, 1e6])
def test_the_poisson_is_cut_where_it_is_worth_nothing_and_little_later(mean: float) -> None:
    from scipy.stats import poisson as law

    target, nothing = poisson_target(mean), -105 * math.log(2)
    known = {
        0.3: (0, 52),
        17.5: (0, 100),
        1023.9: (633, 1441),
        1025.0: (634, 1442),
        1e6: (987_819, 1_012_205),
    }
    assert (target.low, target.high) == known[mean]
    assert target.error == (2.0**-30 if mean < 1025 else 2.0**-19)
    assert target.mode == math.floor(mean)
    assert law.logsf(target.high, mean) < nothing
    # Bernstein's bound on the upper tail is a loose one for a small mean
    assert mean < 1000 or law.logsf(mean + 0.94 * (target.high - mean), mean) > nothing
    if target.low:
        assert (
            law.logcdf(target.low - 1, mean)
            < nothing
            < law.logcdf(target.low + 0.15 * (mean - target.low), mean)
        )


@pytest.mark.parametrize("mean", [17.5, 1023.9, 1025.0, 1e6])
def test_exact_weights_of_neighbours_have_the_ratio_of_the_law(mean: float) -> None:
    target = poisson_target(mean)
    with localcontext() as context:
        context.prec = 80
        assert target.exact(target.mode) == 0
        for x in (target.mode - 10, target.mode, target.mode + 100):
            ratio = (Decimal(mean) / (x + 1)).ln()
            assert abs(target.exact(x + 1) - target.exact(x) - ratio) < Decimal("1e-60")


def test_nothing_below_zero_or_beyond_the_factorials_is_drawn() -> None:
    target = poisson_target(0.3)
    assert target.log_weight(np.array([-1000, 1000])).tolist() == [-math.inf, -math.inf]
    weights = target.log_weight(np.array([-1, 0, 1, target.high + 1, target.high + 2]))
    assert np.isfinite(weights).tolist() == [False, True, True, True, False]
    assert weights[1:3].tolist() == [0.0, math.log(0.3)]
    assert weights[0] == weights[4] == -math.inf


def test_the_series_of_log_factorials() -> None:
    with localcontext() as context:
        context.prec = 80
        for x in (600, 1000):
            assert abs(_log_factorial(x) - Decimal(math.factorial(x)).ln()) < Decimal("1e-65")


def test_the_limits_of_the_samplers() -> None:
    for draw, low, high in (
        (discrete_gaussian, 2.0**-6, 2.0**40),
        (poisson, 2.0**-20, 2.0**48),
        (skellam, 2.0**-19, 2.0**49),
    ):
        for spread in (low, high):
            assert draw(RANDOM, spread, 3).shape == (3,)
        for spread in (math.nextafter(low, 0), math.nextafter(high, math.inf)):
            with pytest.raises(Misuse):
                draw(RANDOM, spread, 1)


def test_the_grid_to_the_last_step() -> None:
    assert to_grid(np.array([[0.7, -0.8], [2.0, 0.0]]), 0.5).tolist() == [[1, -2], [4, 0]]
    assert to_grid(np.array([0.7]), 0.5).dtype == np.int64
    assert to_grid(np.array([1.0], np.float32), 1 / 123456789) == 123456789  # in 64 bits, whatever came
    last = math.nextafter(2.0**62, 0)
    assert to_grid(np.array([last, -last]), 1.0).tolist() == [int(last), -int(last)]
    for value, step in ((2.0**62, 1.0), (-(2.0**62), 1.0), (1.0, 0.0), (1.0, -1.0), (1.0, math.inf)):
        with pytest.raises(Misuse):
            to_grid(np.array([value]), step)
    assert rounded_bound(3.0, 16, 0.5) == 8 * (1 + 2.0**-30)
    assert rounded_bound(0.0, 0, 0.5) == 0
    for wrong in ((-1.0, 4, 1.0), (1.0, -1, 1.0), (1.0, 4, 0.0), (math.nan, 4, 1.0)):
        with pytest.raises(Misuse):
            rounded_bound(*wrong)
    assert (noise_step(1.0), noise_step(8.0, 3), noise_step(0.9, 0)) == (2.0**-20, 1.0, 0.5)
    assert not grid_noise(RANDOM, 2.0**-6, 1.0, 5).any()
    assert grid_noise(RANDOM, 1.0, 2.0**-20, 5).any()


def test_the_analytic_gaussian_at_known_places() -> None:
    # at epsilon 0 the total variation distance of two normal laws one unit apart
    for sigma in (0.5, 3.0):
        known = math.erf(1 / (2 * math.sqrt(2) * sigma))
        assert analytic_gaussian_delta(sigma, 0.0) == pytest.approx(known, rel=1e-12)
    for sigma, epsilon in ((math.inf, 1.0), (1.0, math.inf), (-1.0, 0.0)):
        with pytest.raises(Misuse):
            analytic_gaussian_delta(sigma, epsilon)
    for epsilon, delta in ((math.inf, 0.1), (-1.0, 0.1), (1.0, 1.5)):
        with pytest.raises(Misuse):
            analytic_gaussian_sigma(epsilon, delta)
    for epsilon in (0.01, 0.5, 30.0):
        least = analytic_gaussian_sigma(epsilon, 1e-5)
        assert analytic_gaussian_delta(least * (1 - 3e-9), epsilon) > 1e-5
