"""The three loops of GF(2^16), in the subset of Python that numba compiles. What does not belong here:
anything else.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def evaluate(polynomials: Array, points: Array, values: Array) -> None:
    """Horner's rule at every point; `values` (p, w) starts as zero."""
    degree, width = polynomials.shape
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


def lagrange(points: Array, powers: Array, logarithms: Array, weights: Array) -> None:
    """weights[i] = product over j != i of x_j / (x_j + x_i), by logarithms."""
    total = np.int64(0)
    for j in range(len(points)):
        total += logarithms[points[j]]
    for i in range(len(points)):
        exponent = total - logarithms[points[i]]
        for j in range(len(points)):
            if j != i:
                exponent -= logarithms[points[j] ^ points[i]]
        weights[i] = powers[exponent % 65535]


def weighted(weights: Array, rows: Array, total: Array) -> None:
    """total[i] ^= weights[r] x rows[r, i] over all r."""
    count, width = rows.shape
    for r in range(count):
        multiple = np.uint32(weights[r])
        for bit in range(16):
            factor = np.uint16(multiple)
            for i in range(width):
                total[i] ^= np.uint16(-((rows[r, i] >> bit) & 1)) & factor
            multiple = (multiple << np.uint32(1)) ^ (np.uint32(0x1100B) * (multiple >> np.uint32(15)))
