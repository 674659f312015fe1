"""From a user's wishes to the parameters of one session. What does not belong here: the tails behind them
(`parameters`).
"""

import functools
from dataclasses import dataclass

from protocols.agreement import quorum
from protocols.errors import Misuse
from secagg.parameters import Cohort, Plan, plan, plan_complete
from secagg.parameters.rules import complete_threshold, largest_threshold, least_threshold
from secagg.rules import LEAST_CLIENTS, MALICIOUS, SEMI_HONEST, SEMI_MALICIOUS, MaskParameters


@dataclass(frozen=True)
class Wishes:
    """What the user asks for; the fields are those of `SecAggPlus`. complete: on the complete graph only."""

    dropout: float
    collusion: float
    threat: str | None
    neighbours: int | None
    threshold: int | None
    security: float
    correctness: float
    complete: bool

    def __post_init__(self) -> None:
        self.cohort(LEAST_CLIENTS, self.threat or SEMI_MALICIOUS)
        for name in ("neighbours", "threshold"):
            value = getattr(self, name)
            if value is not None and value < 2:
                raise Misuse(f"expected {name} >= 2, got {value}")
        if self.complete and self.neighbours is not None:
            raise Misuse("SecAgg is on the complete graph; use SecAggPlus to set neighbours")

    def cohort(self, clients: int, threat: str) -> Cohort:
        """The demand on one cohort."""
        return Cohort(clients, self.dropout, self.collusion, threat, self.security, self.correctness)

    def thresholds(self, clients: int, degree: int, threat: str) -> tuple[int, int]:
        """The least threshold that keeps secrets closed, and the largest that drop-outs leave enough
        answers for.
        """
        cohort = self.cohort(clients, threat)
        if degree >= clients - 1:
            return complete_threshold(cohort)
        return least_threshold(cohort, degree), largest_threshold(cohort, degree)

    def least_threshold(self, clients: int, degree: int, threat: str) -> int:
        """The least threshold that keeps secrets closed under these wishes; above the degree if none does."""
        cohort = self.cohort(clients, threat)
        return complete_threshold(cohort)[0] if degree >= clients - 1 else least_threshold(cohort, degree)


@functools.lru_cache(maxsize=256)
def choose(wishes: Wishes, clients: int, beacon: bytes = b"") -> MaskParameters:
    """Return the parameters for a cohort; without a threat: semi-malicious if that is feasible, else
    semi-honest.

    Raises Misuse if there are none, saying what to relax.
    """
    if clients < LEAST_CLIENTS:
        raise Misuse(
            f"expected at least {LEAST_CLIENTS} clients, got {clients}: in a sum of two, each reads the other's"
        )
    if wishes.neighbours is None and wishes.threshold is None:
        found = _planned(wishes, clients, wishes.threat)
        return _parameters(wishes, found.cohort.threat, found.degree, found.threshold, clients, beacon)
    if wishes.threat is not None:
        return _given(wishes, clients, wishes.threat, beacon)
    try:
        return _given(wishes, clients, SEMI_MALICIOUS, b"")
    except Misuse:
        return _given(wishes, clients, SEMI_HONEST, b"")


def _planned(wishes: Wishes, clients: int, threat: str | None) -> Plan:
    shares = (clients, wishes.dropout, wishes.collusion, threat)
    if wishes.complete:
        return plan_complete(*shares, security=wishes.security)
    return plan(*shares, security=wishes.security, correctness=wishes.correctness)


def _given(wishes: Wishes, clients: int, threat: str, beacon: bytes) -> MaskParameters:
    """The parameters with neighbours or threshold as the user set them."""
    degree = clients - 1 if wishes.complete else min(wishes.neighbours or clients - 1, clients - 1)
    if wishes.neighbours is None and not wishes.complete:
        degree = _planned(wishes, clients, threat).degree
    needed, most = wishes.thresholds(clients, degree, threat)
    threshold, least = wishes.threshold or needed, needed
    if wishes.threshold is not None:
        most = degree  # whether enough will answer is then the user's own reckoning
    if not least <= threshold <= most:
        raise Misuse(
            f"{threat}, {clients} clients, {degree} neighbours, drop-out {wishes.dropout:g}, collusion "
            f"{wishes.collusion:g}: expected a threshold from {least} (secrecy) to {most} (so many answer), got "
            f"{threshold}: raise neighbours, or lower dropout or collusion"
        )
    return _parameters(wishes, threat, degree, threshold, clients, beacon)


def _parameters(
    wishes: Wishes, threat: str, degree: int, threshold: int, clients: int, beacon: bytes
) -> MaskParameters:
    drawn = threat == MALICIOUS and degree < clients - 1
    corrupt = wishes.cohort(clients, threat).corrupt
    return MaskParameters(
        threat,
        degree,
        threshold,
        corrupt=corrupt,
        survivors=threshold + 1,
        quorum=quorum(clients, corrupt) if threat != SEMI_HONEST else 0,
        committed=drawn and not beacon,
        beacon=beacon if drawn else b"",
    )
