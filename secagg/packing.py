"""Ring elements as a dense byte string, and back: b bits per element, nothing in between.

Layout: element i occupies bits [i*b, (i+1)*b) of the string, where bit j is bit j mod 8 (from the least
significant) of byte j div 8; the string has ceil(d*b/8) bytes and its unused last bits are zero. Unpacking
is fused with addition, so that a receiver needs one accumulator and no vector per sender. What does not
belong here: headers and lengths on the wire; masks.

Three ways give the same bytes (tested against each other): whole-byte widths are plain copies, short vectors
go through NumPy's bit functions, long ones through compiled loops (`kernels`, imported only then).
"""

from __future__ import annotations

import sys

import numpy as np

from protocols.errors import WireError
from secagg.ring import Ring, Words

SHORT = 1 << 13
"""Vectors below this length do not pay for importing the compiler."""

Bytes = bytes | bytearray | memoryview


def load(ring: Ring) -> None:
    """Make the compiled loops of this ring ready now, and not in the middle of the first long vector."""
    zeros = ring.zeros(SHORT)
    add_packed(zeros, pack(zeros, ring), ring)


def pack(words: Words, ring: Ring) -> bytes:
    """The ring's low bits of each word: `ring.packed_bytes(len(words))` bytes. Raises Misuse for a wrong array."""
    ring.check(words)
    if ring.bits in (8, 16, 32, 64):
        return words.astype(f"<u{ring.bits // 8}").tobytes()
    if len(words) < SHORT or sys.byteorder == "big":
        return _pack_short(words, ring.bits)
    return _pack_long(words, ring)


def add_packed(words: Words, packed: Bytes, ring: Ring) -> None:
    """Add the packed vector to the accumulator `words` in place, modulo the word.

    Raises WireError (and leaves `words` as it was) when the length is not that of a packed vector of
    `len(words)` elements or an unused bit is set; Misuse for a wrong accumulator.
    """
    ring.check(words)
    check_packed(packed, len(words), ring)
    if ring.bits in (8, 16, 32, 64):
        np.add(words, np.frombuffer(packed, f"<u{ring.bits // 8}"), out=words)
    elif len(words) < SHORT or sys.byteorder == "big":
        np.add(words, _unpack_short(packed, len(words), ring), out=words)
    else:
        _add_long(words, packed, ring)


def unpack(packed: Bytes, dimension: int, ring: Ring) -> Words:
    """The packed vector in fresh words. Raises WireError as `add_packed`."""
    words = ring.zeros(dimension)
    add_packed(words, packed, ring)
    return words


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


def _pack_short(words: Words, bits: int) -> bytes:
    octets = words.astype(words.dtype.newbyteorder("<")).view(np.uint8).reshape(len(words), words.itemsize)
    each = np.unpackbits(octets, axis=1, count=bits, bitorder="little")
    return np.packbits(each.reshape(-1), bitorder="little").tobytes()


def _unpack_short(packed: Bytes, dimension: int, ring: Ring) -> Words:
    flat = np.unpackbits(np.frombuffer(packed, np.uint8), count=dimension * ring.bits, bitorder="little")
    each = np.packbits(flat.reshape(dimension, ring.bits), axis=1, bitorder="little")
    octets = np.zeros((dimension, ring.dtype.itemsize), np.uint8)
    octets[:, : each.shape[1]] = each
    return octets.reshape(-1).view(ring.dtype.newbyteorder("<"))


def _pack_long(words: Words, ring: Ring) -> bytes:
    from secagg.kernels import pack_words

    size = ring.packed_bytes(len(words))
    out = np.zeros(-(-size // 8), np.uint64)
    pack_words(words, ring.bits, out)
    return out.tobytes()[:size]


def _add_long(words: Words, packed: Bytes, ring: Ring) -> None:
    from secagg.kernels import add_unpacked

    octets = np.frombuffer(packed, np.uint8)
    windows = np.ndarray((len(octets) - 7,), np.uint64, buffer=packed, strides=(1,))
    # Elements that begin in the last eight bytes have no whole window and next byte.
    count = (8 * (len(octets) - 8) + ring.bits - 1) // ring.bits
    add_unpacked(words, ring.bits, windows, octets, count)
    first = count * ring.bits
    rest = int.from_bytes(octets[first // 8 :].tobytes(), "little") >> first % 8
    last = [(rest >> i * ring.bits) & (ring.modulus - 1) for i in range(len(words) - count)]
    words[count:] += np.array(last, ring.dtype)
