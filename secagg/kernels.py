"""The two loops that NumPy has no function for, compiled at first use and kept on disk (numba).

Importing this module imports the compiler, so it is imported only where a long vector is packed. What does
not belong here: anything that NumPy does as fast; checks of arguments, which `packing` has made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

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
