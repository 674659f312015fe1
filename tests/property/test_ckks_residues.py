"""Packed words and digits come back as they were; anything else is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from he.ckks.coefficients import gather, limbs_of, scaled, spread
from he.ckks.parameters import choose, ntt_prime
from he.residues import BLOCK, pack, packed_size, shift_up, unpack, unpack_below
from protocols.errors import WireError
from protocols.summation import centred


@settings(max_examples=80, deadline=None)
@given(bits=st.integers(1, 64), count=st.integers(0, 300), seed=st.integers(0, 2**32 - 1))
def test_words_come_back(bits: int, count: int, seed: int) -> None:
    words = np.random.default_rng(seed).integers(0, 1 << 64, count, np.uint64) >> np.uint64(64 - bits)
    data = pack(words, bits)
    assert len(data) == packed_size(count, bits) == (count * (bits // 8) + (count * (bits % 8) + 7) // 8)
    assert unpack(data, count, bits).tolist() == words.tolist()


@pytest.mark.parametrize("count", [BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
def test_words_come_back_across_blocks(count: int) -> None:
    words = np.arange(count, dtype=np.uint64) * np.uint64(7919) % np.uint64(1 << 33)
    assert np.array_equal(unpack(pack(words, 33), count, 33), words)


def test_other_lengths_high_bits_and_large_words_are_refused() -> None:
    data = pack(np.array([5, 6, 7], np.uint64), 3)
    assert data.hex() == "f501"  # 101 110 111, lowest bits first
    for bad in (data[:-1], data + b"\0", data[:1] + b"\x03"):
        with pytest.raises(WireError):
            unpack(bad, 3, 3)
    assert unpack_below(data, 3, 3, 8).tolist() == [5, 6, 7]
    with pytest.raises(WireError, match="below 7"):
        unpack_below(data, 3, 3, 7)


@given(st.lists(st.integers(0, (1 << 64) - 1), min_size=1), st.integers(0, 60), st.integers(20, 60))
def test_shifts_and_centring_agree_with_pythons_integers(words: list[int], up: int, bits: int) -> None:
    q = ntt_prime(1024, bits)
    shifted = shift_up(np.array(words, np.uint64), up, q)
    assert shifted.tolist() == [(w << up) % q for w in words]
    assert centred(shifted, q).tolist() == [w if w <= q // 2 else w - q for w in shifted.tolist()]


@settings(max_examples=100, deadline=None)
@given(
    data=st.data(),
    bits=st.integers(0, 63),
    modulus=st.sampled_from([0, 2, 3, 1 << 20, 1000003, (1 << 61) - 1, 1 << 64]),
)
def test_digits_of_sums_give_sums(data: st.DataObject, bits: int, modulus: int) -> None:
    bound = modulus // 2 if modulus else (1 << bits) // 8
    clients = data.draw(st.integers(1, 8))
    least, most = (-bound, bound - 1) if modulus == 1 << 64 else (-bound, bound)
    values = data.draw(
        st.lists(
            st.lists(st.integers(least, most), min_size=4, max_size=4), min_size=clients, max_size=clients
        )
    )
    p = choose(clients, 4, bound, data.draw(st.booleans()))
    parts = [spread(np.array(v, np.int64), p) for v in values]
    assert all(np.abs(x.astype(object)).max() <= p.digit_bound for x in parts)
    total = gather(np.sum(parts, axis=0), p, modulus)
    exact = [sum(column) for column in zip(*values, strict=True)]
    wrap = modulus or 1 << 64
    assert [int(t) % wrap for t in total] == [e % wrap for e in exact]


def test_coefficients_are_scaled() -> None:
    p = choose(3, 5000, 100, False)
    assert p.limbs == 1
    vector = np.array([100, -100, 1, 0, -1], np.int64)
    assert limbs_of(vector, p)[0].tolist() == vector.tolist()
    assert scaled(vector, p).tolist() == [x * p.scale % p.modulus for x in vector.tolist()]
