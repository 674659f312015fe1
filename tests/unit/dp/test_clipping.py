"""Clip, then measure, never exceeds the bound; rounding keeps the bound that is accounted, with probability
one."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dp.clipping import Clipped, clip, l2_norm
from dp.rounding import conditional_round, l1_bound, rounded_l2_bound
from protocols.errors import Misuse
from protocols.randomness import SystemRandom

RANDOM = SystemRandom()
BOUNDS = st.floats(1e-3, 1e3) | st.sampled_from([1.0, 2.0**-500, 2.0**500, 1e-30, 1e30])


def exact_square(values) -> Fraction:
    return sum((Fraction(float(v)) ** 2 for v in np.asarray(values, dtype=np.float64).ravel()), Fraction(0))


@given(
    hnp.arrays(np.float64, st.integers(0, 40), elements=st.floats(allow_nan=False, allow_infinity=False)),
    BOUNDS,
)
@example(np.array([5e-324, 5e-324]), 1.0)
@settings(max_examples=300, deadline=None)
def test_a_clipped_vector_keeps_the_bound_and_its_direction(vector: np.ndarray, bound: float) -> None:
    result = clip(vector, bound)
    assert exact_square(result.vector) <= Fraction(bound) ** 2
    assert float(np.linalg.norm(result.vector)) <= bound
    assert Fraction(result.norm) ** 2 >= exact_square(vector) if math.isfinite(result.norm) else True
    if not result.was_clipped:
        assert np.array_equal(result.vector, vector)
    else:
        assert float(np.linalg.norm(result.vector)) >= bound * (1 - 1e-12)
        assert np.all(np.sign(result.vector) * np.sign(vector) >= 0)


def test_a_million_coordinates_keep_the_bound_however_they_are_summed() -> None:
    vector = np.frombuffer(RANDOM.bytes(8_000_000), dtype="<i8").astype(np.float64)
    clipped = clip(vector, 1.0).vector
    assert float(np.linalg.norm(clipped)) <= 1.0
    assert math.fsum((clipped * clipped).tolist()) <= 1.0
    assert math.sqrt(sum(v * v for v in clipped[:1000].tolist())) <= 1.0


def test_zero_and_huge_updates() -> None:
    assert clip(np.zeros(5), 1.0).vector.tolist() == [0.0] * 5
    assert clip(np.zeros(0), 1.0).norm == 0.0
    huge = clip(np.full(4, 1.7e308), 2.0)
    assert huge.vector == pytest.approx([1.0] * 4)
    assert huge.norm == math.inf
    assert clip(np.full(4, 5e-324), 1.0).was_clipped is False
    assert l2_norm(np.array([3.0, 4.0])) == pytest.approx(5.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(Misuse):
        clip(np.array([1.0, bad]), 1.0)


@pytest.mark.parametrize("bound", [0.0, -1.0, math.nan, math.inf])
def test_bad_bounds_are_refused(bound: float) -> None:
    with pytest.raises(Misuse):
        clip(np.ones(2), bound)


def test_nothing_private_is_printed() -> None:
    assert "0.123" not in repr(clip(np.array([0.123]), 1.0))
    assert isinstance(clip(np.ones(1), 1.0), Clipped)


@given(st.integers(1, 60), st.floats(0.0, 50.0), st.sampled_from([0.9, math.exp(-0.5), 1e-3]))
@settings(max_examples=200, deadline=None)
def test_conditional_rounding_keeps_its_bound(dims: int, bound: float, beta: float) -> None:
    raw = np.frombuffer(RANDOM.bytes(8 * dims), dtype="<i8").astype(np.float64)
    vector = clip(raw, bound).vector if bound > 1e-9 else np.zeros(dims)
    rounded = conditional_round(RANDOM, vector, bound, beta)
    assert np.all(np.abs(rounded - vector) < 1)
    assert sum(int(x) ** 2 for x in rounded) <= rounded_l2_bound(bound, dims, beta) ** 2
    assert np.abs(rounded).sum() <= l1_bound(math.sqrt(float(np.dot(rounded, rounded))), dims) + 1e-6


def test_rounding_has_no_bias_beyond_its_condition() -> None:
    total = sum(conditional_round(RANDOM, np.full(1000, 0.3), 9.5, 1e-9) for _ in range(200))
    # mean of 200,000 coins of 0.3: 7 standard errors; conditioning on an event of probability 1 - 1e-9 is not seen
    assert abs(float(total.mean()) / 200 - 0.3) < 7 * math.sqrt(0.21 / 200_000)


def test_rounding_refuses_what_is_too_long_or_not_finite() -> None:
    with pytest.raises(Misuse):
        conditional_round(RANDOM, np.ones(4), 1.0, 0.5)
    with pytest.raises(Misuse):
        conditional_round(RANDOM, np.array([math.nan]), 1.0, 0.5)
    with pytest.raises(Misuse):
        conditional_round(RANDOM, np.zeros(1), 2.0**40, 0.5)
    for bound, dims, beta in ((-1.0, 3, 0.5), (1.0, 3, 0.0), (1.0, 3, 1.0), (math.nan, 3, 0.5)):
        with pytest.raises(Misuse):
            rounded_l2_bound(bound, dims, beta)
