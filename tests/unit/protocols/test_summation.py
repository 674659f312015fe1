"""Inputs and residues at their edges: nothing wraps, nothing saturates, whatever the modulus."""

from typing import Any

import numpy as np
import pytest

from protocols import simulate
from protocols.errors import Misuse, PolicyRefusal
from protocols.plain import PlainSum
from protocols.randomness import SystemRandom
from protocols.session import Session
from protocols.summation import add_into

INT64 = np.iinfo(np.int64)


def session(bound: int = 7, modulus: int = 0, dimension: int = 2) -> Session:
    return PlainSum().session(["a", "b", "c"], dimension, bound, modulus=modulus, random=SystemRandom())


@pytest.mark.parametrize("kind", [np.int8, np.int64, np.uint8, np.uint64, ">i4"])
def test_any_integers_are_taken_as_int64(kind: Any) -> None:
    taken = PlainSum.checked_input(session(), np.array([7, 0], kind))
    assert (taken.dtype, taken.tolist()) == (np.int64, [7, 0])
    assert PlainSum.checked_input(session(), np.array([-7, 7])).tolist() == [-7, 7]


@pytest.mark.parametrize(
    "vector",
    [
        np.array([1.0, 2.0]),
        np.array([True, False]),
        np.array([1, 2], object),
        np.zeros(3, np.int64),
        np.zeros((2, 1), np.int64),
        np.zeros((), np.int64),
    ],
)
def test_what_is_no_integer_vector_of_the_dimension_is_misuse(vector: Any) -> None:
    with pytest.raises(Misuse, match=r"integer vector of shape \(2,\)"):
        PlainSum.checked_input(session(), vector)


@pytest.mark.parametrize("vector", [[8, 0], [0, -8], [INT64.min, 0]])
def test_what_lies_beyond_the_bound_is_refused_over_the_integers(vector: list[int]) -> None:
    with pytest.raises(PolicyRefusal, match="nothing saturates"):
        PlainSum.checked_input(session(), np.array(vector))
    assert PlainSum.checked_input(session(modulus=64), np.array(vector)).tolist() == vector


def test_unsigned_numbers_beyond_int64_are_misuse_also_in_a_ring() -> None:
    for modulus in (0, 64):
        asked = session(bound=INT64.max // 3, modulus=modulus)
        with pytest.raises(Misuse, match="fit in int64"):
            PlainSum.checked_input(asked, np.array([0, 2**63], np.uint64))
    largest = np.array([0, 2**63 - 1], np.uint64)
    assert PlainSum.checked_input(session(modulus=64), largest).tolist() == [0, 2**63 - 1]


@pytest.mark.parametrize("index", [-1, 3])
def test_only_clients_of_the_roster_start(index: int) -> None:
    with pytest.raises(Misuse, match="client index below 3"):
        PlainSum().client(session(), index, np.zeros(2, np.int64), random=SystemRandom())


@pytest.mark.parametrize("modulus", [3, 1000, 2**61 + 1, 2**62 - 1, 2**62, 2**63, 2**64])
def test_many_large_residues_add_up_for_any_modulus(modulus: int) -> None:
    """A sum that was reduced at the end only would wrap at 2^64, which is right for powers of two alone."""
    vectors = [np.array([min(modulus - 1, INT64.max), -1 - i, INT64.min]) for i in range(9)]
    total = simulate(PlainSum(), vectors, modulus=modulus).total
    exact = [sum(int(v[k]) for v in vectors) % modulus for k in range(3)]
    assert [int(t) % modulus for t in total] == exact
    assert all(-modulus <= 2 * int(t) < modulus for t in total)


def test_residues_are_reduced_where_they_lie() -> None:
    total = np.zeros(2, np.uint64)
    for _ in range(8):
        add_into(total, np.array([2**62 - 2, 5]), 2**62 - 1)
    assert total.tolist() == [(8 * (2**62 - 2)) % (2**62 - 1), 40]
