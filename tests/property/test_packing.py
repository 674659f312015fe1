"""Packing against plain Python integers, for every ring; whatever `pack` did not make is refused."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from protocols.codec import Record
from protocols.errors import Misuse, WireError
from secagg import packing
from secagg.ring import Ring, Words

WIDTHS = range(1, 65)
LONG = 1 << 13


def plain_pack(values: list[int], bits: int) -> bytes:
    """One big integer: element i times 2^(i * bits)."""
    whole = sum(value % (1 << bits) << (i * bits) for i, value in enumerate(values))
    return whole.to_bytes((len(values) * bits + 7) // 8, "little")


def random_words(ring: Ring, dimension: int, seed: int = 0) -> Words:
    low, high = 0, int(np.iinfo(ring.dtype).max)
    return np.random.default_rng(seed).integers(low, high, dimension, dtype=ring.dtype, endpoint=True)


@pytest.mark.parametrize("bits", WIDTHS)
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_packs_as_big_integers_do(bits: int, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=80))
    ring = Ring(bits)
    packed = packing.pack(ring.embed(np.array(values, np.int64)), ring)
    assert packed == plain_pack(values, bits)
    assert [int(x) for x in ring.residues(packing.unpack(packed, len(values), ring))] == [
        value % ring.modulus for value in values
    ]


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("dimension", [LONG, LONG + 63, LONG + 1])
def test_long_vectors_are_packed_as_big_integers_are(bits: int, dimension: int) -> None:
    ring = Ring(bits)
    words = random_words(ring, dimension)
    packed = packing.pack(words, ring)
    octets = words.astype(f"<u{words.itemsize}").view(np.uint8).reshape(dimension, -1)
    each = np.unpackbits(octets, axis=1, count=bits, bitorder="little")
    assert packed == np.packbits(each.reshape(-1), bitorder="little").tobytes()
    assert len(packed) == ring.packed_bytes(dimension)
    assert np.array_equal(ring.residues(packing.unpack(packed, dimension, ring)), ring.residues(words))


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("dimension", [50, LONG + 5])
def test_fused_addition_is_the_sum_modulo_the_ring(bits: int, dimension: int) -> None:
    ring = Ring(bits)
    vectors = [random_words(ring, dimension, seed) for seed in range(5)]
    total = packing.accumulator(dimension, ring)
    for vector in vectors:
        packing.add_packed(total, packing.pack(vector, ring), dimension, ring)
    plain = [sum(int(x) for x in column) % ring.modulus for column in zip(*vectors, strict=True)]
    assert ring.residues(packing.in_order(total, dimension, ring)).tolist() == plain


@dataclass(frozen=True, eq=False)
class Kept(Record):
    total: Words


@pytest.mark.parametrize("bits", WIDTHS)
def test_a_sum_that_is_stored_between_two_vectors_goes_on(bits: int) -> None:
    ring, dimension = Ring(bits), 21
    vectors = [random_words(ring, dimension, seed) for seed in range(3)]
    total = packing.accumulator(dimension, ring)
    for vector in vectors:
        packing.add_packed(total, packing.pack(vector, ring), dimension, ring)
        total = Kept.decode(Kept(total).encode()).total
    plain = [sum(int(x) for x in column) % ring.modulus for column in zip(*vectors, strict=True)]
    assert ring.residues(packing.in_order(total, dimension, ring)).tolist() == plain


@pytest.mark.parametrize("bits", WIDTHS)
def test_centred_reads_signed_sums(bits: int) -> None:
    ring, half = Ring(bits), 1 << (bits - 1)
    values = np.array([-half, -1, 0, half - 1] if bits > 1 else [-1, 0], np.int64)
    assert ring.centred(ring.embed(values)).tolist() == values.tolist()


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_unpacks_at_any_alignment(kind: type) -> None:
    ring = Ring(24)
    words = random_words(ring, LONG)
    shifted = memoryview(b"x" + packing.pack(words, ring))[1:]
    assert np.array_equal(ring.residues(packing.unpack(kind(shifted), LONG, ring)), ring.residues(words))


@pytest.mark.parametrize("bits", [1, 8, 20, 33, 64])
@pytest.mark.parametrize("dimension", [3, LONG + 1])
@pytest.mark.parametrize("change", [-1, 1])
def test_bad_length_is_refused_and_changes_nothing(bits: int, dimension: int, change: int) -> None:
    ring = Ring(bits)
    packed = packing.pack(random_words(ring, dimension), ring)
    total = packing.accumulator(dimension, ring)
    with pytest.raises(WireError, match="packed bytes"):
        packing.add_packed(total, packed[:-1] if change < 0 else packed + b"\0", dimension, ring)
    assert not total.any()


@pytest.mark.parametrize("bits", [1, 3, 20, 33])
def test_bad_unused_bits_are_refused(bits: int) -> None:
    ring = Ring(bits)
    packed = bytearray(packing.pack(np.zeros(3, ring.dtype), ring))
    packed[-1] |= 0x80
    with pytest.raises(WireError, match="unused"):
        packing.unpack(packed, 3, ring)


@pytest.mark.parametrize("bits", [0, 65, -1])
def test_bad_ring_is_refused(bits: int) -> None:
    with pytest.raises(Misuse, match="1 to 64"):
        Ring(bits)


@pytest.mark.parametrize(
    "words",
    [np.zeros(3, np.int64), np.zeros((3, 1), np.uint32), np.zeros(6, np.uint32)[::2], np.zeros(3, np.uint64)],
)
def test_bad_words_are_refused(words: NDArray[Any]) -> None:
    with pytest.raises(Misuse, match="uint32 words"):
        packing.pack(words, Ring(20))


@pytest.mark.parametrize("vector", [np.zeros(3), np.zeros((2, 2), int), np.array(3), np.array([True])])
def test_only_integer_vectors_are_embedded(vector: NDArray[Any]) -> None:
    with pytest.raises(Misuse, match="vector of integers"):
        Ring(20).embed(vector)


def test_no_session_imports_a_compiler_however_long_its_vectors() -> None:
    script = """
import sys
import numpy as np
from protocols import simulate
from secagg import SecAggPlus
simulate(SecAggPlus(), [np.ones(20_000, np.int64)] * 12)
print("numba" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
