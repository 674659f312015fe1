"""The dearest pattern of participations: rows at least a separation apart, at most so many of them.

Source: BandMF, algorithms 3 and 4 and equation 5. Does not belong here: what a row costs (`strategy`).
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from protocols.numbers import whole

Floats = NDArray[np.float64]


def dearest(costs: Sequence[float] | Floats, separation: int, participations: int) -> float:
    """Return the largest sum of at most `participations` of `costs` (each >= 0) whose places are `separation` apart.

    separation, participations: >= 1, or Misuse.

        dearest([1.0] * 50, separation=10, participations=9)      # 5.0: rows 1, 11, 21, 31 and 41
    """
    separation, participations = (
        whole("separation", separation, 1),
        whole("participations", participations, 1),
    )
    given = np.asarray(costs, np.float64)
    if not given.size:
        return 0.0
    before, best = np.zeros(given.size), 0.0
    for _ in range(min(participations, 1 + (given.size - 1) // separation)):
        upto = np.maximum.accumulate(given + before)  # the best so many that end by each place
        best = float(upto[-1])
        before = np.concatenate([np.zeros(min(separation, given.size)), upto[:-separation]])
    return best


def sensitivity(matrix: Floats, separation: int, participations: int) -> float:
    """Return an L2 bound on C Delta over all patterns, for contributions of norm 1: `matrix` C is (rows, rows).

    The square is at most the largest sum of |C^T C| over pairs of a pattern's rows. Where the rows of a column reach
    no further than the separation, pairs are a row with itself and the bound is exact; else it is from above.
    """
    gram = np.abs(matrix.T @ matrix)
    places = np.arange(len(gram))
    apart = np.abs(places[:, None] - places[None, :])
    gram[(apart > 0) & (apart < separation)] = 0.0
    own = np.diag(gram)
    # the dearest pattern seen from each row, itself among it
    if np.count_nonzero(gram) > np.count_nonzero(own):
        own = np.array([dearest(row, separation, participations) for row in gram])
    return math.sqrt(dearest(own, separation, participations))
