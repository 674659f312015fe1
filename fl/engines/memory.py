"""The engine in memory: one process plays every party of a round, through `protocols.simulate`, with real messages.

What does not belong here: training (a `Work`), who leaves (the caller says). The parties are simulated, and the
statement says so.
"""

import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fl.round import Broadcast, Charge, Costs, Summed, Work
from protocols.policy import Policy
from protocols.runtime import recall
from protocols.session import Session
from protocols.simulate import Observe, Outcome, simulate
from protocols.statement import PLAYED_HERE
from protocols.store import MemoryStore, Store
from protocols.summation import SecureSum

Drop = Mapping[str, Collection[str]]
Departures = Callable[[SecureSum, Session], tuple[Collection[str], Drop]]
"""Who leaves a session before its input does (such a client does not train), and who vanishes before which stage."""
Progress = Callable[[str, int, int], None]


def nobody(protocol: SecureSum, session: Session) -> tuple[Collection[str], Drop]:
    """Everybody stays."""
    return (), {}


class MemoryEngine:
    """Plays sums in this process. Every party's store lasts for the engine's life, so that reused keys and marks do.

    work: a client's part. observe: sees every message. progress: told what is being done, how much of it, and of how
    much. clock: what seconds are read from.
    """

    notes = (PLAYED_HERE,)

    def __init__(
        self,
        secure_sum: SecureSum,
        work: Work,
        *,
        departures: Departures = nobody,
        policy: Policy | None = None,
    ) -> None:
        self.secure_sum, self.work, self.departures, self.policy = secure_sum, work, departures, policy
        self.stores: defaultdict[str, Store] = defaultdict(MemoryStore)
        self.observe: Observe | None = None
        self.progress: Progress = lambda what, done, of: None
        self.clock: Callable[[], float] = time.perf_counter
        self.costs = Costs()
        self.session: Session | None = None
        self.outcome: Outcome | None = None
        self.vectors: dict[str, NDArray[np.int64]] = {}

    def memory(self) -> bytes | None:
        return recall(self.stores["server"], self.secure_sum)

    def session_number(self, round: int) -> int:
        return round

    def lost(self, round: int) -> None:
        """A simulated round that was interrupted is played again: nothing of it left this process."""

    def sum(self, broadcast: Broadcast, session: Session, charge: Charge) -> Summed:
        """Have the clients train, charge for those who stay, and sum; `vectors` are those of the sum under way."""
        self.session, self.outcome = session, None
        early, drop = self.departures(self.secure_sum, session)
        began = self.clock()
        self.costs = Costs()
        try:
            vectors = self.vectors = self._train(broadcast, early)
            train_s = self.clock() - began
            self.costs = Costs(seconds={"train": train_s, "privacy_client": 0.0, "privacy_server": 0.0})
            charge([name for name in broadcast.clients if name not in early])
            outcome = self.outcome = self._simulate(session, vectors, drop)
        finally:
            self.vectors = {}
        self.costs = _costs(outcome, train_s)
        return Summed(outcome.total, tuple(str(name) for name in outcome.survivors))

    def _train(self, broadcast: Broadcast, early: Collection[str]) -> dict[str, NDArray[np.int64]]:
        """Return every asked client's vector. Who leaves before its input does is not trained."""
        vectors = {}
        for i, name in enumerate(broadcast.clients):
            self.progress("training", i, len(broadcast.clients))
            if name in early:
                vectors[name] = np.zeros(broadcast.plan.dimension, np.int64)
            else:
                own = broadcast.own(name, self.stores[name])
                vectors[name] = broadcast.plan.encode(self.work(broadcast, own), own)
        self.progress("summing", 0, 1)
        return vectors

    def _simulate(self, session: Session, vectors: Mapping[str, NDArray[np.int64]], drop: Drop) -> Outcome:
        # a resumed simulation may play a round again: every session's update is named for itself
        updates = {name: hashlib.sha256(session.nonce + name.encode()).digest() for name in vectors}
        return simulate(
            self.secure_sum,
            vectors,
            drop=drop,
            observe=self.observe,
            policy=self.policy,
            stores={name: self.stores[name] for name in (*vectors, "server")},
            updates=updates,
            session=session,
            clock=self.clock,
        )


def _costs(outcome: Outcome, train_s: float) -> Costs:
    asked = outcome.session.clients
    roles: Sequence[tuple[str, float]] = [
        (role, seconds) for by_role in outcome.seconds.values() for role, seconds in by_role.items()
    ]
    client_s = sum(seconds for role, seconds in roles if role == "client")
    seconds = {
        "train": train_s,
        "privacy_client": client_s,
        "privacy_server": sum(seconds for _, seconds in roles) - client_s,
    }
    return Costs(outcome.bytes_of("client") / asked, outcome.bytes_of("server") / asked, seconds)
