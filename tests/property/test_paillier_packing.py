"""Packed slots: exact for every cohort, bound and width up to what the layout proves, refused one beyond."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from he.packing import Packing, slot_bits
from protocols.errors import CapacityError, PeerError

PLAINTEXT_BITS = 2046


@st.composite
def cohorts(draw: st.DrawFn) -> tuple[int, list[list[int]]]:
    clients = draw(st.integers(1, 12))
    bound = draw(st.one_of(st.integers(0, 300), st.integers(0, 200).map(lambda bits: (1 << bits) - 1)))
    dimension = draw(st.integers(1, 90))
    value = st.one_of(st.sampled_from([-bound, bound, 0]), st.integers(-bound, bound))
    vector = st.lists(value, min_size=dimension, max_size=dimension)
    return bound, draw(st.lists(vector, min_size=clients, max_size=clients))


@settings(max_examples=60, deadline=None)
@given(cohorts(), st.sampled_from([0, 64]))
def test_sums_of_packed_plaintexts_unpack_to_the_sums(
    cohort: tuple[int, list[list[int]]], reserved: int
) -> None:
    bound, vectors = cohort
    dimension = len(vectors[0])
    packing = Packing.fit(PLAINTEXT_BITS, len(vectors) * bound, dimension, reserved)
    wide = packing.width > 64
    packed = [packing.pack(v if wide else np.array(v, np.int64)) for v in vectors]
    sums = [sum(column) for column in zip(*packed, strict=True)]
    assert all(abs(s) < 1 << (PLAINTEXT_BITS - 1) for s in sums)
    assert [int(x) for x in packing.unpack(sums, dimension)] == [sum(c) for c in zip(*vectors, strict=True)]


@pytest.mark.parametrize("largest", [0, 1, 2, 127, 128, (1 << 31) - 1, 1 << 31, (1 << 63) - 1])
def test_the_width_is_the_least_that_holds_both_extremes(largest: int) -> None:
    width = slot_bits(largest)
    assert (1 << (width - 1)) - 1 >= largest
    assert width == 1 or (1 << (width - 2)) - 1 < largest


@pytest.mark.parametrize("bound", [1, 7, (1 << 23) - 1, (1 << 40) - 1])
def test_every_slot_full_at_the_extreme_does_not_carry(bound: int) -> None:
    clients, dimension = 13, 400
    packing = Packing.fit(PLAINTEXT_BITS, clients * bound, dimension, 64)
    for pattern in ([1, -1], [1], [-1], [-1, 1, 1]):
        vector = np.array([bound * pattern[i % len(pattern)] for i in range(dimension)], np.int64)
        sums = [clients * m for m in packing.pack(vector)]
        assert packing.unpack(sums, dimension).tolist() == (clients * vector).tolist()


def test_one_slot_too_wide_for_the_key_is_refused() -> None:
    fits = (1 << (PLAINTEXT_BITS - 64 - 1)) - 1
    assert Packing.fit(PLAINTEXT_BITS, fits, 5, 64).slots == 1
    with pytest.raises(CapacityError, match="longer key"):
        Packing.fit(PLAINTEXT_BITS, fits + 1, 5, 64)


@given(st.integers(1, (1 << 64) - 1))
def test_a_plaintext_whose_reserved_bits_are_set_is_refused(low: int) -> None:
    packing = Packing.fit(PLAINTEXT_BITS, 1000, 50, 64)
    (plaintext,) = packing.pack(np.arange(50))
    with pytest.raises(PeerError, match="reserved"):
        packing.unpack([plaintext + low], 50)


def test_a_plaintext_beyond_its_slots_is_refused() -> None:
    packing = Packing(width=12, slots=3)
    for beyond in (1 << 36, -(1 << 36)):
        with pytest.raises(PeerError, match="slots"):
            packing.unpack([beyond], 3)


@given(st.integers(-(1 << 30), 1 << 30))
def test_one_slot_is_the_value_itself(value: int) -> None:
    assert Packing.fit(PLAINTEXT_BITS, 1 << 30, 1).pack(np.array([value])) == [value]
