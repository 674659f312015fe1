"""Words of a fixed number of bits as bytes, and arithmetic on residues. What does not belong here: what
they mean, keys.

Layout, in blocks of 2^17 words: every word's whole low bytes, word after word, then the bits above them,
packed densely, the first word's lowest bit first. Left-over bits are zero, so that equal words have equal
bytes.
"""

import numpy as np
from numpy.typing import NDArray

from protocols.errors import WireError

Words = NDArray[np.uint64]
BLOCK = 1 << 17


def packed_size(count: int, bits: int) -> int:
    """Bytes of `count` words of `bits` bits."""
    whole, rest = divmod(count, BLOCK)
    return whole * _block_size(BLOCK, bits) + _block_size(rest, bits)


def _block_size(count: int, bits: int) -> int:
    return count * (bits // 8) + (count * (bits % 8) + 7) // 8


def pack(words: Words, bits: int) -> bytes:
    """Return the bytes of a vector of words below 2^bits, 1 <= bits <= 64."""
    flat = np.ascontiguousarray(words, np.dtype("<u8")).ravel()
    return b"".join(_pack_block(flat[at : at + BLOCK], bits) for at in range(0, len(flat), BLOCK))


def _pack_block(words: Words, bits: int) -> bytes:
    whole, rest = divmod(bits, 8)
    octets = words.view(np.uint8).reshape(-1, 8)
    low = octets[:, :whole].tobytes()
    if not rest:
        return low
    high = np.unpackbits(octets[:, whole : whole + 1], axis=1, count=rest, bitorder="little")
    return low + np.packbits(high, bitorder="little").tobytes()


def unpack(data: bytes | memoryview, count: int, bits: int) -> Words:
    """Return `count` words. Raises WireError unless `data` is exactly what `pack` makes of some."""
    if len(data) != packed_size(count, bits):
        raise WireError(
            f"expected {count} words of {bits} bits in {packed_size(count, bits)} bytes, got {len(data)} bytes"
        )
    view, parts = memoryview(data), []
    for at in range(0, count, BLOCK):
        size = min(BLOCK, count - at)
        cut = _block_size(size, bits)
        parts.append(_unpack_block(view[:cut], size, bits))
        view = view[cut:]
    return np.concatenate(parts) if parts else np.empty(0, np.uint64)


def _unpack_block(view: memoryview, count: int, bits: int) -> Words:
    whole, rest = divmod(bits, 8)
    octets = np.zeros((count, 8), np.uint8)
    octets[:, :whole] = np.frombuffer(view[: count * whole], np.uint8).reshape(count, whole)
    if rest:
        flags = np.unpackbits(np.frombuffer(view[count * whole :], np.uint8), bitorder="little")
        if flags[count * rest :].any():
            raise WireError("bits are set after the last word")
        octets[:, whole] = np.packbits(flags[: count * rest].reshape(count, rest), axis=1, bitorder="little")[
            :, 0
        ]
    return octets.view(np.dtype("<u8"))[:, 0]


def unpack_below(data: bytes | memoryview, count: int, bits: int, limit: int) -> Words:
    """As `unpack`; raises WireError also for a word that is not below `limit`."""
    words = unpack(data, count, bits)
    if count and int(words.max()) >= limit:
        raise WireError(f"expected residues below {limit}, got {int(words.max())}")
    return words


def shift_up(words: Words, bits: int, modulus: int) -> Words:
    """Return words x 2^bits modulo a modulus below 2^60."""
    q, step = np.uint64(modulus), 64 - modulus.bit_length()
    result = words % q
    while bits > 0:
        result = (result << np.uint64(min(step, bits))) % q
        bits -= step
    return result
