"""Audits find what is there: bounds stay below the truth, checks have the error rates they state."""

import math
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from dp.accountants import epsilon
from dp.audit import (
    audit_pair,
    audit_sum,
    check_fresh,
    check_noise,
    check_norms,
    check_sampling,
    draws_needed,
    one_run_epsilon,
    one_run_p_value,
    two_distribution_epsilon,
)
from dp.audit.one_run import guess
from dp.clipping import clip
from dp.events import Gaussian, Relation, Unit
from dp.mechanisms import discrete_gaussian, grid_noise, poisson_sample, skellam
from dp.mechanisms.sampling import fixed_sample
from protocols.errors import Misuse
from protocols.randomness import SecureRandom, SystemRandom
from tests.deterministic import DeterministicRandom

RANDOM: SecureRandom = SystemRandom()


@pytest.fixture(autouse=True)
def _drawn_alike_in_every_run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise is only material here: a check of power 0.999 would miss it in one run of thousands."""
    seed = zlib.crc32(request.node.name.encode())
    monkeypatch.setattr(sys.modules[__name__], "RANDOM", DeterministicRandom(seed))


@given(st.integers(1, 200), st.data(), st.floats(0, 5))
def test_without_delta_the_p_value_is_a_binomial_tail(
    guesses: int, data: st.DataObject, epsilon: float
) -> None:
    correct = data.draw(st.integers(0, guesses))
    exact = binom.sf(correct - 1, guesses, 1 / (1 + math.exp(-epsilon)))
    assert one_run_p_value(1000, guesses, correct, epsilon, 0.0) == pytest.approx(exact)


def test_delta_enters_as_in_the_theorem() -> None:
    """b + 2 m delta max_i P[v > B >= v - i] / i, summed here term by term."""
    m, r, v, epsilon, delta = 50, 20, 15, 0.4, 1e-3
    law = binom(r, 1 / (1 + math.exp(-epsilon)))
    steepest = max(sum(law.pmf(v - j) for j in range(1, i + 1)) / i for i in range(1, v + 1))
    exact = sum(law.pmf(k) for k in range(v, r + 1)) + 2 * m * delta * steepest
    assert one_run_p_value(m, r, v, epsilon, delta) == pytest.approx(exact)


def test_randomised_response_is_refuted_no_more_often_than_stated() -> None:
    """At its own epsilon, guesses of randomised response are the worst case: at most 5 % may refute it."""
    generator = np.random.default_rng(5)
    right = 1 / (1 + math.exp(-1.0))
    corrects = generator.binomial(300, right, size=4000)
    refutes = {int(c): one_run_epsilon(300, 300, int(c), 0.0, 0.05) > 1.0 for c in np.unique(corrects)}
    refuted = np.mean([refutes[int(c)] for c in corrects])
    assert refuted <= 0.05 + 5 * math.sqrt(0.05 / 4000)
    assert one_run_epsilon(300, 300, int(300 * right) + 40, 0.0, 0.05) > 1.0


def test_a_mechanism_that_tells_all_with_probability_delta_keeps_its_delta() -> None:
    generator = np.random.default_rng(6)
    tells = generator.random((2000, 100)) < 0.01
    corrects = np.where(tells, 1, generator.integers(0, 2, (2000, 100))).sum(axis=1)
    refuted = np.mean([one_run_epsilon(100, 100, int(c), 0.01, 0.05) > 0.0 for c in corrects])
    assert refuted <= 0.05 + 5 * math.sqrt(0.05 / 2000)


def test_one_run_bounds_are_monotone_and_checked() -> None:
    assert one_run_epsilon(100, 50, 25, 1e-5, 0.05) == 0.0
    assert one_run_epsilon(100, 50, 45, 1e-5, 0.05) < one_run_epsilon(100, 50, 50, 1e-5, 0.05)
    assert one_run_epsilon(100, 50, 50, 1e-2, 0.05) < one_run_epsilon(100, 50, 50, 1e-5, 0.05)
    for m, r, v in ((5, 6, 1), (5, 3, 4), (5, 3, -1)):
        with pytest.raises(Misuse):
            one_run_p_value(m, r, v, 1.0, 0.0)
    with pytest.raises(Misuse):
        one_run_epsilon(5, 3, 2, 0.0, 0.0)


def test_guesses_take_the_ends() -> None:
    assert guess(np.array([0.1, -3.0, 2.0, 0.0, 5.0]), 3).tolist() == [0, -1, 1, 0, 1]
    with pytest.raises(Misuse):
        guess(np.zeros(2), 3)


def gaussian_release(multiplier: float):
    def release(contributions: list[np.ndarray]) -> np.ndarray:
        total = sum(clip(c, 1.0).vector for c in contributions)
        return total + grid_noise(RANDOM, multiplier, 2.0**-20, total.size) * 2.0**-20

    return release


def stated(multiplier: float, delta: float) -> float:
    event = Gaussian(noise_multiplier=multiplier, unit=Unit.CLIENT, relation=Relation.ZERO_OUT)
    return epsilon([event], delta)


def test_a_canary_audit_stays_below_the_truth_and_is_of_use() -> None:
    """At 1e-6 false alarms the bound needs a small delta: 2 canaries x delta / guesses well below the
    alarm."""
    result = audit_sum(gaussian_release(0.5), 2000, 1.0, delta=1e-10, random=RANDOM)
    truth = stated(0.5, 1e-10)
    assert 1.0 < result.epsilon < truth
    assert not result.refutes(truth)
    assert audit_sum(gaussian_release(200.0), 500, 1.0, delta=1e-10, random=RANDOM).epsilon == 0.0


def test_the_canary_audit_checks_its_arguments() -> None:
    with pytest.raises(Misuse, match="one per coordinate"):
        audit_sum(gaussian_release(1.0), 10, 1.0, delta=1e-5, random=RANDOM, canaries=11)
    with pytest.raises(Misuse, match="shape"):
        audit_sum(lambda c: np.zeros(3), 10, 1.0, delta=1e-5, random=RANDOM)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0])
def test_two_distributions_stay_below_the_truth_and_are_of_use(sigma: float) -> None:
    scale = 2.0**20
    first = 1 + discrete_gaussian(RANDOM, sigma * scale, 20_000) / scale
    second = discrete_gaussian(RANDOM, sigma * scale, 20_000) / scale
    truth = stated(sigma, 1e-5)
    found = two_distribution_epsilon(first, second, 1e-5, 1e-6)
    assert 0.05 * truth < found < truth
    assert two_distribution_epsilon(second[::2], second[1::2], 1e-5, 1e-6) < 0.2


def test_a_pair_of_runs_is_audited_and_a_false_statement_refuted() -> None:
    """Noise multiplier 0.3 where 3 is stated (epsilon 1.3 at 1e-5)."""
    release = gaussian_release(0.3)
    unit, nothing = np.eye(1, 4)[0], np.zeros(4)
    found = audit_pair(
        lambda: float(release([unit])[0]), lambda: float(release([nothing])[0]), runs=400, delta=1e-5
    )
    assert stated(3.0, 1e-5) < found < stated(0.3, 1e-5)


def test_two_distributions_check_their_arguments() -> None:
    scores = np.zeros(30)
    for arguments in (
        (scores[:5], scores, 0.0, 0.1),
        (np.full(30, math.nan), scores, 0.0, 0.1),
        (scores, scores, 1.0, 0.1),
        (scores, scores, 0.0, 0.0),
    ):
        with pytest.raises(Misuse):
            two_distribution_epsilon(*arguments)


@pytest.mark.parametrize("ratio", [0.5, 0.9])
def test_draws_needed_give_the_stated_power(ratio: float) -> None:
    """Fraction of 300 tries caught: at least 0.999 is stated; 5 standard errors below that would be a
    failure."""
    count = draws_needed(ratio)
    caught = sum(
        not check_noise(discrete_gaussian(RANDOM, 100.0 * ratio, count).astype(float), 100.0).passed
        for _ in range(300)
    )
    assert caught >= 300 * 0.999 - 5 * math.sqrt(300 * 0.001)
    with pytest.raises(Misuse):
        draws_needed(1.0)


@pytest.mark.parametrize("draw", [discrete_gaussian, skellam])
def test_sound_noise_passes(draw) -> None:
    parameter = 50.0 if draw is discrete_gaussian else 2500.0
    verdict = check_noise(draw(RANDOM, parameter, 50_000).astype(float), 50.0)
    assert verdict.passed
    assert verdict.alarm == 1e-7
    assert "50" in verdict.seen


def test_noise_checks_refuse_too_little_material() -> None:
    with pytest.raises(Misuse):
        check_noise(np.ones(99), 1.0)
    with pytest.raises(Misuse):
        check_noise(np.ones(100), 0.0)
    with pytest.raises(Misuse):
        check_fresh(np.ones(99), np.ones(99))
    with pytest.raises(Misuse):
        check_fresh(np.zeros(100), np.ones(100))


def test_norms_are_checked_exactly() -> None:
    assert check_norms([np.array([3.0, 4.0]), np.zeros(2)], 5.0).passed
    assert not check_norms([np.array([3.0, 4.0001])], 5.0).passed
    assert check_norms([], 1.0).passed


def test_fresh_noise_passes_and_equal_noise_does_not() -> None:
    noise = discrete_gaussian(RANDOM, 9.0, 10_000).astype(float)
    other = discrete_gaussian(RANDOM, 9.0, 10_000).astype(float)
    assert check_fresh(noise, other).passed
    assert not check_fresh(noise, noise).passed
    assert not check_fresh(noise, -noise).passed
    assert not check_fresh(noise, noise + other).passed


def test_only_poisson_samples_pass_for_poisson_samples() -> None:
    population, rate, rounds = 2000, 0.1, 100
    sound = [poisson_sample(RANDOM, population, rate) for _ in range(rounds)]
    everyone = [np.arange(population) for _ in range(rounds)]
    fixed = [fixed_sample(RANDOM, population, 200) for _ in range(rounds)]
    turns = [np.arange(200) + 200 * (r % 10) for r in range(rounds)]
    same = [sound[0]] * rounds
    assert check_sampling(sound, population, rate).passed
    for broken in (everyone, fixed, turns, same):
        assert not check_sampling(broken, population, rate).passed
    with pytest.raises(Misuse):
        check_sampling(sound[:10], population, rate)
