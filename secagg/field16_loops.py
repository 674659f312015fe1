"""The two loops of GF(2^16) over secret symbols, in the subset of Python that numba compiles. Importing this module
imports the compiler. What does not belong here: anything else.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def evaluate(polynomials: Array, points: Array) -> Array:
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


def weighted(weights: Array, rows: Array) -> Array:
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


def compiled() -> tuple[Callable[..., Array], Callable[..., Array]]:
    """Return both as machine code, without the interpreter's lock, ready to be called; kept beside the source."""
    compile_ = numba.njit(cache=True, nogil=True)
    loops = compile_(evaluate), compile_(weighted)
    one = np.ones((1, 1), np.uint16)
    for loop, arguments in zip(loops, ((one, one[0]), (one[0], one)), strict=True):
        loop(*arguments)
    return loops
