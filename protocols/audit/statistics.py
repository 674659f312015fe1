"""The tests that statistical properties use, with their false-alarm rate. Effect sizes and power stand with
the properties.
"""

from typing import Any

import numpy as np
from scipy import stats

ALPHA = 1e-8
"""False-alarm rate of one statistical property; a whole audit has fewer than 50, so it stays below 10^-6."""


def chi_square_uniform(values: Any, modulus: int) -> float:
    """p-value that `values` (integers) are uniform over Z_modulus; large rings are judged by their top and
    low bits.
    """
    elements = np.asarray(values).astype(np.uint64)
    if modulus <= 1 << 8:
        return _p(np.bincount(elements.astype(np.int64), minlength=modulus))
    high = (elements.astype(np.float64) / modulus * 64).astype(np.int64).clip(0, 63)
    low = (elements % np.uint64(64)).astype(np.int64)
    return min(1.0, 2 * min(_p(np.bincount(high, minlength=64)), _p(np.bincount(low, minlength=64))))


def _p(counts: Any) -> float:
    return float(stats.chisquare(counts).pvalue)


def two_sample(first: Any, second: Any, cells: int) -> float:
    """p-value that two samples of cell numbers have one distribution (chi-square of homogeneity)."""
    table = np.stack([np.bincount(first, minlength=cells), np.bincount(second, minlength=cells)])
    table = table[:, table.sum(0) > 0]
    return 1.0 if table.shape[1] < 2 else float(stats.chi2_contingency(table).pvalue)
