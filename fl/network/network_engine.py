"""The engine that carries a sum over a network (`fl.round.Engine`).

What belongs here: what everything that runs over a network shares of a sum. What does not: how a round goes
(`fl.round`), trips (`trips`), who is connected and how a message reaches it (`server_party`).
"""

import time
from collections.abc import Callable, Sequence
from logging import WARNING
from typing import Generic

from fl.network.messages import Shown
from fl.network.server_party import ServerParty
from fl.network.server_state import LOST
from fl.network.trips import SumOverNetwork
from fl.round import Broadcast, Charge, Origin, RoundResult, SumCosts, Summed, Tree
from fl.round.hidden import is_hidden
from protocols.errors import Aborted, SecAggError, SetupMissing
from protocols.layers import RunFacts
from protocols.session import Session
from protocols.summation import SecureSum, Total

NOTE = (
    "the client's policy binds a server application that misbehaves, not whoever can replace the client's code: "
    "pin the code at the site"
)
SIMULATED = "simulated nodes: one machine played them all, so nothing was hidden from it"
STUCK = (
    "clients refuse to send an update that has left them before, in two rounds running: training gives the same "
    'update again. Let it depend on the round (config["server-round"]: another seed, batch order or rate), or '
    "let sites allow it by `allow_resend` in their policy, which their ledgers charge and the statement names"
)
PATIENCE = 2
"""Rounds in a row that may fail because updates were spent; every one of them costs as much as a good one."""


Begun = Callable[[RunFacts, Session], None]


class NetworkEngine(Generic[Shown]):
    """Carries sums over a network (`fl.round.Engine`).

    timeout: seconds per message trip. said: what the statement must say besides. awaited: how many clients a trip waits
    for, where more are asked than are needed (None: all). shown: what nodes are shown in place of the
    reference. begun: called with every session before anything
    of it is asked for.
    """

    def __init__(
        self,
        server: ServerParty[Shown],
        timeout: float,
        said: Callable[[], Sequence[str]] = tuple,
        awaited: int | None = None,
    ) -> None:
        self.server, self.timeout, self.said, self.awaited = server, timeout, said, awaited
        self.shown: Tree | None = None
        self.begun: Begun = lambda run, session: None
        self.clock = time.perf_counter
        self.costs = SumCosts()
        self._spent_rounds, self._evaluates = 0, False
        self._interrupted = server.state.last_asked()  # of a process before this one

    @property
    def notes(self) -> tuple[str, ...]:
        played = (SIMULATED,) if self.server.simulated else ()
        return (NOTE, *played, *self.said(), *self.server.state.notes())

    def origin(self, run: str) -> Origin:
        return self.server.origin(run)

    def memory(self) -> bytes | None:
        return self.server.recall()

    def beside(self, secure_sum: SecureSum, shown: Tree) -> "NetworkEngine[Shown]":
        """Return an engine for evaluations: it shows nodes the model, and they sum what their data says of it. An
        evaluation has no interrupted round to count.
        """
        other = NetworkEngine(self.server.beside(secure_sum), self.timeout, self.said)
        if not self._evaluates:  # as where a server starts: nodes may be new
            other.server.forget()
        other.shown, other._interrupted, self._evaluates = shown, None, True
        return other

    def session_number(self, round: int, sums: int) -> int:
        self.require_new_updates()
        return self.server.state.next_session()

    def staying(self, session: Session) -> Sequence[str]:
        return session.roster

    def require_new_updates(self) -> None:
        """Raises SecAggError (`STUCK`) when most clients refused to repeat themselves in the last rounds."""
        if self._spent_rounds >= PATIENCE:
            raise SecAggError(STUCK)

    def lost(self, round: int) -> RoundResult | None:
        asked, self._interrupted = self._interrupted, None
        if asked is None or asked.round != round:
            return None
        self.server.log(WARNING, "round %d was lost: %s", round, LOST)
        context, number = asked.session.hex(), asked.number
        return RoundResult(round, asked.asked, abandoned=LOST, session=context, session_number=number)

    def sum(self, broadcast: Broadcast, session: Session, charge: Charge) -> Summed:
        """Run one sum; everybody asked is charged for before the first request; log who was left out and why, unless
        who was asked is withheld.
        """
        self.costs, run = SumCosts(), broadcast.plan.facts.run
        self.begun(run, session)
        server = self.server
        directory = server.connected()  # before anything is paid for: it raises where a job was aborted
        charge(broadcast.clients)
        header = server.header(broadcast.terms, session.encode())
        driver = SumOverNetwork(
            server, directory, session, header, self._content(broadcast), self.timeout, self.awaited
        )
        try:
            total = self._total(driver, session)
        finally:
            self.costs = _costs(driver, len(broadcast.clients))
            if not is_hidden(broadcast.plan, run):
                self._say(driver)
        return Summed(total.total, tuple(broadcast.clients[i] for i in total.survivors))

    def _total(self, driver: SumOverNetwork[Shown], session: Session) -> Total:
        try:
            total = driver.run()
        except Aborted as error:
            self.server.forget()
            spent = sum("SpentUpdate" in why for why in driver.refusals.values())
            self._spent_rounds = self._spent_rounds + 1 if 2 * spent > session.clients else 0
            if not spent:
                raise
            raise Aborted(
                f"{error.reason} ({spent} clients would have sent an update that had left before)"
            ) from error
        if any(SetupMissing.__name__ in why for why in driver.refusals.values()):
            self.server.forget()  # one that lost its keys takes part in the next round again
        self._spent_rounds = 0
        return total

    def _content(self, broadcast: Broadcast) -> Callable[[str], Shown]:
        """Return what gives the model that a party is shown, as it travels; made once per model."""
        made: dict[bytes, Shown] = {}

        def content(name: str) -> Shown:
            reference, layout = broadcast.shown_to(name).reference, broadcast.terms.origin.layout
            if reference.digest not in made:
                arrays = reference.shown if self.shown is None else self.shown
                made[reference.digest] = self.server.show(arrays, layout)
            return made[reference.digest]

        return content

    def _say(self, driver: SumOverNetwork[Shown]) -> None:
        if driver.resent:
            self.server.log(WARNING, "sent an update a second time: %s", ", ".join(sorted(driver.resent)))
        for name, why in sorted(driver.refusals.items()):
            self.server.log(WARNING, "%s took no part to the end: %s", name, why)


def _costs(driver: SumOverNetwork[Shown], asked: int) -> SumCosts:
    trips = tuple(driver.trips)
    train = sum(t.train for t in trips)
    seconds = {
        "train": train,
        "privacy_client": sum(t.node for t in trips) - train,
        "privacy_server": sum(t.server for t in trips),
        "waiting": sum(t.waiting for t in trips),
    }
    up, down = sum(t.up for t in trips), sum(t.down for t in trips)
    return SumCosts(up / asked, down / asked, seconds, trips, dict(driver.refusals))
