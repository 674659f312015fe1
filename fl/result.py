"""What a federation's run gives back."""

from dataclasses import dataclass, field
from typing import Any

from fl.rounds import RoundResult
from protocols.guarantee import Guarantee
from protocols.statement import Statement

SUM_NOTE = (
    "without differential privacy the sum itself can reveal an update: "
    "crafted models, sybils and small cohorts do it"
)


def clipped_note(share: float) -> str:
    """Return the statement's note on the largest share of a round's coordinates that was clipped."""
    return f"up to {share:.2%} of a round's coordinates were clipped to the public range"


@dataclass
class Result:
    """model: the trained torch module. history: a RoundResult per round. statement: what was protected.
    survivors: names per round. ledger: the ledger that was charged, or None.
    """

    model: Any
    history: list[RoundResult]
    statement: Statement
    survivors: list[tuple[str, ...]]
    ledger: Any = None
    first_vector: Any = field(default=None, repr=False)
    first_seen: Any = field(default=None, repr=False)

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
