"""Tails of the hypergeometric distribution, as natural logarithms, for populations up to 10^9 and beyond.

The mass is computed from Loader's saddle-point form ("Fast and Accurate Computation of Binomial Probabilities", 2000,
sections 2 and 4): deviances and Stirling remainders are small numbers, so nothing cancels and log-masses keep about 12
digits where log-gamma at 10^8 would lose half of them. What does not belong here: which tail must be how small.
"""

import math

import numpy as np

from protocols.errors import Misuse

LOG_ZERO = -math.inf
_CHUNK = 256


def log_tail_at_least(least: int, population: int, marked: int, drawn: int) -> float:
    """ln P[X >= least], X the number of marked among `drawn` of `population`, without replacement.

    Raises Misuse unless 0 <= marked, drawn <= population.
    """
    low, high = _support(population, marked, drawn)
    if least <= low:
        return 0.0
    if least > high:
        return LOG_ZERO
    if least <= _mode(population, marked, drawn):
        # What is below is above in the mirror image: drawn and not marked.
        return _log_complement(_log_run_up(drawn - least + 1, population, population - marked, drawn))
    return _log_run_up(least, population, marked, drawn)


def log_tail_below(limit: int, population: int, marked: int, drawn: int) -> float:
    """ln P[X < limit], X as in `log_tail_at_least`. Raises Misuse likewise."""
    # What is drawn and not marked is hypergeometric too: X < limit iff drawn - X >= drawn - limit + 1.
    return log_tail_at_least(drawn - limit + 1, population, population - marked, drawn)


def log_mass(value: int, population: int, marked: int, drawn: int) -> float:
    """ln P[X = value], as in Loader (2000), section 4: three binomial masses at p = drawn / population."""
    low, high = _support(population, marked, drawn)
    if not low <= value <= high:
        return LOG_ZERO
    if drawn in (0, population):
        return 0.0
    rest, undrawn = population - marked, population - drawn
    return (
        _log_binomial(value, marked, drawn, undrawn)
        + _log_binomial(drawn - value, rest, drawn, undrawn)
        - _log_binomial(drawn, population, drawn, undrawn)
    )


def _support(population: int, marked: int, drawn: int) -> tuple[int, int]:
    if not (0 <= marked <= population and 0 <= drawn <= population):
        raise Misuse(f"expected at most {population} marked and drawn, got {marked} and {drawn}")
    return max(0, drawn + marked - population), min(drawn, marked)


def _mode(population: int, marked: int, drawn: int) -> int:
    return (drawn + 1) * (marked + 1) // (population + 2)


def _log_run_up(first: int, population: int, marked: int, drawn: int) -> float:
    """ln of the sum of masses from `first` (above the mode) up: ratios of neighbours fall, so the sum converges."""
    total, term, value, chunk = 1.0, 1.0, first, _CHUNK
    while value < min(drawn, marked):
        x = np.arange(value, min(value + chunk, drawn, marked), dtype=np.float64)
        # P[X = x + 1] / P[X = x]
        ratios = (marked - x) * (drawn - x) / ((x + 1.0) * (population - marked - drawn + x + 1.0))
        terms = term * np.cumprod(ratios)
        total += float(terms.sum())
        term, value, chunk = float(terms[-1]), value + len(terms), 2 * chunk
        # The rest is at most the geometric series of the last ratio.
        last = float(ratios[-1])
        if last < 1.0 and term * last / (1.0 - last) < 1e-17 * total:
            break
    return log_mass(first, population, marked, drawn) + math.log(total)


def _log_complement(log_probability: float) -> float:
    """ln(1 - exp(x)) without cancellation near 0."""
    if log_probability >= 0.0:
        return LOG_ZERO
    if log_probability > -math.log(2.0):
        return math.log(-math.expm1(log_probability))
    return math.log1p(-math.exp(log_probability))


def _log_binomial(value: int, trials: int, success: int, failure: int) -> float:
    """ln of the binomial mass, p = success / (success + failure) (Loader 2000, equation 2 with section 2's terms)."""
    whole = success + failure
    if value == 0:
        return trials * math.log1p(-success / whole) if trials else 0.0
    if value == trials:
        return trials * math.log1p(-failure / whole)
    p, q = success / whole, failure / whole
    return (
        _stirling(trials)
        - _stirling(value)
        - _stirling(trials - value)
        - _deviance(value, trials * p)
        - _deviance(trials - value, trials * q)
        + 0.5 * math.log(trials / (2.0 * math.pi * value * (trials - value)))
    )


def _stirling(n: int) -> float:
    """ln(n!) minus Stirling's formula (n + 1/2) ln n - n + ln(2 pi)/2, for n >= 1."""
    if n < 16:
        return math.lgamma(n + 1.0) - ((n + 0.5) * math.log(n) - n + 0.5 * math.log(2.0 * math.pi))
    inverse = 1.0 / (n * n)
    series = 1 / 12 - inverse * (1 / 360 - inverse * (1 / 1260 - inverse * (1 / 1680 - inverse / 1188)))
    return series / n


def _deviance(x: float, mean: float) -> float:
    """x ln(x / mean) + mean - x, without cancellation for x near the mean (Loader 2000, section 2)."""
    difference = x - mean
    if abs(difference) >= 0.1 * (x + mean):
        return x * math.log(x / mean) - difference
    # ln(x/m) = 2 artanh(v) with v = (x-m)/(x+m); the first terms cancel in closed form.
    v = difference / (x + mean)
    total, power, j = difference * v, 2.0 * x * v, 1
    while True:
        power *= v * v
        following = total + power / (2 * j + 1)
        if following == total:
            return total
        total, j = following, j + 1
