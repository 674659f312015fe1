"""What one round did, for people and for the run's files. No vectors, no names' secrets."""

from dataclasses import dataclass, field
from typing import Any

from protocols.guarantee import Guarantee, only_epsilon


@dataclass
class RoundResult:
    """What one round did.

    metrics: test metrics after it. train_metrics: weighted means over the survivors. clipped_share: share of the
    coordinates that were clipped to the public range, weights_capped: clients whose weight was capped; None where a DP
    layer forbids to tell. bytes: per client asked. seconds: by "train", "privacy_client", "privacy_server". guarantees:
    the price of all rounds so far, a line per unit, relation, adversary and delta. abandoned: why there is no total,
    else None. session: its context, in hexadecimal digits; session_number: its number, which grows over all runs of a
    server (0: no session was made). trips: what each message trip took, as JSON objects, where an engine counts them.
    withheld: who and how many took part is a secret that a price counts on, so that
    names, bytes and seconds are left out.
    """

    number: int
    asked: tuple[str, ...]
    survivors: tuple[str, ...] = ()
    metrics: dict[str, float] = field(default_factory=dict)
    train_metrics: dict[str, float] = field(default_factory=dict)
    clipped_share: float | None = None
    weights_capped: int | None = None
    bytes_up_per_client: float = 0.0
    bytes_down_per_client: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    guarantees: tuple[Guarantee, ...] = ()
    abandoned: str | None = None
    session: str = ""
    session_number: int = 0
    trips: list[dict[str, Any]] = field(default_factory=list)
    withheld: bool = False

    @property
    def epsilon(self) -> float | None:
        """The only guarantee's epsilon, None without DP. Raises Misuse where there are several."""
        return only_epsilon(self.guarantees)
