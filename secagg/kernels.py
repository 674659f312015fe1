"""Loops that NumPy has no function for, compiled at first use and kept on disk (numba): over packed bits, and over
secret symbols of GF(2^16).

Importing this module imports the compiler, so it is imported only where a long vector is packed or many shares are
made. What does not belong here: anything that NumPy does as fast; checks of arguments, which callers have made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

from secagg.ring import Words

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """`function` as machine code, without the interpreter's lock, cached beside the source."""
    return cast(Callable[P, R], numba.njit(cache=True, nogil=True)(function))


@compiled
def pack_words(words: Words, bits: int, out: NDArray[np.uint64]) -> None:
    """Write the low `bits` of each word one after another into `out`, from its least significant bit on."""
    keep = np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(64 - bits)
    pending = np.uint64(0)
    filled = 0
    at = 0
    for word in words:
        value = np.uint64(word) & keep
        pending |= value << np.uint64(filled)
        filled += bits
        if filled >= 64:
            out[at] = pending
            at += 1
            filled -= 64
            # A shift by the whole width is undefined, and nothing is left over then.
            pending = value >> np.uint64(bits - filled) if filled > 0 else np.uint64(0)
    if filled > 0:
        out[at] = pending


@compiled
def add_unpacked(
    words: Words, bits: int, windows: NDArray[np.uint64], octets: NDArray[np.uint8], count: int
) -> None:
    """Add elements 0 to `count` - 1 of a packed string to the words, modulo the word.

    octets: the string. windows: its 64-bit little-endian words at every byte (they overlap). An element lies in the
    window at its first byte and, if it is wide, the byte after that.
    """
    keep = np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(64 - bits)
    for i in range(count):
        position = np.uint64(i) * np.uint64(bits)
        at = position >> np.uint64(3)
        shift = position & np.uint64(7)
        # Two shifts to the left: by 64 - shift at once would be undefined where shift is 0.
        beyond = (np.uint64(octets[at + np.uint64(8)]) << np.uint64(1)) << (np.uint64(63) - shift)
        words[i] += words.dtype.type(((windows[at] >> shift) | beyond) & keep)


@compiled
def evaluate(polynomials: NDArray[Any], points: NDArray[Any]) -> NDArray[Any]:
    """Horner's rule at every point."""
    degree, width = polynomials.shape
    values = np.zeros((len(points), width), dtype=np.uint16)
    multiples = np.empty(16, dtype=np.uint16)
    product = np.empty(width, dtype=np.uint16)
    for p in range(len(points)):
        multiple = np.uint32(points[p])
        for bit in range(16):
            multiples[bit] = np.uint16(multiple)
            multiple = (multiple << np.uint32(1)) ^ (np.uint32(0x1100B) * (multiple >> np.uint32(15)))
        for power in range(degree - 1, -1, -1):
            for i in range(width):
                product[i] = polynomials[power, i]
            for bit in range(16):
                for i in range(width):
                    product[i] ^= np.uint16(-((values[p, i] >> bit) & 1)) & multiples[bit]
            for i in range(width):
                values[p, i] = product[i]
    return values


@compiled
def weighted(weights: NDArray[Any], rows: NDArray[Any]) -> NDArray[Any]:
    """The sum of weights[r] x rows[r, i] over all r."""
    count, width = rows.shape
    total = np.zeros(width, dtype=np.uint16)
    for r in range(count):
        multiple = np.uint32(weights[r])
        for bit in range(16):
            factor = np.uint16(multiple)
            for i in range(width):
                total[i] ^= np.uint16(-((rows[r, i] >> bit) & 1)) & factor
            multiple = (multiple << np.uint32(1)) ^ (np.uint32(0x1100B) * (multiple >> np.uint32(15)))
    return total
