"""A lower bound on epsilon from many runs on two neighbouring inputs: the classical tester, with exact
confidence.

For any event E, (epsilon, delta)-DP gives P[E] <= e^epsilon Q[E] + delta. E is "the score exceeds a
threshold" or its opposite; the threshold is chosen on one half of the runs, and Clopper-Pearson limits on
the other half bound P[E] from below and Q[E] from above (Jagielski, Ullman and Oprea, NeurIPS 2020; Nasr et
al., S&P 2021).
"""

import math
from collections.abc import Callable
from itertools import product

import numpy as np
from numpy.typing import NDArray

from protocols.errors import Misuse, require

Scores = NDArray[np.float64]


def two_distribution_epsilon(first: Scores, second: Scores, delta: float, alarm: float) -> float:
    """The largest epsilon that scores of runs on two neighbouring inputs refute at false-alarm rate
    `alarm`; 0 if none.

    `first` and `second`: one score per independent run, float64, at least 20 each. If the mechanism is (e,
    delta)-DP for the two inputs, the result exceeds e with probability at most `alarm`. Raises Misuse for
    too few or NaN scores.
    """
    if min(first.size, second.size) < 20 or np.isnan(first).any() or np.isnan(second).any():
        raise Misuse("expected at least 20 scores per input, none of them NaN")
    require(0 < alarm < 1 and 0 <= delta < 1, "0 < alarm < 1 and 0 <= delta < 1", f"{alarm} and {delta}")
    best = 0.0
    for sign, swap in product((1.0, -1.0), (False, True)):
        p, q = (second, first) if swap else (first, second)
        best = max(best, _one_event(sign * p, sign * q, delta, alarm / 4))
    return best


def audit_pair(
    first: Callable[[], float], second: Callable[[], float], *, runs: int, delta: float, alarm: float = 1e-6
) -> float:
    """Run a mechanism `runs` times on each of two neighbouring inputs and return `two_distribution_epsilon`
    of what came out.

    `first()` and `second()` run it once, afresh, and return a score of the output: larger where `first` is
    likelier.
    """
    scores = [np.array([run() for _ in range(runs)], dtype=np.float64) for run in (first, second)]
    return two_distribution_epsilon(scores[0], scores[1], delta, alarm)


def _one_event(p: Scores, q: Scores, delta: float, alarm: float) -> float:
    """For events {score > t}: t from the even runs, the bound from the odd ones; half the alarm for each
    limit."""
    thresholds = np.unique(np.quantile(np.concatenate([p[::2], q[::2]]), np.linspace(0.005, 0.995, 199)))
    bounds = [_bound(p[::2], q[::2], float(t), delta, alarm) for t in thresholds]
    return _bound(p[1::2], q[1::2], float(thresholds[int(np.argmax(bounds))]), delta, alarm)


def _bound(p: Scores, q: Scores, threshold: float, delta: float, alarm: float) -> float:
    from scipy.stats import beta

    hits, false = int(np.sum(p > threshold)), int(np.sum(q > threshold))
    least = float(beta.ppf(alarm / 2, hits, p.size - hits + 1)) if hits else 0.0
    most = float(beta.isf(alarm / 2, false + 1, q.size - false)) if false < q.size else 1.0
    return math.log((least - delta) / most) if least > delta and most > 0 else 0.0
