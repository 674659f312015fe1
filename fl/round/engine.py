"""What a round needs from outside: an engine that carries one sum's messages, and the work of a client.

What does not belong here: any engine (`fl.engines`, `fl.flower`), any training loop.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fl.round.broadcast import Broadcast
from fl.round.reference import Tree
from fl.round.result import RoundResult, Trip
from fl.round.terms import Origin
from protocols.layers import Contribution, RoundFacts
from protocols.session import Session
from protocols.summation import SecureSum

Charge = Callable[[Sequence[str]], None]
"""Pays for a sum before it begins; called with the clients that were asked and are not known to have left."""


@dataclass(frozen=True, eq=False)
class Summed:
    """What a secure sum gave. total: int64 [session.dimension]. survivors: the clients in it, in roster order."""

    total: NDArray[np.int64] = field(repr=False)
    survivors: tuple[str, ...]


@dataclass(frozen=True)
class SumCosts:
    """What a sum took. up, down: bytes per client asked, the model not counted. seconds: by "train",
    "privacy_client" (all clients together), "privacy_server" and whatever else an engine measures. trips: over a
    network. refusals: party -> why it did not take part, or not to the end. waited: simulated time, in
    medians of what one client takes.
    """

    up: float = 0.0
    down: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    trips: tuple[Trip, ...] = ()
    refusals: dict[str, str] = field(default_factory=dict)
    waited: float = 0.0


class Work(Protocol):
    """A client's own part: it trains, where its data are."""

    def __call__(self, broadcast: Broadcast, own: RoundFacts) -> Contribution:
        """Return the contribution of the client `own.client`. Raises Misuse for one that cannot be summed."""


class Engine(Protocol):
    """Carries the messages of a sum between its parties. It knows nothing about privacy or models."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the statement must say of this engine."""

    @property
    def costs(self) -> SumCosts:
        """What the last sum took, also one without a total."""

    @property
    def clock(self) -> Callable[[], float]:
        """What seconds are read from."""

    def origin(self, run: str) -> Origin:
        """Return the origin that clients are told of each round. run: the run's name."""

    def memory(self) -> bytes | None:
        """Return what the server keeps of earlier sessions, for a set-up that serves many."""

    def session_number(self, round: int, sums: int) -> int:
        """Return the number of the next session; a client answers each number once. sums: of the round."""

    def staying(self, session: Session) -> Sequence[str]:
        """Return the clients of a session that are not known to have left."""

    def beside(self, secure_sum: SecureSum, shown: Tree) -> "Engine | None":
        """Return an engine that carries sums of another kind between the same parties, or None where such a round
        needs an engine of its own. shown: the arrays that parties are shown in place of their reference.
        """

    def lost(self, round: int) -> RoundResult | None:
        """Return round `round` as an abandoned one if a kill interrupted it after the server had asked for inputs,
        else None. The server does not ask for these inputs again.
        """

    def sum(self, broadcast: Broadcast, session: Session, charge: Charge) -> Summed:
        """Have every client of the session contribute, and return the total.

        Calls `charge` once, before the first message; if it raises, nothing of this sum has left. Raises Aborted if
        there is no total.
        """
