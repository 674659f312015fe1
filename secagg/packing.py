"""Ring elements as a dense byte string, and back: b bits per element, nothing in between.

Layout: element i occupies bits [i*b, (i+1)*b) of the string, where bit j is bit j mod 8 (from the least
significant) of byte j div 8; the string has ceil(d*b/8) bytes and its unused last bits are zero. Unpacking
is fused with addition, so that a receiver needs one accumulator and no vector per sender. What does not
belong here: headers and lengths on the wire; masks.

Widths of whole words are plain copies. For all others eight elements fill b bytes, so that every eighth element begins
at the same bit of its byte, b bytes after the one before: one strided array (`_pieces`). A sum keeps them apart, the
elements of each place in a group end to end, and is put into order once (`in_order`).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.errors import WireError
from secagg.ring import Ring, Words

Bytes = bytes | bytearray | memoryview
WHOLE = (8, 16, 32, 64)


def pack(words: Words, ring: Ring) -> bytes:
    """The ring's low bits of each word: `ring.packed_bytes(len(words))` bytes. Raises Misuse for a wrong array."""
    ring.check(words)
    if ring.bits in WHOLE:
        return words.astype(f"<u{ring.bits // 8}").tobytes()
    low, out = words & words.dtype.type(ring.modulus - 1), bytearray(-(-len(words) // 8) * ring.bits)
    for at, shift, piece in _pieces(out, len(words), ring.bits):
        part = low[at::8].astype(np.promote_types(low.dtype, piece.dtype), copy=False)
        moved = part << shift if shift >= 0 else part >> -shift
        np.bitwise_or(piece, moved, out=piece, casting="unsafe")
    return bytes(memoryview(out)[: ring.packed_bytes(len(words))])


def accumulator(dimension: int, ring: Ring) -> Words:
    """The sum of no packed vectors, for `add_packed`: words of an order of their own (`in_order`)."""
    length, size = dimension if ring.bits in WHOLE else -(-dimension // 8) * 8, max(4, _size(ring.bits))
    return np.zeros(length, f"<u{size}")  # a state keeps these words, and none of 16 bits


def add_packed(total: Words, packed: Bytes, dimension: int, ring: Ring) -> None:
    """Add the packed vector of `dimension` elements to an `accumulator` in place.

    Raises WireError (and leaves `total` as it was) when the length is not that of a packed vector or an unused bit is
    set.
    """
    check_packed(packed, dimension, ring)
    if ring.bits in WHOLE:
        total += np.frombuffer(packed, f"<u{ring.bits // 8}")
        return
    rows, missing = total.reshape(8, -1), len(total) * ring.bits // 8 - len(packed)
    found, below = np.empty_like(rows), np.zeros((8, 1), rows.dtype)
    data = b"".join((packed, bytes(missing))) if missing else packed
    for at, shift, piece in _pieces(data, len(total), ring.bits):
        if shift < 0:
            rows[at] += piece.astype(rows.dtype) << -shift
        else:
            found[at], below[at] = piece, shift
    found >>= below  # what a piece has of the elements beyond its own is a multiple of the modulus
    rows += found


def in_order(total: Words, dimension: int, ring: Ring) -> Words:
    """The elements of an `accumulator` in fresh words of the ring, whose bits above the ring's mean nothing."""
    rows = total.reshape(1 if ring.bits in WHOLE else 8, -1)
    return rows.T.reshape(-1)[:dimension].astype(ring.dtype)


def unpack(packed: Bytes, dimension: int, ring: Ring) -> Words:
    """The packed vector in fresh words, whose bits above the ring's mean nothing. Raises WireError as `add_packed`."""
    total = accumulator(dimension, ring)
    add_packed(total, packed, dimension, ring)
    return in_order(total, dimension, ring)


def check_packed(packed: Bytes, dimension: int, ring: Ring) -> None:
    """Raise WireError unless `packed` is what `pack` makes of some vector of `dimension` elements."""
    expected = ring.packed_bytes(dimension)
    if len(packed) != expected:
        raise WireError(
            f"{dimension} elements of {ring.bits} bits take {expected} packed bytes, got {len(packed)}"
        )
    unused = 8 * expected - dimension * ring.bits
    if unused and packed[-1] >> (8 - unused):
        raise WireError(f"the last {unused} bits of a packed vector are unused and must be zero")


def _size(bits: int) -> int:
    """Bytes of a piece that an element lies in, at most 7 bits from its begin; of 58 bits and more, but for its end."""
    least = bits if bits in WHOLE else min(bits + 7, 64)
    return next(size for size in (1, 2, 4, 8) if 8 * size >= least)


def _pieces(data: Bytes, count: int, bits: int) -> Iterator[tuple[int, int, NDArray[Any]]]:
    """Where `count` elements lie in whole groups of eight: for every place in a group the elements' pieces of the data
    and the bits below them in a piece; or, as a negative number, the bits that the piece before has of them.
    """
    size = _size(bits)
    for at in range(min(count, 8)):
        byte = min(at * bits // 8, bits - size)  # within the group
        shift, rows = at * bits - 8 * byte, len(range(at, count, 8))
        yield at, shift, np.ndarray((rows,), f"<u{size}", data, byte, (bits,))
        if shift + bits > 64:
            yield at, shift - 64, np.ndarray((rows,), "u1", data, byte + 8, (bits,))
