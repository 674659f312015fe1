"""The randomised Hadamard rotation: spreads a vector's energy evenly, so that rounding and wrapping cost
little.

R x = H diag(s) x / sqrt(D): x padded with zeros to D = 2^k, s uniform signs, H the Walsh-Hadamard matrix.
The signs come from a public seed that everybody shares (the session's broadcast fixes it before any input);
nothing here is secret or private. Source: Kairouz, Liu and Steinke (ICML 2021), section 4.1, after Suresh
et al. 2017.
"""

import hashlib
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.errors import require

Floats = NDArray[np.float64]


def padded(dimension: int) -> int:
    """D: the least power of two that is at least `dimension` >= 1."""
    require(dimension >= 1, "a dimension of at least 1", dimension)
    return 1 << (dimension - 1).bit_length()


def signs(seed: bytes, size: int) -> Floats:
    """`size` signs of +-1.0 from a public seed of 32 bytes (SHAKE-256, with its own label)."""
    require(len(seed) == 32, "a seed of 32 bytes", len(seed))
    digest = hashlib.shake_256(b"secagg rotation v1\0" + seed).digest((size + 7) // 8)
    bits = np.unpackbits(np.frombuffer(digest, np.uint8), count=size)
    return (1.0 - 2.0 * bits).astype(np.float64)


def rotate(vector: Floats, seed: bytes) -> Floats:
    """R x, float64 of length `padded(len(x))`; keeps the L2 norm up to relative 2^-45."""
    size = padded(vector.size)
    wide = np.zeros(size)
    wide[: vector.size] = vector
    wide *= signs(seed, size)
    _transform()(wide)
    wide *= size**-0.5
    return wide


def unrotate(vector: Floats, seed: bytes, dimension: int) -> Floats:
    """Inverse of rotate: the first `dimension` coordinates of diag(s) H y / sqrt(D)."""
    require(vector.size == padded(dimension), f"a vector of length {padded(dimension)}", vector.size)
    wide = np.array(vector, np.float64)
    _transform()(wide)
    wide *= signs(seed, vector.size) * vector.size**-0.5
    return wide[:dimension]


@cache
def _transform() -> Callable[[Any], None]:
    import numba  # half a second: only who rotates pays for it

    def walsh_hadamard(values: Any) -> None:
        half = 1
        while half < values.size:
            for start in range(0, values.size, 2 * half):
                for i in range(start, start + half):
                    a, b = values[i], values[i + half]
                    values[i], values[i + half] = a + b, a - b
            half *= 2

    compiled: Callable[[Any], None] = numba.njit(cache=True, nogil=True)(walsh_hadamard)
    return compiled
