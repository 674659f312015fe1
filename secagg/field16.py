"""Arithmetic in GF(2^16) = GF(2)[x] / (x^16 + x^12 + x^3 + x + 1). What does not belong here: secret sharing itself.

Addition is xor. A product of a secret symbol with a public factor is the xor of the factor's multiples by x^0 .. x^15
under the symbol's bits: no table and no branch depends on a secret. Products of public points go through logarithm
tables (x generates the multiplicative group: the polynomial is primitive). numba is imported on first use.
"""

import functools

import numpy as np
import numpy.typing as npt

POLYNOMIAL = 0x1100B
ORDER = 65_535
Symbols = npt.NDArray[np.uint16]


@functools.cache
def tables() -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.int32]]:
    """Return (powers, logarithms) of the generator x: powers[i] = x^i, 0 <= i < 2 x 65,535; logarithms[0] is unused."""
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


def evaluate(polynomials: Symbols, points: Symbols) -> Symbols:
    """Return the values of w polynomials at p points: (t, w) coefficients, lowest power first, and (p,) ->
    (p, w) uint16.
    """
    return _evaluate(np.ascontiguousarray(polynomials), points)


def weighted(weights: Symbols, rows: Symbols) -> Symbols:
    """Return the sum of (t, w) secret rows, each times its public weight: (w,) uint16."""
    return _weighted(weights, np.ascontiguousarray(rows))


def lagrange(points: Symbols) -> Symbols:
    """Return the weights (t,) that interpolate at zero from t distinct nonzero public points.

    weights[i] = product over j != i of x_j / (x_j + x_i), by logarithms.
    """
    powers, logarithms = tables()
    own = logarithms[points].astype(np.int64)
    apart = logarithms[points[:, None] ^ points[None, :]]
    np.fill_diagonal(apart, 0)
    exponents = (own.sum() - own - apart.sum(axis=1, dtype=np.int64)) % ORDER
    return np.asarray(powers[exponents], np.uint16)


def _multiples(factors: Symbols) -> npt.NDArray[np.uint16]:
    """The factors times x^0 .. x^15: (16, len(factors))."""
    rows = np.empty((16, len(factors)), np.uint16)
    multiple = factors.astype(np.uint32)
    for bit in range(16):
        rows[bit] = multiple
        multiple = (multiple << np.uint32(1)) ^ (np.uint32(POLYNOMIAL) * (multiple >> np.uint32(15)))
    return rows


def plain_evaluate(polynomials: Symbols, points: Symbols) -> Symbols:
    """Horner's rule at every point, in NumPy."""
    multiples = _multiples(points)[:, :, None]
    values = np.zeros((len(points), polynomials.shape[1]), np.uint16)
    for coefficients in polynomials[::-1]:
        product = np.broadcast_to(coefficients, values.shape).copy()
        for bit in range(16):
            product ^= (0 - ((values >> bit) & 1)) & multiples[bit]
        values = product
    return values


def plain_weighted(weights: Symbols, rows: Symbols) -> Symbols:
    """The weighted sum, in NumPy."""
    multiples = _multiples(weights)[:, :, None]
    total = np.zeros(rows.shape[1], np.uint16)
    for bit in range(16):
        total ^= np.bitwise_xor.reduce((0 - ((rows >> bit) & 1)) & multiples[bit], axis=0)
    return total


_evaluate, _weighted = plain_evaluate, plain_weighted


def load() -> None:
    """Use compiled loops from here on: some thirty times as fast, after half a second for the compiler's import."""
    global _evaluate, _weighted  # which of two equal ways is taken, and nothing else
    from secagg import kernels

    one = np.ones((1, 1), np.uint16)
    kernels.evaluate(one, one[0])  # compiled now, and not in the middle of the first dealing
    kernels.weighted(one[0], one)
    _evaluate, _weighted = kernels.evaluate, kernels.weighted
