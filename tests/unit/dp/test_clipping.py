"""Clip, then measure, never exceeds the bound; rounding keeps the bound that is accounted, with probability
one."""

import logging
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dp.clipping import Clipped, clip, clip_or_drop, l2_norm
from dp.rounding import conditional_round, dithered_round, l1_bound, rounded_l2_bound
from protocols.errors import Misuse
from protocols.randomness import SystemRandom
from tests.unit.dp.scripted import Script, words

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


@pytest.mark.parametrize(
    ("bound", "dims", "beta", "exact"),
    [
        (3.0, 16, math.exp(-0.5), math.sqrt(18)),  # sqrt(9 + 16 / 4 + 1 x (3 + 4 / 2))
        (100.0, 4, math.exp(-8), 102.0),  # the sum of both: sqrt(10,000 + 1 + 4 x 101) is longer
        (0.0, 0, 0.5, 0.0),
        (0.5, 1, 0.5, math.sqrt(0.25 + 0.25 + math.sqrt(2 * math.log(2)))),
    ],
)
def test_the_bound_after_rounding_is_that_of_algorithm_1(
    bound: float, dims: int, beta: float, exact: float
) -> None:
    found = rounded_l2_bound(bound, dims, beta)
    assert exact * (1 + 2.0**-41) <= found <= exact * (1 + 2.0**-39)


def test_bounds_out_of_range_are_refused_one_by_one() -> None:
    for bound, dims, beta in ((math.inf, 1, 0.5), (1.0, -1, 0.5), (1.0, 1, 1.5), (-0.5, 1, 0.5)):
        with pytest.raises(Misuse, match="expected bound >= 0, dims >= 0, 0 < beta < 1"):
            rounded_l2_bound(bound, dims, beta)


@pytest.mark.parametrize(("l2", "dims", "l1"), [(3.0, 4, 6.0), (1.5, 100, 2.25)])
def test_the_l1_bound_of_integers(l2: float, dims: int, l1: float) -> None:
    assert l1_bound(l2, dims) == l1


HALF, LAST = 1 << 63, (1 << 64) - 1


def test_each_coordinate_is_rounded_up_with_the_probability_of_its_fraction() -> None:
    """A coin is the first 53 bits of a word: below the fraction is up."""
    vector = np.array([0.5, 0.5, -0.25, 2.0, 0.75])
    drawn = words(HALF - (1 << 11), HALF, 3 * (HALF >> 1) - 1, 0, LAST)
    rounded = conditional_round(Script(drawn), vector, 3.0, 0.5)
    assert (rounded.tolist(), rounded.dtype) == ([1, 0, 0, 2, 0], np.int64)


def test_what_is_rounded_too_far_is_drawn_again() -> None:
    vector = np.full(20, 0.5)
    assert 12 < rounded_l2_bound(math.sqrt(5), 20, 0.9) ** 2 < 13
    again = conditional_round(
        Script(words(*[0] * 13, *[LAST] * 7), words(*[0] * 12, *[LAST] * 8)), vector, math.sqrt(5), 0.9
    )
    assert again.sum() == 12


def test_a_vector_as_long_as_its_bound_is_rounded_and_a_longer_one_is_not() -> None:
    assert conditional_round(Script(words(0, 0)), np.array([3.0, 4.0]), 5.0, 0.5).tolist() == [3, 4]
    with pytest.raises(Misuse, match="norm at most 5"):
        conditional_round(RANDOM, np.array([3.0, 4.0 + 1e-7]), 5.0, 0.5)
    for bad in (math.nan, math.inf):
        with pytest.raises(Misuse, match=r"finite values and a rounded norm below 2\^31"):
            conditional_round(RANDOM, np.array([bad, 0.0]), 5.0, 0.5)
    wide = 2.0**31 - 2
    assert conditional_round(Script(words(0)), np.array([wide]), wide, 0.5).tolist() == [wide]
    with pytest.raises(Misuse, match=r"below 2\^31"):
        conditional_round(Script(words(0)), np.array([1.0]), 2.0**31, 0.5)


def test_a_dither_is_one_shift_below_one_and_then_down() -> None:
    vector = np.array([0.5, 0.5, -0.25, 2.0, 0.0])
    drawn = words(HALF - (1 << 11), HALF, HALF >> 1, 0, LAST)
    rounded = dithered_round(Script(drawn), vector)
    assert (rounded.tolist(), rounded.dtype) == ([0, 1, 0, 2, 0], np.int64)


@pytest.mark.parametrize("whole", [2.0, -3.0, 2.0**30])
def test_a_whole_number_stays_under_the_largest_shift(whole: float) -> None:
    """x + u was rounded to the next whole number."""
    drawn = np.full(1, 2**64 - 1, np.uint64).tobytes()
    assert dithered_round(Script(drawn), np.array([whole])).tolist() == [whole]
    assert dithered_round(Script(drawn), np.array([whole + 0.25])).tolist() == [whole + 1]


def test_the_norm_is_rounded_up_by_a_margin_for_any_order_of_summation() -> None:
    exact = 5 * (1 + 10 * 2.0**-52)
    assert l2_norm(np.array([3.0, 4.0])) == math.nextafter(exact, math.inf)
    assert l2_norm(np.zeros(3)) == 0.0
    assert l2_norm(np.array([], np.float64)) == 0.0
    assert 0.25 < l2_norm(np.array([0.25])) < 0.2500001  # no larger than what there is
    assert l2_norm(np.array([1.0])) == math.nextafter(1 + 9 * 2.0**-52, math.inf)
    assert 5e-200 < l2_norm(np.array([3e-200, 4e-200])) < 5.0001e-200
    assert l2_norm(np.array([9e307])) > 9e307
    assert l2_norm(np.array([1e308])) == math.inf
    assert l2_norm(np.full(4, 5e307)) == math.inf
    assert l2_norm(np.array([[3], [4]], np.int32)) == l2_norm(np.array([3.0, 4.0]))
    coarse = np.full(3, 0.1, np.float32)
    assert l2_norm(coarse) == l2_norm(coarse.astype(np.float64))


@pytest.mark.parametrize("factor", [1 + 1e-9, 3.0, 1e200])
def test_a_clipped_vector_is_as_long_as_the_bound_but_for_the_margins(factor: float) -> None:
    vector = np.array([3.0, 4.0]) * factor
    result = clip(vector, 5.0)
    assert result.was_clipped
    assert 5.0 * (1 - 2.0**-47) < float(np.linalg.norm(result.vector)) <= 5.0
    assert not clip(np.array([3.0, 4.0]), 5.0 * (1 + 1e-12)).was_clipped


def test_clipping_copies_and_leaves_what_came() -> None:
    short = np.array([[0.5], [0.25]])
    result = clip(short, 1.0)
    result.vector[:] = 9.0
    assert short.tolist() == [[0.5], [0.25]]
    for kind in (np.int32, np.float32):
        assert clip(np.array([1, 0], kind), 2.0).vector.dtype == np.float64


def test_what_may_be_longer_than_the_bound_by_rounding_is_clipped() -> None:
    vector = np.array([3.0, 4.0])
    norm = l2_norm(vector)
    assert clip(vector, norm).was_clipped
    assert not clip(vector, norm * (1 + 10 * 2.0**-52)).was_clipped


@pytest.mark.parametrize("bound", [2.0**-500, 2.0**500])
def test_the_bounds_go_from_2_to_minus_500_to_2_to_500(bound: float) -> None:
    assert clip(np.zeros(1), bound).norm == 0.0
    for outside in (bound * (1 - 2.0**-52) if bound < 1 else bound * (1 + 2.0**-52),):
        with pytest.raises(Misuse, match=r"from 2\^-500 to 2\^500"):
            clip(np.zeros(1), outside)


def test_an_update_that_is_not_finite_counts_as_zero_and_the_log_names_its_first_value(
    caplog: pytest.LogCaptureFixture,
) -> None:
    vector = np.array([[1.0, 2.0], [math.nan, math.inf]])
    with caplog.at_level(logging.WARNING):
        dropped = clip_or_drop(vector, 1.0, "client 'b', round 3")
    assert (dropped.vector.tolist(), dropped.norm, dropped.was_clipped) == ([0.0] * 4, math.inf, True)
    (record,) = caplog.records
    assert record.getMessage() == (
        "client 'b', round 3: 2 of the update's 4 values are NaN or infinite, the first is number 2; the update counts "
        "as zero, and nobody else is told: check the data, the loss and the learning rate"
    )
    assert clip_or_drop(np.array([0.5]), 1.0, "c").vector.tolist() == [0.5]
    assert clip_or_drop(np.array([math.nan], np.float32), 1.0, "c").vector.dtype == np.float64
    with pytest.raises(Misuse, match="clip norm"):
        clip_or_drop(vector, 0.0, "c")
