"""A ledger's terms, and what was spent of them. What does not belong here: charges (`ledger`), files, pages."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Self

from dp.accountants import ACCOUNTANTS
from dp.events import Relation, Unit
from dp.ledger_store import checked_text
from protocols.errors import Misuse
from protocols.guarantee import rounded_up


@dataclass(frozen=True)
class Terms:
    """A ledger's budget: at most `epsilon` (infinity: record only) at `delta`, priced by `accountant`, for
    `dataset`."""

    epsilon: float
    delta: float
    accountant: str = "pld"
    dataset: str = ""

    def __post_init__(self) -> None:
        if not self.epsilon >= 0 or not 0 < self.delta < 1:
            raise Misuse(f"expected epsilon >= 0 and 0 < delta < 1, got {self.epsilon} and {self.delta}")
        if self.accountant not in ACCOUNTANTS:
            raise Misuse(f"expected an accountant out of {', '.join(ACCOUNTANTS)}, got {self.accountant!r}")
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
