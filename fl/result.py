"""What a federation's run gives back."""

from dataclasses import dataclass, field
from typing import Any

from fl.rounds import RoundResult
from protocols.statement import Statement


@dataclass
class Result:
    """model: the trained torch module. history: a RoundResult per round. statement: what was protected.
    epsilon: its price (None without DP). survivors: names per round. ledger: the ledger that was charged,
    or None.
    """

    model: Any
    history: list[RoundResult]
    statement: Statement
    epsilon: float | None
    survivors: list[tuple[str, ...]]
    ledger: Any = None
    first_vector: Any = field(default=None, repr=False)
    first_seen: Any = field(default=None, repr=False)

    @property
    def metrics(self) -> dict[str, float]:
        """Test metrics after the last round."""
        return self.history[-1].metrics if self.history else {}
