"""Encodings at their edges: the largest record, the smallest items, and what has no encoding."""

import enum
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from protocols.codec import BigInt, Record
from protocols.errors import Misuse, WireError


class Mood(enum.Enum):
    NONE = ""


@dataclass(frozen=True)
class Wrapped(Record):
    flag: bool


@dataclass(frozen=True)
class Bounded(Record):
    MAX_SIZE: ClassVar[int] = 12
    data: bytes


def test_a_record_may_be_as_long_as_its_limit_and_no_longer() -> None:
    assert Bounded.decode(Bounded(b"x" * 8).encode()) == Bounded(b"x" * 8)
    with pytest.raises(WireError, match="at most 12 bytes, got 13"):
        Bounded.decode(Bounded(b"x" * 9).encode())


SMALLEST = [
    (bool, False),
    (int, 0),
    (BigInt, BigInt(0)),
    (float, 0.0),
    (str, ""),
    (bytes, b""),
    (Mood, Mood.NONE),
    (Wrapped, Wrapped(False)),
    (int | None, None),
    (list[int], []),
    (tuple[int, ...], ()),
    (tuple[bool, bool], (False, True)),
    (dict[int, bool], {}),
]


@pytest.mark.parametrize(("kind", "value"), SMALLEST, ids=[str(kind) for kind, _ in SMALLEST])
def test_items_of_the_least_size_may_end_a_message(kind: Any, value: Any) -> None:
    """An announced count is held against the bytes that are left: three smallest items just fit."""
    several = dataclass(frozen=True)(type("Several", (Record,), {"__annotations__": {"items": list[kind]}}))
    record: Any = several(items=[value] * 3)
    assert several.decode(record.encode()) == record
    paired = dataclass(frozen=True)(type("Paired", (Record,), {"__annotations__": {"by": dict[bool, kind]}}))
    table: Any = paired(by={False: value, True: value})
    assert paired.decode(table.encode()) == table


@dataclass(frozen=True, eq=False)
class Vectors(Record):
    vectors: list[NDArray[np.int64]]


def test_vectors_of_no_and_of_foreign_order() -> None:
    empty = Vectors([np.zeros(0, np.int64)] * 3)
    assert [v.size for v in Vectors.decode(empty.encode()).vectors] == [0, 0, 0]
    foreign = Vectors([np.array([1, -2], ">i8"), np.arange(6)[::2]])
    assert [v.tolist() for v in Vectors.decode(foreign.encode()).vectors] == [[1, -2], [0, 2, 4]]


@pytest.mark.parametrize("bad", [np.zeros((2, 2), np.int64), np.zeros(2, np.float16), np.array(3)])
def test_only_vectors_of_known_numbers_are_encoded(bad: Any) -> None:
    with pytest.raises(Misuse, match="expected a vector of"):
        Vectors([bad]).encode()


@pytest.mark.parametrize("kind", [object, complex, set[int], list, type(None)])
def test_a_field_of_another_type_has_no_encoding(kind: Any) -> None:
    odd = dataclass(frozen=True)(type("Odd", (Record,), {"__annotations__": {"thing": kind}}))
    with pytest.raises(Misuse, match="no encoding for"):
        odd(thing=None).encode()
