"""Plan the noise of a run, spend it through a ledger that refuses the step too many, and audit what was
promised.

    python examples/privacy_account.py

Nothing is trained here: the "release" is a clipped sum of vectors with discrete Gaussian noise on an
integer grid, the smallest mechanism there is. A layer does the same inside a federation (`ClientDP`,
`DistributedDP`).
"""

import tempfile

import numpy as np

from dp import Ledger
from dp.accountants import epsilon
from dp.audit import audit_sum, check_noise
from dp.calibration import scale_for
from dp.clipping import clip
from dp.events import DiscreteGaussianSum, Relation, Unit, repeat
from dp.mechanisms import discrete_gaussian
from dp.mechanisms.grid import rounded_bound, to_grid
from protocols.errors import BudgetExceeded
from protocols.randomness import SystemRandom

ROUNDS, CLIP, DIMS, STEP = 5, 1.0, 400, 2.0**-12
RANDOM = SystemRandom()
BOUND = rounded_bound(CLIP, DIMS, STEP)


def event(deviation: float) -> DiscreteGaussianSum:
    """One round with noise of `deviation` grid steps: what happened, with unit and neighbours."""
    return DiscreteGaussianSum(
        sensitivity=BOUND,
        share_variance=deviation**2,
        shares=1,
        dims=DIMS,
        unit=Unit.CLIENT,
        relation=Relation.ZERO_OUT,
    )


def release(vectors: list[np.ndarray], deviation: float) -> np.ndarray:
    """Clip, round to the grid, add, add noise as integers; only then back to floats."""
    counts = sum(to_grid(clip(v, CLIP).vector, STEP) for v in vectors)
    return (counts + discrete_gaussian(RANDOM, deviation, DIMS)) * STEP


def main() -> dict[str, float]:
    """Returns what was planned, spent and measured."""
    deviation = scale_for(lambda s: repeat(event(s), ROUNDS), epsilon=4.0, delta=1e-5, start=BOUND)
    print(f"{ROUNDS} rounds at epsilon 4 need noise of {deviation / BOUND:.3f} clip norms")

    taken = 0
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger.for_dataset(folder, "ward 7, 2026", epsilon=4.0, delta=1e-5)
        try:
            while True:
                ledger.charge(event(deviation), run="example", round=taken + 1)  # on disk before the release
                release([np.ones(DIMS)] * 20, deviation)
                taken += 1
        except BudgetExceeded as refusal:
            print(f"round {taken + 1}: {refusal}")
        spent = ledger.epsilon()
        print(ledger.page())

    noise = check_noise(release([np.zeros(DIMS)] * 20, deviation), deviation * STEP)
    print(f"noise: {noise.seen}: {'passed' if noise.passed else 'FAILED'}")
    stated = epsilon([event(deviation)], 1e-10)
    audit = audit_sum(lambda v: release(v, deviation), DIMS, 5.0, delta=1e-10, random=RANDOM)
    print(
        f"one round: stated {stated:.2f}, measured at least {audit.epsilon:.2f} at delta 1e-10 (no proof of safety)"
    )
    return {"planned": ROUNDS, "taken": taken, "spent": spent, "stated": stated, "measured": audit.epsilon}


if __name__ == "__main__":
    main()
