"""The engine in memory: one process plays every party of a round, through `protocols.simulate`, with real messages.

What does not belong here: training (a `Work`), who leaves (the caller says). The parties are simulated, and the
statement says so.
"""

import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fl.engines.workers import Workers
from fl.round import Broadcast, Charge, Origin, SumCosts, Summed, Work
from fl.round.reference import Tree
from fl.round.run_files import npz, read_npz
from protocols.errors import REFUSALS, Aborted, ClientFailed, Misuse, SecAggError
from protocols.layers import PrivacyLayer
from protocols.party_state import KEPT, erase
from protocols.policy import Policy
from protocols.runtime import recall
from protocols.session import Session
from protocols.simulate import Observe, Outcome, simulate
from protocols.statement import PLAYED_HERE
from protocols.store import MemoryStore, write_atomic
from protocols.summation import SecureSum

CLIENTS = "clients.npz"
Drop = Mapping[str, Collection[str]]
Departures = Callable[[SecureSum, Session], tuple[Collection[str], Drop]]
"""Who leaves a session before its input does (such a client does not train), and who vanishes before which stage."""
Waited = Callable[[int, Collection[str]], float]
"""How long a session of some number takes in simulated time until all of these answered."""
Progress = Callable[[str, int, int], None]
Input = Callable[[], NDArray[np.int64]]
Train = Callable[[str], NDArray[np.int64]]


def nobody(protocol: SecureSum, session: Session) -> tuple[Collection[str], Drop]:
    """Everybody stays."""
    return (), {}


class MemoryEngine:
    """Plays sums in this process. Every party's store lasts for the engine's life, so that reused keys and marks do.

    work: a client's part. departures, waited: who leaves, how long it takes in simulated time. workers: processes that
    train (`fl.engines.workers`); timeout: seconds that one client may take there. observe: sees every message.
    progress: told what is being done, how much of it, and of how much. clock: what seconds are read from.
    """

    notes = (PLAYED_HERE,)

    def __init__(
        self,
        secure_sum: SecureSum,
        work: Work,
        *,
        departures: Departures = nobody,
        waited: Waited = lambda number, clients: 0.0,
        policy: Policy | None = None,
        workers: int = 1,
        timeout: float | None = None,
    ) -> None:
        self.workers, self.timeout, self.waited = workers, timeout, waited
        self.secure_sum, self.work, self.departures, self.policy = secure_sum, work, departures, policy
        self.stores: defaultdict[str, MemoryStore] = defaultdict(MemoryStore)
        self.observe: Observe | None = None
        self.progress: Progress = lambda what, done, of: None
        self.clock: Callable[[], float] = time.perf_counter
        self.costs = SumCosts()
        self.session: Session | None = None
        self.outcome: Outcome | None = None
        self.first: tuple[str, NDArray[np.int64]] | None = None
        self._number = 0
        self._worked = False

    def check(self, resends: str) -> None:
        """Raises Misuse for what cannot be played here: known before round 1.

        resends: the strategy that sends one update in several rounds, for which the simulated clients' policy must
        allow that ("": none); on a network every node's own policy says so.
        """
        if self.timeout is not None and self.workers == 1:
            raise Misuse(
                "client_timeout: one process cannot end a loop that hangs: take workers=2 or more, or Flower"
            )
        if resends and not (self.policy or self.secure_sum.default_policy).allow_resend:
            raise Misuse(
                f"{resends} sends one update in several rounds, and the clients' policy does not "
                "allow that: say policy=Policy(allow_resend=True), on the command line --allow-resend"
            )

    def origin(self, run: str) -> Origin:
        return Origin(run=run)

    def memory(self) -> bytes | None:
        return recall(self.stores["server"], self.secure_sum)

    def session_number(self, round: int, sums: int) -> int:
        """The round's own number where it has one sum; a resumed run counts on like one that was not interrupted."""
        self._number = max((round - 1) * sums, self._number) + 1
        return self._number

    def staying(self, session: Session) -> Sequence[str]:
        early, _ = self.departures(self.secure_sum, session)
        return [name for name in session.roster if name not in early]

    def beside(self, secure_sum: SecureSum, shown: Tree) -> None:
        """Every federation has an engine in memory of its own."""

    def coming(
        self, names: Sequence[str], layers: Sequence[PrivacyLayer], scope: str, number: int
    ) -> tuple[str, ...]:
        """Return those who would come by themselves: their layers allow it, by their own stores."""
        return tuple(
            name for name in names if all(layer.comes(self.stores[name], scope, number) for layer in layers)
        )

    def over(self, scope: str, owners: Collection[str]) -> None:
        """Erase what clients keep of a run's layers whose last row is over."""
        for store in self.stores.values():
            erase(store, scope, owners)

    def lost(self, round: int) -> None:
        """A simulated round that was interrupted is played again: nothing of it left this process."""

    def save_clients(self, folder: Path) -> None:
        """Write what clients keep from round to round (`PartyState`) to `folder`/clients.npz, mode 0600."""
        held: dict[str, NDArray[np.uint8]] = {}
        for name, store in self.stores.items():
            with store.transaction() as t:
                held |= {f"{name}/{key}": np.frombuffer(t.get(key) or b"", np.uint8) for key in t.names(KEPT)}
        write_atomic(folder / CLIENTS, npz(held), 0o600)

    def restore_clients(self, folder: Path) -> None:
        """Give the clients back what `save_clients` wrote. Raises SecAggError where it is gone, or is another file."""
        for place, value in read_npz(folder / CLIENTS).items():
            name, _, key = place.rpartition(f"/{KEPT}")
            self.stores[name].put(KEPT + key, value.tobytes())

    def sum(self, broadcast: Broadcast, session: Session, charge: Charge) -> Summed:
        """Have the clients train one after the other, each when its input is due: one vector is held at a time.

        Clients train before anything is sent until the first of them succeeds, and then everyone who stays is charged
        for: a loop that works for nobody, and never did, ends the run with its error and has sent nothing. Who fails
        alone is gone, with its reason. Beside a layer that owns the training all train first, since what they spend is
        known then. `first` is the first client and its vector while the sum is under way.
        """
        self.session, self.outcome, self.costs, self._train_s = session, None, SumCosts(), 0.0
        staying = dict.fromkeys(self.staying(session))
        _, drop = self.departures(self.secure_sum, session)
        try:
            with self._trainer(broadcast, list(staying)) as train:
                inputs = self._inputs(broadcast, staying, train)
                charge(list(staying))
                outcome = self.outcome = self._simulate(session, inputs, drop)
            self.costs = _costs(outcome, self._train_s)
        except Aborted as error:
            self.costs.refusals.update(error.refusals | self.costs.refusals)
            raise
        finally:
            self.first = None
            self.costs.seconds.setdefault("train", self._train_s)
            self.costs = replace(self.costs, waited=self.waited(session.round, staying))
        return Summed(outcome.total, tuple(str(name) for name in outcome.survivors))

    @contextmanager
    def _trainer(self, broadcast: Broadcast, names: Sequence[str]) -> Iterator[Train]:
        """What trains a client: this process, or others beside it."""

        def train(name: str) -> NDArray[np.int64]:
            shown = broadcast.shown_to(name)
            own = shown.own(name, self.stores[name])
            return broadcast.plan.encode(self.work(shown, own), own)

        if self.workers == 1:
            yield train
            return
        with Workers(self.workers, names, train, self.stores.__getitem__, self.timeout) as workers:
            yield workers.take

    def _inputs(self, broadcast: Broadcast, staying: Collection[str], train: Train) -> dict[str, Input]:
        """Return what gives every asked client's vector. Who leaves before its input does is not trained."""
        inputs: dict[str, Input] = {}
        for place, name in enumerate(broadcast.clients):
            inputs[name] = partial(_nothing, broadcast)
            if name in staying:
                inputs[name] = partial(self._timed, train, name, (place, len(broadcast.clients)))
        owned, broken = any(layer.needs_local() for layer in broadcast.plan.layers), list[SecAggError]()
        for name in staying:
            if self.first is not None and not owned:
                break
            try:
                vector = inputs[name]()
            except REFUSALS as error:  # of this client alone: it is gone when its input is due
                inputs[name] = partial(_refuse, error)
                broken.append(error)
                continue
            inputs[name] = partial(np.asarray, vector)
            self.first = self.first or (name, vector)
        self._worked |= self.first is not None
        if broken and not self._worked and all(isinstance(error, ClientFailed) for error in broken):
            raise broken[0].__cause__ or broken[0]
        return inputs

    def _timed(self, train: Train, name: str, place: tuple[int, int]) -> NDArray[np.int64]:
        self.progress("training", *place)
        began = self.clock()
        try:
            return train(name)
        except REFUSALS as error:
            self.costs.refusals[name] = (
                f"{type(error).__name__}: {error}"  # told though the round may have no sum
            )
            raise
        finally:
            self._train_s += self.clock() - began

    def _simulate(self, session: Session, inputs: Mapping[str, Input], drop: Drop) -> Outcome:
        # a resumed simulation may play a round again: every session's update is named for itself
        updates = {name: hashlib.sha256(session.nonce + name.encode()).digest() for name in inputs}
        return simulate(
            self.secure_sum,
            inputs,
            drop=drop,
            observe=self.observe,
            policy=self.policy,
            stores={name: self.stores[name] for name in (*inputs, "server")},
            updates=updates,
            session=session,
            clock=self.clock,
        )


def _refuse(error: SecAggError) -> NDArray[np.int64]:
    """In place of the vector of a client that refused before its input was due."""
    raise error


def _nothing(broadcast: Broadcast) -> NDArray[np.int64]:
    """In place of the vector of a client that leaves before it could send one."""
    return np.zeros(broadcast.plan.dimension, np.int64)


def _costs(outcome: Outcome, train_s: float) -> SumCosts:
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
    refusals = {str(party): f"{type(error).__name__}: {error}" for party, error in outcome.refusals.items()}
    up, down = outcome.bytes_of("client"), outcome.bytes_of("server")
    return SumCosts(up / asked, down / asked, seconds, refusals=refusals)
