"""Arithmetic in GF(2^16) = GF(2)[x] / (x^16 + x^12 + x^3 + x + 1). What does not belong here: secret
sharing itself.

Addition is xor. A product of a secret symbol with a public factor is the xor of the factor's multiples by x^0
.. x^15 under the symbol's bits: no table and no branch depends on a secret. Products of public points go
through logarithm tables (x generates the multiplicative group: the polynomial is primitive). numba is
imported on first use.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

POLYNOMIAL = 0x1100B
ORDER = 65_535
Symbols = npt.NDArray[np.uint16]


@functools.cache
def tables() -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.int32]]:
    """Return (powers, logarithms) of the generator x: powers[i] = x^i for 0 <= i < 2 x 65,535,
    logarithms[0] is unused.
    """
    powers = np.empty(2 * ORDER, dtype=np.uint16)
    value = 1
    for exponent in range(ORDER):
        powers[exponent] = powers[exponent + ORDER] = value
        value <<= 1
        if value > ORDER:
            value ^= POLYNOMIAL
    logarithms = np.zeros(ORDER + 1, dtype=np.int32)
    logarithms[powers[:ORDER]] = np.arange(ORDER, dtype=np.int32)
    return powers, logarithms


def multiply(first: int, second: int) -> int:
    """Return the product of two public symbols (0 .. 65,535)."""
    powers, logarithms = tables()
    return int(powers[logarithms[first] + logarithms[second]]) if first and second else 0


def evaluate(polynomials: Symbols, points: Symbols) -> Symbols:
    """Return the values of w polynomials at p points: (t, w) coefficients, lowest power first, and (p,) ->
    (p, w) uint16.
    """
    values = np.zeros((len(points), polynomials.shape[1]), dtype=np.uint16)
    _kernels().evaluate(np.ascontiguousarray(polynomials), points, values)
    return values


def lagrange(points: Symbols) -> Symbols:
    """Return the weights (t,) that interpolate at zero from t distinct nonzero public points."""
    powers, logarithms = tables()
    weights = np.empty(len(points), dtype=np.uint16)
    _kernels().lagrange(points, powers, logarithms, weights)
    return weights


def weighted(weights: Symbols, rows: Symbols) -> Symbols:
    """Return the sum of (t, w) secret rows, each times its public weight: (w,) uint16."""
    total = np.zeros(rows.shape[1], dtype=np.uint16)
    _kernels().weighted(weights, np.ascontiguousarray(rows), total)
    return total


class _Kernels(NamedTuple):
    evaluate: Callable[..., None]
    lagrange: Callable[..., None]
    weighted: Callable[..., None]


@functools.cache
def _kernels() -> _Kernels:
    from numba import njit  # half a second: only who shares or reconstructs pays for it

    from secagg import field16_loops as loops

    compile_: Any = njit(cache=True, nogil=True)
    return _Kernels(compile_(loops.evaluate), compile_(loops.lagrange), compile_(loops.weighted))
