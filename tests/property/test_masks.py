"""Masks are the published cipher's keystream, cancel exactly in every ring, and need no memory for a second
vector.
"""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from protocols.errors import Misuse
from secagg.masks import BLOCK_BYTES, SEED_BYTES, TOGETHER, add_mask, apply_masks
from secagg.ring import Ring

# NIST SP 800-38A, F.5.1 (CTR-AES128.Encrypt): key, first counter block, and the first two output blocks.
NIST_SEED = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3cf0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
NIST_STREAM = bytes.fromhex("ec8cdf7398607cb0f2d21675ea9ea1e4362b7c3c6773516318a077d7fc5073ae")

seeds = st.binary(min_size=SEED_BYTES, max_size=SEED_BYTES)


def plain_mask(seed: bytes, dimension: int, item: int) -> list[int]:
    """The keystream at once, cut into little-endian integers."""
    cipher = Cipher(algorithms.AES(seed[:16]), modes.CTR(seed[16:])).encryptor()
    stream = cipher.update(bytes(dimension * item))
    return [int.from_bytes(stream[i : i + item], "little") for i in range(0, len(stream), item)]


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
def test_known_answer(dtype: type[np.unsignedinteger[Any]]) -> None:
    words = np.zeros(32 // np.dtype(dtype).itemsize, dtype)
    add_mask(words, NIST_SEED)
    assert words.astype(words.dtype.newbyteorder("<")).tobytes() == NIST_STREAM


@given(bits=st.integers(1, 64), dimension=st.integers(0, 300), seed=seeds)
@settings(max_examples=60, deadline=None)
def test_mask_is_the_keystream_in_the_ring(bits: int, dimension: int, seed: bytes) -> None:
    ring = Ring(bits)
    words = np.zeros(dimension, ring.dtype)
    add_mask(words, seed)
    plain = plain_mask(seed, dimension, ring.dtype.itemsize)
    assert ring.residues(words).tolist() == [value % ring.modulus for value in plain]


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_blocks_join_without_a_seam(bits: int, extra: int) -> None:
    ring = Ring(bits)
    words = np.zeros(2 * BLOCK_BYTES // ring.dtype.itemsize + extra, ring.dtype)
    add_mask(words, NIST_SEED)
    assert words.tolist() == plain_mask(NIST_SEED, len(words), ring.dtype.itemsize)


@given(bits=st.integers(1, 64), chosen=st.lists(seeds, min_size=1, max_size=5), data=st.data())
@settings(max_examples=60, deadline=None)
def test_masks_cancel_exactly_in_any_order(bits: int, chosen: list[bytes], data: st.DataObject) -> None:
    ring = Ring(bits)
    values = data.draw(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=40))
    words = ring.embed(np.array(values, np.int64))
    for seed in chosen:
        add_mask(words, seed)
    for seed in data.draw(st.permutations(chosen)):
        apply_masks(words, (), (seed,))
    assert ring.residues(words).tolist() == [value % ring.modulus for value in values]


def test_needs_no_second_vector() -> None:
    words = np.zeros(4_000_000, np.uint32)
    tracemalloc.start()
    add_mask(words, NIST_SEED)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * BLOCK_BYTES < words.nbytes / 10


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_bad_seed_is_refused_without_being_shown(length: int) -> None:
    seed = b"\xab" * length
    with pytest.raises(Misuse, match=f"got {length}") as refusal:
        add_mask(np.zeros(1, np.uint32), seed)
    assert "ab" * 4 not in str(refusal.value)
    assert "\\xab" not in str(refusal.value)


@pytest.mark.parametrize("words", [np.zeros(2, np.int64), np.zeros(2), np.zeros((2, 2), np.uint32)])
def test_bad_array_is_refused(words: NDArray[Any]) -> None:
    with pytest.raises(Misuse, match="uint32 or uint64"):
        apply_masks(words, (), (bytes(SEED_BYTES),))


@given(added=st.lists(seeds, max_size=40), taken=st.lists(seeds, max_size=40), dimension=st.integers(0, 50))
@settings(max_examples=30, deadline=None)
def test_many_masks_at_once_are_the_same_masks(
    added: list[bytes], taken: list[bytes], dimension: int
) -> None:
    together, one_by_one = np.zeros(dimension, np.uint32), np.zeros(dimension, np.uint32)
    apply_masks(together, added, taken)
    for seed in added:
        add_mask(one_by_one, seed)
    for seed in taken:
        apply_masks(one_by_one, (), (seed,))
    assert together.tolist() == one_by_one.tolist()


def test_many_masks_join_without_a_seam() -> None:
    chosen = [bytes([i]) * SEED_BYTES for i in range(TOGETHER + 1)]
    words, plain = (np.zeros(BLOCK_BYTES // 2 + 7, np.uint32) for _ in range(2))
    apply_masks(words, chosen, chosen[:1])
    for seed in chosen[1:]:
        plain += np.array(plain_mask(seed, len(plain), 4), np.uint32)
    assert np.array_equal(words, plain)


def test_one_bad_seed_among_many_changes_nothing() -> None:
    words = np.zeros(5, np.uint32)
    with pytest.raises(Misuse, match="got 3"):
        apply_masks(words, [NIST_SEED], [b"bad"])
    assert not words.any()
