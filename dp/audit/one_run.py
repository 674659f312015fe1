"""A lower bound on epsilon from one run: Steinke, Nasr and Jagielski, "Privacy Auditing with One (1)
Training Run" (NeurIPS 2023).

Each of m canaries is put in or left out by a fair coin. The auditor guesses r of the coins and has v of
them right. Under (epsilon, delta)-DP for zero-out or add/remove neighbours that is improbable for large v
(Theorem 5.2 and its algorithm).
"""

import math

import numpy as np
from numpy.typing import NDArray

from protocols.errors import Misuse, require


def one_run_p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """Bound on the probability of at least `correct` right out of `guesses`, if (epsilon, delta)-DP holds.

    b + 2 m delta a, with B ~ Binomial(guesses, e^epsilon / (1 + e^epsilon)), b = P[B >= v] and a = max over
    i = 1..v of P[v > B >= v - i] / i. Raises Misuse unless 0 <= correct <= guesses <= canaries.
    """
    if not (0 <= correct <= guesses <= canaries and epsilon >= 0 and 0 <= delta <= 1):
        raise Misuse(f"expected correct <= guesses <= canaries, got {correct}, {guesses}, {canaries}")
    from scipy.stats import binom

    right = 1 / (1 + math.exp(-epsilon))
    tail = float(binom.sf(correct - 1, guesses, right))
    if correct == 0 or delta == 0:
        return min(1.0, tail)
    below = np.cumsum(binom.pmf(np.arange(correct - 1, -1, -1), guesses, right))
    steepest = float(np.max(below / np.arange(1, correct + 1)))
    return min(1.0, tail + 2 * canaries * delta * steepest)


def one_run_epsilon(canaries: int, guesses: int, correct: int, delta: float, alarm: float) -> float:
    """The largest epsilon that these guesses refute at false-alarm rate `alarm`; 0 if none.

    If the mechanism is (e, delta)-DP, the result exceeds e with probability at most `alarm`. Raises Misuse
    as above.
    """
    require(0 < alarm < 1, "0 < alarm < 1", alarm)
    if one_run_p_value(canaries, guesses, correct, 0.0, delta) > alarm:
        return 0.0
    low, high = 0.0, 1.0
    while high < 1000 and one_run_p_value(canaries, guesses, correct, high, delta) <= alarm:
        low, high = high, high * 2
    while high - low > 1e-4:
        middle = (low + high) / 2
        refuted = one_run_p_value(canaries, guesses, correct, middle, delta) <= alarm
        low, high = (middle, high) if refuted else (low, middle)
    return low


def guess(scores: NDArray[np.float64], guesses: int) -> NDArray[np.int64]:
    """+1 for the half of the guesses with the highest scores, -1 for the half with the lowest, 0 (no guess)
    elsewhere."""
    require(0 <= guesses <= scores.size, f"at most {scores.size} guesses", guesses)
    order = np.argsort(scores, kind="stable")
    out = np.zeros(scores.size, dtype=np.int64)
    low = guesses // 2
    out[order[:low]] = -1
    out[order[scores.size - (guesses - low) :]] = 1
    return out
