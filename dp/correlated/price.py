"""What a planned run with correlated noise costs, and what it gains: numbers for people, before there is any run.

Does not belong here: what layers charge (`CorrelatedRow`), accountants.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

from dp.calibration import scale_for
from dp.correlated.patterns import dearest, sensitivity
from dp.correlated.strategy import MOST_ROWS, StrategyMatrix, gain, optimised
from dp.events import Event, Gaussian, Relation, Unit
from protocols.guarantee import rounded_up
from protocols.numbers import whole


@dataclass(frozen=True)
class Banded:
    """A plan: rows, the least separation of a unit's participations, how many it has at most, and the bands.

    participations: default: as many as the separation leaves room for. bands: default: the separation. More bands than
    the separation are priced by the sum of |C^T C| over the dearest pattern. momentum, decay: as
    `dp.correlated.strategy.series` counts them.

        Banded(rounds=100, separation=10).epsilon(multiplier=5.0, delta=1e-5)
    """

    rounds: int
    separation: int
    participations: int | None = None
    bands: int | None = None
    momentum: float = 0.0
    decay: float = 1.0

    def __post_init__(self) -> None:
        for name in ("rounds", "separation", "participations", "bands"):
            if (value := getattr(self, name)) is not None or name in ("rounds", "separation"):
                whole(name, value, 1, MOST_ROWS)

    @property
    def strategy(self) -> StrategyMatrix:
        return optimised(self.rounds, self.bands or self.separation, self.momentum, self.decay)

    @property
    def times(self) -> int:
        """The participations of the dearest pattern."""
        most = self.participations or self.rounds
        return round(dearest([1.0] * self.rounds, self.separation, most))

    @property
    def sensitivity(self) -> float:
        """L2 bound on what one unit moves in all rows, in clips over the longest column's norm."""
        strategy = self.strategy
        if strategy.bands <= self.separation:
            return math.sqrt(self.times)
        return sensitivity(strategy.matrix().astype(float), self.separation, self.times) / strategy.norm

    def event(self, multiplier: float, unit: Unit, relation: Relation) -> Event:
        """The whole run as one release. multiplier: deviation of a row's noise over clip and column norm."""
        return Gaussian(noise_multiplier=multiplier / self.sensitivity, unit=unit, relation=relation)

    def multiplier(
        self, epsilon: float, delta: float, accountant: str, unit: Unit, relation: Relation
    ) -> float:
        """The least noise multiplier that costs at most epsilon."""
        return scale_for(
            lambda m: self.event(m, unit, relation), epsilon=epsilon, delta=delta, accountant=accountant
        )

    def to_json(self) -> dict[str, Any]:
        """The plan, its C' and what it gains: RMSE of the models over independent noise at the same price."""
        strategy = self.strategy
        alone = gain(strategy, self.momentum, self.decay) * self.sensitivity / math.sqrt(self.times)
        return {
            **asdict(self),
            "bands": strategy.bands,
            "participations": self.times,
            "bits": max(map(abs, strategy.coefficients)).bit_length(),
            "rmse_over_independent": alone,
        }


def sentence(found: dict[str, Any]) -> str:
    """What `secagg epsilon --banded` says to people."""
    rows = f"{found['rounds']} rows with {found['bands']} bands, separation {found['separation']}"
    priced = f"epsilon {rounded_up(found['epsilon'])} at delta {rounded_up(found['delta'])}"
    return (
        f"noise multiplier {rounded_up(found['noise_multiplier'], 6)} over {rows}, {found['participations']} "
        f"participations: {priced} ({found['accountant']}; per {found['unit']}, {found['relation']} neighbours); the "
        f"models' RMSE {found['rmse_over_independent']:.3f} times that of independent noise at the same price"
    )
