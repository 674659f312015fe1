"""Secret samples: each example at its rate, subsets alike, and what chances a sample's size has."""

import itertools
import math

import numpy as np
import pytest

from dp.mechanisms.sampling import chance_of, chance_of_fewer, fixed_sample, likely_sizes, poisson_sample
from protocols.errors import Misuse
from protocols.randomness import SystemRandom
from tests.unit.dp.scripted import Script, words

RANDOM = SystemRandom()


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


def test_a_sample_by_known_coins() -> None:
    quarter = 1 << 62
    assert poisson_sample(Script(words(quarter - 1, quarter, 0, 2**64 - 1)), 4, 0.25).tolist() == [0, 2]
    first, second = (5, 1, 1, 9), (0, 7, 3, 0)
    for count, known in ((0, []), (1, [2]), (2, [1, 2]), (3, [0, 1, 2])):
        assert fixed_sample(Script(words(*first, *second)), 4, count).tolist() == known
    large = words(2**63 + 1, 3, 2**64 - 1, 0, 0, 0)  # negative or none, were they read as floats
    assert fixed_sample(Script(large), 3, 1).tolist() == [1]
    with pytest.raises(Misuse):
        fixed_sample(RANDOM, 4, -1)
    assert poisson_sample(RANDOM, 0, 0.5).size == fixed_sample(RANDOM, 0, 0).size == 0


def test_chances_of_a_sample_by_counting() -> None:
    """Four coins of 1/4: 81, 108, 54, 12 and 1 of 256."""
    up = 1 + 1e-9
    assert chance_of_fewer(4, 0.25, 2) == pytest.approx(189 / 256 * up, rel=1e-13)
    assert chance_of_fewer(4, 0.25, 1) == pytest.approx(81 / 256 * up, rel=1e-13)
    assert chance_of_fewer(4, 0.25, 0) == 0
    assert chance_of_fewer(4, 0.25, 5) == 1
    assert chance_of_fewer(0, 0.25, 1) == 1
    assert likely_sizes(4, 0.25) == range(5)
    assert likely_sizes(5, 1.0) == range(5, 6)
    failing = {0: 1.0, 1: 0.5, 2: 0.25, 3: 0.0, 4: 1.0}
    assert chance_of(4, 0.25, failing) == pytest.approx((81 + 54 + 13.5 + 1) / 256 * up, rel=1e-13)
    assert chance_of(4, 0.25, {3: 0.0}) == pytest.approx(2e-40, rel=1e-6, abs=0)  # never nothing
    assert chance_of(4, 0.25, dict.fromkeys(range(5), 1.0)) == 1
    for size, rate in ((-1, 0.5), (3, 1.5), (3, -0.1), (3, math.nan)):
        with pytest.raises(Misuse):
            chance_of_fewer(size, rate, 1)


def test_the_sizes_beside_the_likely_ones_are_as_good_as_impossible() -> None:
    from scipy.stats import binom

    likely, law = likely_sizes(10_000, 0.1), binom(10_000, 0.1)
    assert law.cdf(likely[0] - 1) <= 1e-40 < law.cdf(likely[0])


def test_nor_is_a_larger_sample_looked_at() -> None:
    from scipy.stats import binom

    largest, absent = likely_sizes(10_000, 0.1)[-1], binom(10_000, 0.9)  # its lower tail is the exact one
    assert absent.cdf(10_000 - largest - 1) <= 1e-40 < absent.cdf(10_000 - largest)
    assert likely_sizes(5, 0.0) == range(1)
