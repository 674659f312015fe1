"""What one round did, for people and for the run's files. What does not belong here: vectors, clients' secrets."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from protocols.errors import NoResult
from protocols.guarantee import Guarantee, only_epsilon


@dataclass(frozen=True)
class Trip:
    """What one stage took over a network: a request to every party, and their answers.

    seconds: wall time. node: the slowest answering party's own computing, training included; train: of that, the
    user's code. server: computing there. waiting: the rest: polling, transport and starting processes. asked,
    answered: parties. up, down: bytes of protocol messages over all parties. Beside a layer that adds noise the first
    three are 0: they follow the clients' examples.
    """

    stage: str
    seconds: float
    node: float
    train: float
    server: float
    asked: int
    answered: int
    up: int
    down: int

    @property
    def waiting(self) -> float:
        return max(0.0, self.seconds - self.node - self.server)


@dataclass
class RoundResult:
    """What one round did.

    metrics: test metrics after it. train_metrics: weighted means over the survivors. clipped_share: share of the
    coordinates that were clipped to the public range; weights_capped, empty_clients: clients whose weight was capped,
    and those without examples; None where a DP layer forbids to tell. clipped_tensors: where values were clipped, with
    the number of clients. bytes: per client asked. seconds: by "train", "privacy_client", "privacy_server"
    (this one alone beside a layer that adds noise). guarantees:
    the price of all rounds so far, a line per unit, relation, adversary and delta. abandoned: why there is no total,
    else None. session: its context, in hexadecimal digits; session_number: its number, which grows over all runs of a
    server (0: no session was made). trips: over a network, in order. refusals: party -> why it did not take part, or
    not to the end. waited: simulated time (`RunOptions.delays`), in medians of what one client takes. withheld: who and
    how many took part is a secret that a price counts on, so that names, bytes, seconds, trips and the session are left
    out.
    """

    number: int
    asked: tuple[str, ...]
    survivors: tuple[str, ...] = ()
    metrics: dict[str, float] = field(default_factory=dict)
    train_metrics: dict[str, float] = field(default_factory=dict)
    clipped_share: float | None = None
    weights_capped: int | None = None
    clipped_tensors: dict[str, int] = field(default_factory=dict)
    empty_clients: int | None = None
    bytes_up_per_client: float = 0.0
    bytes_down_per_client: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    guarantees: tuple[Guarantee, ...] = ()
    abandoned: str | None = None
    session: str = ""
    session_number: int = 0
    trips: tuple[Trip, ...] = ()
    refusals: dict[str, str] = field(default_factory=dict)
    waited: float = 0.0
    withheld: bool = False

    @property
    def epsilon(self) -> float | None:
        """The only guarantee's epsilon, None without DP. Raises Misuse where there are several."""
        return only_epsilon(self.guarantees)


def require_total(history: Sequence[RoundResult]) -> None:
    """Raises NoResult, with what most parties said last, where rounds were played and none of them has a total."""
    if not history or any(result.abandoned is None for result in history):
        return
    said = Counter(history[-1].refusals.values()).most_common(1)
    shown = "".join(f" ({count} parties: {why})" for why, count in said)
    raise NoResult(
        f"every round was abandoned, {len(history)} of {len(history)}, the last: {history[-1].abandoned}{shown}. The "
        "model is the one that it began with, and none was saved; the log says more of each round"
    )
