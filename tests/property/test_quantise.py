"""The quantiser: bounded, counted, within half a step; capacity is proved or refused."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from protocols.errors import CapacityError, Misuse
from protocols.quantise import CAPACITY, Quantiser, prove_capacity

ranges = st.floats(1e-9, 1e9)


@given(st.integers(2, 32), ranges, st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=20))
def test_values_within_the_range_lose_at_most_half_a_step(
    bits: int, limit: float, values: list[float]
) -> None:
    quantiser = Quantiser.for_range(bits, limit)
    vector = np.array(values)
    integers, clipped = quantiser.encode(vector)
    assert np.abs(integers).max() <= quantiser.bound
    inside = np.abs(vector) <= limit
    assert clipped <= np.count_nonzero(~inside)
    assert (np.abs(quantiser.decode(integers) - vector)[inside] <= quantiser.step / 2).all()


@given(st.integers(2, 32), ranges)
def test_the_step_is_the_smallest_power_of_two_that_covers_the_range(bits: int, limit: float) -> None:
    quantiser = Quantiser.for_range(bits, limit)
    assert quantiser.range >= limit
    assert quantiser.range / 2 < limit


@given(st.integers(1, 1 << 20), st.integers(1, 1 << 24), st.integers(0, 1 << 31))
def test_capacity_is_the_exact_product_or_a_refusal(clients: int, cap: int, bound: int) -> None:
    product = clients * cap * bound
    if product < CAPACITY:
        assert prove_capacity(clients, cap, bound) == product
    else:
        with pytest.raises(CapacityError, match="lower the bits"):
            prove_capacity(clients, cap, bound)


def test_capacity_holds_at_its_edge_and_no_further() -> None:
    assert prove_capacity(1, 1, CAPACITY - 1) == CAPACITY - 1
    with pytest.raises(CapacityError):
        prove_capacity(1, 1, CAPACITY)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5), st.integers(2, 24))
def test_the_range_of_a_reference_covers_twice_its_largest_weight(values: list[float], bits: int) -> None:
    reference = np.array(values)
    assume(np.isfinite(reference).all())
    assert Quantiser.for_reference(bits, reference).range >= max(1.0, 2 * np.abs(reference).max())


@pytest.mark.parametrize(
    "bad", [(1, 1.0), (33, 1.0), (16, 0.0), (16, -1.0), (16, float("inf")), (16, float("nan"))]
)
def test_impossible_ranges_and_widths_are_refused(bad: tuple[int, float]) -> None:
    with pytest.raises(Misuse):
        Quantiser.for_range(*bad)


@given(st.integers(2, 32), ranges, st.integers(0, 3))
def test_the_bound_itself_is_not_clipped_and_the_next_step_is(bits: int, limit: float, beyond: int) -> None:
    quantiser = Quantiser.for_range(bits, limit)
    vector = np.array([1.0, -1.0, 0.0]) * (quantiser.bound + beyond) * quantiser.step
    integers, clipped = quantiser.encode(vector)
    assert integers.tolist() == [quantiser.bound, -quantiser.bound, 0]
    assert clipped == (2 if beyond else 0)
    assert integers.dtype == np.int64
    assert quantiser.decode(integers).dtype == np.float64


@pytest.mark.parametrize("bad", [(0, 1, 1), (1, 0, 1), (1, 1, -1)])
def test_a_cohort_of_nobody_or_a_negative_bound_is_misuse(bad: tuple[int, int, int]) -> None:
    with pytest.raises(Misuse, match="expected clients, weight_cap >= 1 and bound >= 0"):
        prove_capacity(*bad)


@pytest.mark.parametrize("step", [0.0, -1.0, 3.0, float("inf"), float("nan")])
def test_a_step_that_is_no_power_of_two_is_misuse(step: float) -> None:
    with pytest.raises(Misuse, match="power of two"):
        Quantiser(16, step)


@pytest.mark.parametrize("bits", [2, 32])
def test_the_least_and_the_most_bits_are_allowed(bits: int) -> None:
    assert Quantiser.for_range(bits, 1.0).bound == 2 ** (bits - 1) - 1


def test_an_empty_reference_has_the_least_range() -> None:
    assert Quantiser.for_reference(16, np.empty(0)) == Quantiser.for_range(16, 1.0)


@given(st.integers(2, 24), st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=4))
def test_a_references_range_is_that_of_twice_its_largest_weight(bits: int, values: list[float]) -> None:
    reference = np.array(values)
    expected = Quantiser.for_range(bits, max(1.0, 2 * float(np.abs(reference).max())))
    assert Quantiser.for_reference(bits, reference) == expected


@pytest.mark.parametrize(
    "bits, limit, step", [(2, 1.0, 1.0), (2, 1.0001, 2.0), (2, 0.5, 0.5), (3, 3.0, 1.0), (3, 3.1, 2.0)]
)
def test_a_range_that_is_a_multiple_of_a_power_of_two_wastes_nothing(
    bits: int, limit: float, step: float
) -> None:
    assert Quantiser.for_range(bits, limit).step == step
