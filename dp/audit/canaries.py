"""One-run canary audit of anything that releases a noised sum of vectors, whatever does the clipping, noise
and summing."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dp.audit.one_run import guess, one_run_epsilon
from protocols.errors import require
from protocols.randomness import SecureRandom

Vector = NDArray[np.float64]
Release = Callable[[list[Vector]], Vector]


@dataclass(frozen=True)
class CanaryAudit:
    """What one run showed. `epsilon` is exceeded by the truth except with probability `alarm`, if the
    statement holds."""

    epsilon: float
    delta: float
    alarm: float
    canaries: int
    guesses: int
    correct: int

    def refutes(self, stated: float) -> bool:
        """Whether the measured lower bound lies above the stated epsilon: the statement is false, or a rare
        accident."""
        return self.epsilon > stated


def audit_sum(
    release: Release,
    dims: int,
    norm: float,
    *,
    delta: float,
    random: SecureRandom,
    canaries: int | None = None,
    guesses: int | None = None,
    alarm: float = 1e-6,
) -> CanaryAudit:
    """Put canaries of L2 norm `norm` into a sum by fair coins, release it once, guess the coins from the
    release.

    `release(contributions)` takes the vectors (float64, `dims` coordinates) of all units, zero for a canary
    left out, and returns the released sum. Canary i is `norm` times a signed unit vector, one coordinate
    each, so that they do not disturb one another; the score is the release at that coordinate. `norm` above
    the clip tests the clipping as well. By default there is a canary per coordinate, up to 2,000, and a
    tenth of them is guessed. Guesses are fixed beforehand, so that `alarm` holds without correction. Take
    `delta` far below alarm x guesses / canaries (1e-10 for the defaults) and compare with the account's
    epsilon at that delta, or the bound is 0. Raises Misuse where there are more canaries than coordinates.
    """
    count = min(dims, 2000) if canaries is None else canaries
    asked = max(2, count // 10) if guesses is None else guesses
    require(0 < count <= dims, f"1 to {dims} canaries, one per coordinate", count)
    coins = np.frombuffer(random.bytes(2 * count), dtype=np.uint8).reshape(2, count) & 1
    inside, signs = coins[0].astype(bool), 1.0 - 2.0 * coins[1]
    contributions = []
    for index in range(count):
        vector = np.zeros(dims)
        if inside[index]:
            vector[index] = signs[index] * norm
        contributions.append(vector)
    released = np.asarray(release(contributions), dtype=np.float64)
    require(released.shape == (dims,), f"a release of shape ({dims},)", released.shape)
    guesses_made = guess(released[:count] * signs, asked)
    correct = int(np.sum(guesses_made == np.where(inside, 1, -1)))
    return CanaryAudit(
        one_run_epsilon(count, asked, correct, delta, alarm), delta, alarm, count, asked, correct
    )
