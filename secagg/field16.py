"""Arithmetic in GF(2^16) = GF(2)[x] / (x^16 + x^12 + x^3 + x + 1). What does not belong here: secret sharing itself.

Addition is xor. A product of a secret symbol with a public factor is the xor of one's multiples by x^0 .. x^15 under
the bits of the other: no place in a table and no branch depends on a secret. Products of public points go through
logarithm tables (x generates the multiplicative group: the polynomial is primitive).
"""

import functools

import numpy as np
import numpy.typing as npt

POLYNOMIAL = 0x1100B
ORDER = 65_535
Symbols = npt.NDArray[np.uint16]
_BITS = np.arange(16, dtype=np.uint16)
_ROOM = 1 << 19
"""Symbols that are looked up at a time: they stay in the third-level cache."""


@functools.cache
def tables() -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.int32]]:
    """Return (powers, logarithms) of the generator x: powers[i] = x^i, 0 <= i < 2 x 65,535; logarithms[0] = 0 is
    none."""
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
    """Return the values of w secret polynomials at p nonzero public points: (t, w) coefficients, lowest power first,
    and (p,) -> (p, w) uint16.
    """
    powers, logarithms = tables()
    count, width = polynomials.shape
    factors = powers[np.arange(count)[:, None] * logarithms[points].astype(np.int64) % ORDER]
    values = np.zeros((len(points), width), np.uint16)
    step = max(1, _ROOM // (4 * max(1, width) * max(16, len(points))))
    for at in range(0, count, step):
        values ^= _multiplied(polynomials[at : at + step], factors[at : at + step])
    return values


def _multiplied(rows: Symbols, factors: Symbols) -> Symbols:
    """The sums over (t, w) secret rows, each times its public factor: (t, p) factors -> (p, w).

    All sums of four multiples of a row are made once; four bits of a factor say which of them is meant (the "four
    Russians": Arlazarov et al., 1970).
    """
    sums = np.zeros((4, 16, *rows.shape), np.uint16)
    for bit in range(16):
        few, many = sums[bit // 4, : 1 << bit % 4], sums[bit // 4, 1 << bit % 4 : 2 << bit % 4]
        np.bitwise_xor(few, rows, out=many)
        rows = rows << _BITS[1] ^ np.uint16(POLYNOMIAL & ORDER) * (rows >> _BITS[15])
    quarters, row = np.arange(4)[:, None, None], np.arange(len(rows))[:, None]
    places = (16 * quarters + (factors >> 4 * quarters & 15)) * len(rows) + row
    whole = sums.view(np.uint64 if rows.shape[1] % 4 == 0 else np.uint16)  # words, where symbols fill them
    meant = whole.reshape(64 * len(rows), whole.shape[-1]).take(places.reshape(-1, factors.shape[1]), axis=0)
    sums.fill(0)  # as secret as the rows
    return np.asarray(np.bitwise_xor.reduce(meant, axis=0)).view(np.uint16)


def weighted(weights: Symbols, rows: Symbols) -> Symbols:
    """Return the sums of (..., t, w) secret rows, each times its public weight (..., t): (..., w) uint16."""
    powers, logarithms = tables()
    products = np.zeros_like(rows)
    for bit in _BITS:
        multiples = powers[logarithms[weights] + bit] * (weights > 0)
        products ^= (rows >> bit & 1) * multiples[..., None]
    return np.asarray(np.bitwise_xor.reduce(products, axis=-2))


def lagrange(points: Symbols) -> Symbols:
    """Return the weights (s, t) that interpolate at zero from each of s times t distinct nonzero public points.

    weights[i] = product over j != i of x_j / (x_j + x_i), by logarithms.
    """
    powers, logarithms = tables()
    own, among = logarithms[points].astype(np.int64), points.shape[1]
    below = sum(logarithms[points ^ points[:, [j]]].astype(np.int64) for j in range(among))
    return np.asarray(powers[(own.sum(axis=1, keepdims=True) - own - below) % ORDER])
