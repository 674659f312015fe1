"""A ledger's terms, and what was spent of them. What does not belong here: charges (`ledger`), files, pages."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Self

from dp.accountants import accountant
from dp.events import Relation, Unit
from dp.ledger_store import checked_text
from protocols.guarantee import rounded_up
from protocols.numbers import between_0_and_1, real


@dataclass(frozen=True)
class Terms:
    """A ledger's budget: at most `epsilon` (infinity: record only) at `delta`, priced by `accountant`, for
    `dataset`."""

    epsilon: float
    delta: float
    accountant: str = "pld"
    dataset: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "delta", between_0_and_1("delta", self.delta))
        if not (isinstance(self.epsilon, float) and self.epsilon == math.inf):
            within = ">= 0 (infinity: record only)"
            object.__setattr__(
                self, "epsilon", real("epsilon", self.epsilon, within, lambda number: number >= 0)
            )
        accountant(self.accountant)
        checked_text("dataset", self.dataset)

    def to_plain(self) -> dict[str, Any]:
        return {**asdict(self), "epsilon": self.epsilon if math.isfinite(self.epsilon) else None}

    @classmethod
    def from_plain(cls, data: dict[str, Any]) -> Self:
        return cls(**{**data, "epsilon": math.inf if data["epsilon"] is None else float(data["epsilon"])})


@dataclass(frozen=True)
class Spending:
    """What one statement costs so far: the largest over the parties, whose own prices are in `parties`."""

    unit: Unit
    relation: Relation
    epsilon: float
    delta: float
    accountant: str
    parties: dict[str, float]

    def __str__(self) -> str:
        price = f"epsilon {rounded_up(self.epsilon)} at delta {rounded_up(self.delta)}"
        return f"{price} per {self.unit}, {self.relation} neighbours ({self.accountant})"
