"""What a federation's run gives back."""

from dataclasses import dataclass
from typing import Any

from dp.ledger import Ledger
from fl.round import RoundResult
from protocols.guarantee import Guarantee
from protocols.statement import Statement


@dataclass
class Result:
    """model: the trained torch module. history: a RoundResult per round. statement: what was protected.
    survivors: names per round. ledger: the ledger that was charged, or None.
    """

    model: Any
    history: list[RoundResult]
    statement: Statement
    survivors: list[tuple[str, ...]]
    ledger: Ledger | None = None

    def __str__(self) -> str:
        """A line each: rounds with and without a total, the last metrics, what differential privacy holds."""
        done = sum(entry.abandoned is None for entry in self.history)
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in self.metrics.items())
        lines = [
            f"rounds: {len(self.history)}, with a total: {done}",
            f"test: {numbers}" if numbers else "no test data",
        ]
        held = [str(line) for line in self.guarantees] or ["differential privacy: none"]
        return "\n".join([*lines, self.statement.protection.mechanism, *held])

    @property
    def guarantees(self) -> tuple[Guarantee, ...]:
        """What differential privacy holds: a line per unit, relation, adversary and delta; none without DP."""
        return self.statement.guarantees

    @property
    def epsilon(self) -> float | None:
        """The only guarantee's epsilon, None without DP. Raises Misuse where there are several: read `guarantees`."""
        return self.statement.epsilon

    @property
    def metrics(self) -> dict[str, float]:
        """Test metrics after the last round."""
        return self.history[-1].metrics if self.history else {}
