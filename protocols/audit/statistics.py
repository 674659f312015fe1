"""The tests that statistical properties use, and what each of them finds: false-alarm rate, power, effect size."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special, stats

ALPHA = 1e-8
"""False-alarm rate of one statistical property; a whole audit has fewer than 100, so it stays below 10^-6."""

POWER = 0.99
MOST_CELLS = 256
_WINDOW = 6
"""Bits of a wide ring that are judged together."""


@dataclass(frozen=True)
class Design:
    """One property's tests. samples: elements that each judges (of each of two samples where `two` says so).
    tests: how many there are at most; together they raise a false alarm with probability ALPHA at most.
    """

    samples: int
    tests: int
    two: bool = False

    @property
    def level(self) -> float:
        """False-alarm rate of one test."""
        return ALPHA / self.tests

    def power(self, distance: float, cells: int = MOST_CELLS, windows: int = 11) -> float:
        """The least probability that a test finds a total variation distance from uniform over `cells`.

        Least over all shapes of that distance: for cell probabilities p, sum (p - 1/c)^2 c >= (2 distance)^2. Two
        samples of one size count as one of half of it.
        """
        level = self.level / windows
        effect = self.samples * (2 * distance) ** 2 / (2 if self.two else 1)
        return float(stats.ncx2.sf(stats.chi2.isf(level, cells - 1), cells - 1, effect))

    def distance(self, cells: int = MOST_CELLS, windows: int = 11) -> float:
        """The least total variation distance that is found with POWER, in thousandths."""
        return next(k / 1000 for k in range(1, 1001) if self.power(k / 1000, cells, windows) >= POWER)

    def ring(self) -> int:
        """The largest ring (of a power of two) in which a value that never comes is found with POWER."""
        sizes = [1 << k for k in range(1, 9)]
        return max(m for m in sizes if m == 2 or self._missing(m) >= POWER)

    def _missing(self, modulus: int) -> float:
        effect = self.samples / (modulus - 1) / (2 if self.two else 1)
        return float(stats.ncx2.sf(stats.chi2.isf(self.level, modulus - 1), modulus - 1, effect))

    def __str__(self) -> str:
        return (
            f"chi-square on {self.samples} elements{' of each sample' if self.two else ''}; false-alarm rate {ALPHA:g} "
            f"over {self.tests} tests; with power {POWER} it finds a total variation distance of {self.distance()} "
            f"over {MOST_CELLS} cells or fewer, of {self.distance(16, 1)} in a ring of 16 or less, and a value that "
            f"never comes in a ring of {self.ring()} or less"
        )


def chi_square_uniform(values: Any, modulus: int) -> float:
    """p-value that `values` (integers) are uniform over Z_modulus. A wide ring is judged six bits at a time,
    every bit of it where the modulus is a power of two, else its top and low ones: against the exact number of residues
    in each cell, which is not one number there.
    """
    elements = np.asarray(values).astype(np.uint64)
    if modulus <= MOST_CELLS:
        return _p(elements, np.ones(modulus))
    windows = list(_windows(elements, modulus))
    return min(1.0, len(windows) * min(_p(cells, residues) for cells, residues in windows))


def _windows(elements: Any, modulus: int) -> Iterator[tuple[Any, Any]]:
    """Cells of the elements, and how many residues of the ring each cell has."""
    cells, low = 1 << _WINDOW, np.uint64((1 << _WINDOW) - 1)
    if modulus & (modulus - 1):
        edges = [-(-cell * modulus // cells) for cell in range(cells + 1)]
        yield np.searchsorted(np.array(edges[1:-1], np.uint64), elements, side="right"), np.diff(edges)
        yield elements & low, np.array([-((rest - modulus) // cells) for rest in range(cells)])
        return
    width = modulus.bit_length() - 1
    for start in [*range(0, width - _WINDOW, _WINDOW), width - _WINDOW]:
        yield elements >> np.uint64(start) & low, np.ones(cells)


def _p(cells: Any, weights: Any) -> float:
    """p-value that elements come in cells in proportion to their weights."""
    counts, shares = np.bincount(cells.astype(np.int64), minlength=len(weights)), np.asarray(weights, float)
    expected = shares / shares.sum() * counts.sum()
    return float(special.chdtrc(len(shares) - 1, ((counts - expected) ** 2 / expected).sum()))


def two_sample(first: Any, second: Any, cells: int) -> float:
    """p-value that two samples of cell numbers have one distribution (chi-square of homogeneity)."""
    table = np.stack([np.bincount(first, minlength=cells), np.bincount(second, minlength=cells)])
    table = table[:, table.sum(0) > 0]
    return 1.0 if table.shape[1] < 2 else float(stats.chi2_contingency(table).pvalue)
