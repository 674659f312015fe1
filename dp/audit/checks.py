"""Direct tests of what a DP layer promises: the noise, the norms, fresh randomness, the sampling. Error
rates are arguments.

Each returns a `Verdict`: `alarm` is the probability that a sound mechanism fails it; power follows from the
sample size (`draws_needed`, docs/dp-audit.md). They see noise and contributions directly, so they are for
tests and rehearsals, not for live data.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from protocols.errors import Misuse, require

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Verdict:
    """Whether a check passed; the p-value it came from (0 for a violated bound, 1 for a kept one); what was
    seen."""

    passed: bool
    p_value: float
    alarm: float
    seen: str


def check_noise(noise: Vector, stated: float, alarm: float = 1e-7) -> Verdict:
    """Is the standard deviation of `noise` (independent draws, mean 0) at least `stated`? One-sided
    chi-square test.

    For discrete Gaussian and Skellam noise wider than one step the fourth moment is that of a Gaussian or
    larger by less than 1 / variance; use at least 1,000 draws. Raises Misuse for fewer than 100 draws or
    stated <= 0.
    """
    if noise.size < 100 or not 0 < stated < math.inf:
        raise Misuse(f"expected at least 100 draws and a positive deviation, got {noise.size} and {stated}")
    from scipy.stats import chi2

    scaled = np.asarray(noise, dtype=np.float64).ravel() / stated
    p = float(chi2.cdf(float(np.dot(scaled, scaled)), noise.size))
    found = stated * math.sqrt(float(np.dot(scaled, scaled)) / noise.size)
    return Verdict(p >= alarm, p, alarm, f"deviation {found:.4g} where {stated:.4g} is stated")


def draws_needed(ratio: float, alarm: float = 1e-7, power: float = 0.999) -> int:
    """Draws at which `check_noise` catches noise of `ratio` < 1 times the stated deviation with probability
    `power`."""
    require(0 < ratio < 1, "a ratio between 0 and 1", ratio)
    from scipy.stats import chi2

    count = 100
    while chi2.cdf(chi2.ppf(alarm, count) / ratio**2, count) < power:
        count = math.ceil(count * 1.05)
    return count


def check_norms(contributions: Sequence[Vector], bound: float) -> Verdict:
    """Is every contribution, everything of it that is released, within L2 norm `bound`? Exact: it never
    errs."""
    norms = [math.sqrt(math.fsum(float(v) ** 2 for v in np.ravel(c))) for c in contributions]
    worst = max(norms, default=0.0)
    within = worst <= bound * (1 + 1e-12)
    return Verdict(
        within, 1.0 if within else 0.0, 0.0, f"largest norm {worst:.6g} where {bound:.6g} is the bound"
    )


def check_reach(
    released: Vector, direction: Vector, bound: float, deviation: float, alarm: float = 1e-7
) -> Verdict:
    """Does one unit move a noised release along `direction` by at most `bound`? One-sided normal test.

    `direction` is that unit's own, unclipped contribution, all others being zero; `deviation` is the noise
    per coordinate. Catches a missing clip, a clip of parts and parts left out of it: power is near 1 where
    the move exceeds the bound by 8 deviations. Raises Misuse for a zero direction.
    """
    length = float(np.linalg.norm(direction))
    if not 0 < length < math.inf or deviation <= 0:
        raise Misuse("expected a direction that is not zero and a positive deviation")
    moved = float(np.dot(released, direction / length))
    p = 0.5 * math.erfc((moved - bound) / deviation / math.sqrt(2))
    return Verdict(p >= alarm, p, alarm, f"moved {moved:.4g} where {bound:.4g} is the bound")


def check_fresh(first: Vector, second: Vector, alarm: float = 1e-7) -> Verdict:
    """Are two noise vectors, of two rounds, runs or clients, uncorrelated? Two-sided; catches reused and
    seeded noise.

    Equal vectors of n draws give a statistic of sqrt(n): caught with certainty from 100 draws on. Raises
    Misuse for shapes that differ, fewer than 100 draws, or noise that is zero.
    """
    a, b = np.asarray(first, dtype=np.float64).ravel(), np.asarray(second, dtype=np.float64).ravel()
    if a.shape != b.shape or a.size < 100:
        raise Misuse(f"expected two vectors of the same size, at least 100, got {a.size} and {b.size}")
    scale = math.sqrt(float(np.dot(a, a)) * float(np.dot(b, b)))
    require(scale != 0, "noise", "zeros")
    z = float(np.dot(a, b)) / scale * math.sqrt(a.size)
    p = math.erfc(abs(z) / math.sqrt(2))
    return Verdict(p >= alarm, p, alarm, f"correlation {z / math.sqrt(a.size):.4g} of {a.size} pairs")


def check_sampling(
    rounds: Sequence[NDArray[np.int64]], population: int, rate: float, alarm: float = 1e-7
) -> Verdict:
    """Is who takes part a Poisson sample of `rate`? Catches no sampling, fixed sizes, turns and shuffled
    epochs.

    Three tests share the alarm: the sum of sizes (binomial), their spread (chi-square, normal approximation
    of sizes) and the overlap of successive rounds (binomial with rate^2). Raises Misuse for fewer than 50
    rounds or rate outside (0, 1).
    """
    if len(rounds) < 50 or not 0 < rate < 1 or population * rate * (1 - rate) < 50:
        raise Misuse(
            "expected at least 50 rounds, 0 < rate < 1 and population x rate x (1 - rate) of at least 50"
        )
    from scipy.stats import binom, chi2

    sizes = np.array([len(taken) for taken in rounds], dtype=np.float64)
    spread = float(((sizes - population * rate) ** 2).sum() / (population * rate * (1 - rate)))
    shared = sum(np.intersect1d(a, b).size for a, b in zip(rounds[::2], rounds[1::2], strict=False))
    trials = population * len(rounds)
    p_values = {
        "participations": _two_sided(binom(trials, rate), float(sizes.sum())),
        "spread of sizes": 2 * min(float(chi2.cdf(spread, sizes.size)), float(chi2.sf(spread, sizes.size))),
        "overlap of rounds": _two_sided(binom(population * (len(rounds) // 2), rate**2), float(shared)),
    }
    worst = min(p_values, key=p_values.__getitem__)
    p = min(1.0, 3 * p_values[worst])
    return Verdict(p >= alarm, p, alarm, f"{worst} is least like a Poisson sample of rate {rate:g}")


class _Law(Protocol):
    """A frozen law of SciPy."""

    def cdf(self, value: float) -> Any: ...
    def sf(self, value: float) -> Any: ...


def _two_sided(law: _Law, value: float) -> float:
    return 2 * min(float(law.cdf(value)), float(law.sf(value - 1)))
