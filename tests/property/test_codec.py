"""Records: canonical, strict, bounded. Any byte string is a record or a WireError."""

import enum
import tracemalloc
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from protocols.codec import BigInt, Record, decode_tagged, encode_tagged, tags
from protocols.errors import Misuse, WireError
from protocols.kernel import MAGIC, Message


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Inner(Record):
    TAG = 7
    name: str
    count: int

    def __post_init__(self) -> None:
        if self.count < 0:
            raise Misuse(f"expected count >= 0, got {self.count}")


@dataclass(frozen=True, eq=False)
class Everything(Record):
    TAG = 8
    flag: bool
    small: int
    big: BigInt
    real: float
    blob: bytes
    colour: Colour
    items: tuple[Inner, ...]
    pair: tuple[int, str]
    table: dict[int, bytes]
    maybe: str | None
    vector: NDArray[np.int64]


def everything() -> st.SearchStrategy[Everything]:
    i64 = st.integers(-(2**63), 2**63 - 1)
    return st.builds(
        Everything,
        st.booleans(),
        i64,
        st.integers(-(2**200), 2**200).map(BigInt),
        st.floats(allow_nan=False),
        st.binary(max_size=20),
        st.sampled_from(Colour),
        st.lists(st.builds(Inner, st.text(max_size=5), st.integers(0, 9)), max_size=3).map(tuple),
        st.tuples(i64, st.text(max_size=3)),
        st.dictionaries(i64, st.binary(max_size=3), max_size=4),
        st.none() | st.text(max_size=3),
        st.lists(i64, max_size=5).map(lambda v: np.array(v, np.int64)),
    )


@given(everything())
def test_decode_is_the_inverse_of_encode_and_encoding_is_canonical(record: Everything) -> None:
    data = record.encode()
    again = Everything.decode(data)
    assert again.encode() == data
    assert again.vector.tolist() == record.vector.tolist()
    assert (again.items, again.table, again.big, again.maybe) == (
        record.items,
        record.table,
        record.big,
        record.maybe,
    )


@given(st.binary(max_size=200))
def test_any_bytes_give_a_record_or_a_wire_error(data: bytes) -> None:
    for kind in (Everything, Inner, Message):
        try:
            record = kind.decode(data)
        except WireError:
            continue
        assert record.encode() == data


@given(everything(), st.data())
def test_a_changed_or_cut_encoding_is_refused_or_is_another_record(
    record: Everything, data: st.DataObject
) -> None:
    encoded = record.encode()
    cut = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(WireError):
        Everything.decode(encoded[:cut])
    with pytest.raises(WireError):
        Everything.decode(encoded + b"\0")


def test_announced_sizes_are_refused_before_they_are_allocated() -> None:
    huge = [
        Everything.decode,
        lambda d: Message.from_wire(MAGIC + d),
        lambda d: Inner.decode(d),
    ]
    bomb = b"\x01" + b"\xff" * 60
    tracemalloc.start()
    for decode in huge:
        with pytest.raises(WireError):
            decode(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_noncanonical_forms_are_refused() -> None:
    @dataclass(frozen=True)
    class Table(Record):
        table: dict[int, bool]

    good = Table({1: True, 2: False}).encode()
    first, second = good[4:13], good[13:22]
    with pytest.raises(WireError, match="ascending"):
        Table.decode(good[:4] + second + first)
    with pytest.raises(WireError, match="ascending"):
        Table.decode(good[:4] + first + first)
    with pytest.raises(WireError, match="0 or 1"):
        Table.decode(good[:-1] + b"\x02")

    @dataclass(frozen=True)
    class Big(Record):
        value: BigInt

    with pytest.raises(WireError, match="shortest"):
        Big.decode(b"\0\0\0\x02\0\x01")


def test_ranges_of_fields_hold_on_both_sides() -> None:
    with pytest.raises(Misuse):
        Inner("x", -1)
    data = Inner("x", 1).encode()
    with pytest.raises(WireError, match="count"):
        Inner.decode(data[:-8] + (-1).to_bytes(8, "big", signed=True))
    with pytest.raises(Misuse):
        Inner("x", 2**63).encode()


def test_tags_tell_kinds_apart() -> None:
    kinds = tags(Inner, Everything)
    assert decode_tagged(encode_tagged(Inner("x", 1)), kinds) == Inner("x", 1)
    with pytest.raises(WireError, match="unknown tag 9"):
        decode_tagged(b"\x00\x09", kinds)
    with pytest.raises(Misuse):
        tags(Inner, Inner)
