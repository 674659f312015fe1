"""The engine in memory: one process plays every party of a round, through `protocols.simulate`, with real messages.

What does not belong here: the federation's own state. The parties are simulated, and the statement says so.
"""

import hashlib
import time
from collections.abc import Callable

import numpy as np

from fl.config import Setup
from fl.contribution import contribute
from fl.dropouts import by_stage, leaving
from fl.rounds import Coordinator, Opening, RoundResult, new_session
from protocols.errors import Aborted
from protocols.runtime import recall
from protocols.session import Session
from protocols.simulate import Observe, Outcome, simulate
from protocols.statement import PLAYED_HERE, Protection
from protocols.store import MemoryStore, Store

NOTE = PLAYED_HERE
Progress = Callable[[str, int, int], None]


class MemoryEngine:
    """Plays rounds. Stores last for the engine's life, so that reused keys and marks do."""

    notes = (NOTE,)

    def __init__(self, setup: Setup, coordinator: Coordinator) -> None:
        self.setup = setup
        self.coordinator = coordinator
        self.stores: dict[str, Store] = {name: MemoryStore() for name in (*setup.names, "server")}
        self.protection: Protection | None = None
        self.observe: Observe | None = None
        self.progress: Progress = lambda what, done, of: None
        self.clock: Callable[[], float] = time.perf_counter
        self.session: Session | None = None
        self.last_vectors: dict[str, np.ndarray] = {}

    def play(self, opening: Opening, charge: Callable[[tuple[str, ...]], None]) -> RoundResult:
        """Run one round.

        `charge` is called with the clients that contribute, after they trained and before anything of it leaves
        them: who raises there (BudgetExceeded) has released nothing, and a round that fails later is paid for.
        """
        setup = self.setup
        kept = recall(self.stores["server"], setup.stack.secure_sum)
        session = self.session = new_session(setup, opening, kept)
        self.protection = setup.stack.secure_sum.protection(session)
        gone = leaving(setup.plan.seed, opening.number, opening.clients, setup.plan.dropout)
        began = self.clock()
        vectors = self._train(opening, gone)
        train_s = self.clock() - began
        result = RoundResult(opening.number, opening.clients, session=session.context.hex())
        charge(tuple(name for name in opening.clients if gone.get(name, True)))
        try:
            outcome = self._sum(opening, session, vectors, gone)
        except Aborted as error:
            result.abandoned = error.reason
            result.seconds = {"train": train_s, "privacy_client": 0.0, "privacy_server": 0.0}
            return result
        survivors = tuple(str(name) for name in outcome.survivors)
        began = self.clock()
        result = self.coordinator.close(opening, outcome.total, survivors)
        decode_s = self.clock() - began
        return self._measured(result, opening, session, outcome, train_s, decode_s)

    def _train(self, opening: Opening, gone: dict[str, bool]) -> dict[str, np.ndarray]:
        """Every asked client's vector; those who leave before their input are not trained, as it never
        leaves them.
        """
        vectors: dict[str, np.ndarray] = {}
        for i, name in enumerate(opening.clients):
            self.progress("training", i, len(opening.clients))
            if gone.get(name, True):
                loader = self.setup.loader_for(name)
                vectors[name] = contribute(
                    self.setup, self.coordinator.model, opening, name, loader, self.stores[name]
                )
            else:
                vectors[name] = np.zeros(opening.plan.dimension, np.int64)
        self.last_vectors = vectors
        self.progress("summing", 0, 1)
        return vectors

    def _sum(
        self, opening: Opening, session: Session, vectors: dict[str, np.ndarray], gone: dict[str, bool]
    ) -> Outcome:
        setup = self.setup
        protocol = setup.stack.secure_sum
        drop = by_stage(protocol, session, setup.plan.seed, opening.number, gone)
        update = {
            name: hashlib.sha256(session.nonce + name.encode()).digest() for name in opening.clients
        }  # a resumed simulation may play a round again: every session's update is named for itself
        return simulate(
            protocol,
            vectors,
            drop=drop,
            observe=self.observe,
            policy=setup.policy,
            stores=self.stores,
            updates=update,
            session=session,
            clock=self.clock,
        )

    @staticmethod
    def _measured(
        result: RoundResult,
        opening: Opening,
        session: Session,
        outcome: Outcome,
        train_s: float,
        decode_s: float,
    ) -> RoundResult:
        asked = len(opening.clients)
        helpers = sum(
            s
            for roles in outcome.seconds.values()
            for role, s in roles.items()
            if role not in ("client", "server")
        )
        result.session = session.context.hex()
        result.bytes_up_per_client = outcome.bytes_of("client") / asked
        model_bytes = sum(tensor.numel() * tensor.element_size() for tensor in opening.state.values())
        result.bytes_down_per_client = outcome.bytes_of("server") / asked + model_bytes
        result.seconds = {
            "train": train_s,
            "privacy_client": outcome.seconds_of("client"),
            "privacy_server": outcome.seconds_of("server") + helpers + decode_s,
        }
        return result
