"""C': the strategy matrix, lower triangular, banded, Toeplitz, of small integers.

    row t of what is opened:  z_t = sum_j C'[t, j] x_j + noise_t          decoded:  x = C'^-1 z

The error of the training is that of the models, the prefix sums A C'^-1 noise; A counts momentum and decay. The best
real C is found by L-BFGS over its bands and rounded to the fewest bits that lose less than half a per cent. Source:
BandMF, section 3; the power series behind Toeplitz matrices: Denisov et al. 2022, appendix. Does not belong here:
participations (`patterns`), vectors (`rows`).
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from protocols import numbers

Floats = NDArray[np.float64]
LOSS = 0.005
"""What rounding to integers may add to the error, relative."""
FEWEST_BITS, MOST_BITS = 4, 16
MOST_ROWS = 2**20


@dataclass(frozen=True)
class StrategyMatrix:
    """C' over `rounds` rows: C'[t, j] is coefficients[t - j] within the band, else 0. The first coefficient is > 0.

    strategy = optimised(rounds=100, bands=10)
    strategy.norm                 # the longest column's L2 norm: what one participation costs, in clips
    """

    coefficients: tuple[int, ...]
    rounds: int

    def __post_init__(self) -> None:
        numbers.whole("rounds", self.rounds, 1, MOST_ROWS)
        for place, coefficient in enumerate(self.coefficients or (0,)):
            numbers.whole(f"coefficient {place} of C'", coefficient, -(2**62) if place else 1, 2**62)

    @property
    def bands(self) -> int:
        return len(self.coefficients)

    @property
    def norm(self) -> float:
        """L2 norm of the longest column."""
        return math.hypot(*self.coefficients)

    @property
    def weights(self) -> tuple[float, ...]:
        """The bands over `norm`: how often, in clips, one participation enters each of its rows."""
        return tuple(abs(c) / self.norm for c in self.coefficients)

    def at(self, row: int, column: int) -> int:
        """C'[row, column], both from 1."""
        return self.coefficients[row - column] if 0 <= row - column < self.bands else 0

    def matrix(self) -> NDArray[np.int64]:
        """C' whole, (rounds, rounds)."""
        rows = range(1, self.rounds + 1)
        return np.array([[self.at(row, column) for column in rows] for row in rows], np.int64)

    def live(self, row: int, among: range) -> list[int]:
        """The columns `among` that rows after `row` still need."""
        return [j for j in among if row < self.rounds and row + 1 - j < self.bands]


def series(rounds: int, momentum: float = 0.0, decay: float = 1.0) -> Floats:
    """The first column of A: what one gradient does to each later model.

    A server's momentum (v = momentum v + g) and weight decay (model = decay model + v) make 1 / ((1 - decay x)
    (1 - momentum x)). momentum in [0, 1), decay in (0, 1], or Misuse.
    """
    momentum = numbers.real("momentum", momentum, "in [0, 1)", lambda number: 0 <= number < 1)
    decay = numbers.real("decay", decay, "in (0, 1]", lambda number: 0 < number <= 1)
    first = np.eye(1, numbers.whole("rounds", rounds, 1, MOST_ROWS))[0]
    return _divided(first, np.convolve([1.0, -decay], [1.0, -momentum]))


def error(bands: Floats, workload: Floats) -> float:
    """Root mean square over rows of A C^-1 noise, for noise of deviation 1 over C's longest column."""
    return math.sqrt(_squares(bands, workload)[0] * float(bands @ bands) / len(workload))


def gain(strategy: StrategyMatrix, momentum: float = 0.0, decay: float = 1.0) -> float:
    """Error over that of independent noise at the same price: a participation costs as much in either."""
    workload = series(strategy.rounds, momentum, decay)
    return error(np.array(strategy.coefficients, float), workload) / error(np.ones(1), workload)


@lru_cache(maxsize=64)
def real(rounds: int, bands: int, momentum: float = 0.0, decay: float = 1.0) -> tuple[float, ...]:
    """The bands of the best real C, the first 1, for `rounds` rows of at most `bands` bands."""
    from scipy.optimize import minimize

    workload = series(rounds, momentum, decay)
    bands = min(bands, rounds)

    def objective(rest: Floats) -> tuple[float, Floats]:
        c = np.concatenate([[1.0], rest])
        squares, slope = _squares(c, workload)
        norm = float(c @ c)
        return math.log(squares) + math.log(norm), (slope / squares + 2 * c / norm)[1:]

    start = _root(workload)[1:bands]
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 500}).x
    return (1.0, *map(float, found))


@lru_cache(maxsize=64)
def optimised(rounds: int, bands: int, momentum: float = 0.0, decay: float = 1.0) -> StrategyMatrix:
    """The integer strategy of the fewest bits that loses less than `LOSS` of the best real one.

    rounds: rows of the plan. bands: >= 1; more than the rounds count as those. Raises Misuse for what is out of range.
    """
    bands, workload = numbers.whole("bands", bands, 1), series(rounds, momentum, decay)
    best = np.array(real(rounds, bands, momentum, decay))
    wanted = error(best, workload) * (1 + LOSS)
    for bits in range(FEWEST_BITS, MOST_BITS + 1):
        most = 2**bits - 1
        sizes = np.linspace(most / 2, most, 32) / np.abs(best).max()
        candidates = [np.rint(size * best) for size in sizes]
        found = min(candidates, key=lambda made: error(made, workload))
        if error(found, workload) < wanted:
            break
    return StrategyMatrix(tuple(int(c) for c in found), rounds)


def _squares(bands: Floats, workload: Floats) -> tuple[float, Floats]:
    """The squared Frobenius norm of A C^-1, and its slope in the bands: d u = -x^k u / c for u = w / c."""
    rounds = len(workload)
    u = _divided(workload, bands)
    slower = _divided(u, bands)
    left = np.arange(rounds, 0, -1.0) * u
    slope = [-2 * float(left[k:] @ slower[: rounds - k]) for k in range(len(bands))]
    return float(left @ u), np.array(slope)


def _divided(numerator: Floats, denominator: Floats) -> Floats:
    """The power series of a quotient, as long as the numerator."""
    from scipy.signal import lfilter

    return np.asarray(lfilter([1.0], denominator, numerator), np.float64)


def _root(power: Floats) -> Floats:
    """The power series whose square is `power`, which begins with 1: the best full C for a Toeplitz A."""
    root = np.zeros_like(power)
    root[0] = 1.0
    for k in range(1, len(power)):
        root[k] = (power[k] - root[1:k] @ root[k - 1 : 0 : -1]) / 2
    return root
