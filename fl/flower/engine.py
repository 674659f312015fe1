"""Rounds over Flower's grid: who is connected, and the engine that carries a sum (`fl.round.Engine`).

What belongs here: what a Federation and a wrapped strategy share. What does not: how a round goes (`fl.round`), trips
(`trips`), the apps (`apps`).
"""

import time
from collections.abc import Callable, Sequence
from logging import INFO, WARNING

from flwr.app import ConfigRecord, RecordDict
from flwr.serverapp import Grid

from fl.flower.arrays import arrays_of
from fl.flower.compat import log, node_keys
from fl.flower.nodes import Directory, from_names, from_roster, without_roster
from fl.flower.server_party import ServerParty
from fl.flower.server_state import LOST
from fl.round import Broadcast, Charge, Costs, RoundResult, Summed
from protocols.layers import RunFacts
from protocols.runtime import recall
from protocols.session import Session

NOTE = (
    "the client's policy binds a server application that misbehaves, not whoever can replace the client's code: "
    "pin the code at the site"
)
Begun = Callable[[RunFacts, Session], None]


class Connected:
    """Who is connected, when it is called: by the roster, else by the names that nodes say, else by node ids.

    names: the clients of a federation; None for a wrapped strategy, whose nodes are called by their ids.
    """

    def __init__(self, server: ServerParty, grid: Grid, names: Sequence[str] | None = None) -> None:
        self.server, self.grid, self.names = server, grid, names
        self._said: dict[int, str] = {}
        self._warned: set[object] = set()

    def __call__(self) -> Directory:
        if self.server.roster is not None:
            found = from_roster(self.server.roster, node_keys(self.grid))
        elif self.names is None:
            found = without_roster(self.grid.get_node_ids(), self.server.helpers)
        else:
            found = from_names(self._by_name(), self.names, self.server.helpers)
        for node in found.unknown:
            self._warn(node, "node %d is not on the roster and takes no part", node)
        for claim in found.claimed.items():
            shown = ", ".join(map(str, claim[1]))
            text = "%r takes no part: nodes %s claim that name, give each one its own"
            self._warn(claim, text, claim[0], shown)
        self._warned &= {*found.unknown, *found.claimed.items()}
        return found

    def wait(self, needed: int, seconds: float) -> None:
        """Wait until so many clients are connected, at most `seconds`; rounds go on with who is there."""
        deadline = time.monotonic() + seconds
        while len(found := self().clients) < needed and time.monotonic() < deadline:
            log(INFO, "%d of %d clients are connected", len(found), needed)
            time.sleep(1.0)

    def _by_name(self) -> dict[int, str]:
        present = [int(node) for node in self.grid.get_node_ids()]
        if strangers := [node for node in present if node not in self._said]:
            self._said |= self.server.hello(self.grid, strangers)
        return {node: name for node, name in self._said.items() if node in present}

    def _warn(self, about: object, text: str, *values: object) -> None:
        if about not in self._warned:
            self._warned.add(about)
            log(WARNING, text, *values)


class FlowerEngine:
    """Carries sums over `grid` (`fl.round.Engine`).

    timeout: seconds per message trip. said: what the statement must say besides. config: what every node is shown
    beside the model. begun: called with every session before anything of it is asked for.
    """

    def __init__(
        self,
        server: ServerParty,
        grid: Grid,
        connected: Connected,
        timeout: float,
        said: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self.server, self.grid, self.connected, self.timeout, self.said = (
            server,
            grid,
            connected,
            timeout,
            said,
        )
        self.config: ConfigRecord | None = None
        self.begun: Begun = lambda run, session: None
        self.clock = time.perf_counter
        self.costs = Costs()
        self._interrupted = server.state.last_asked()  # of a process before this one

    @property
    def notes(self) -> tuple[str, ...]:
        return (NOTE, *self.said(), *self.server.state.notes())

    def memory(self) -> bytes | None:
        return recall(self.server.state.store, self.server.protocol)

    def session_number(self, round: int) -> int:
        self.server.require_new_updates()
        return self.server.state.next_session()

    def lost(self, round: int) -> RoundResult | None:
        asked, self._interrupted = self._interrupted, None
        if asked is None or asked.round != round:
            return None
        log(WARNING, "round %d was lost: %s", round, LOST)
        context, number = asked.session.hex(), asked.number
        return RoundResult(round, asked.asked, abandoned=LOST, session=context, session_number=number)

    def sum(self, broadcast: Broadcast, session: Session, charge: Charge) -> Summed:
        """Run one sum; everybody asked is charged for before the first request."""
        self.costs = Costs()
        facts, layout = broadcast.plan.facts, self.server.layout
        self.begun(facts.run, session)
        charge(broadcast.clients)
        header = self.server.header(
            session.encode(), broadcast.number, facts.run, facts.public, broadcast.name
        )
        content = RecordDict({layout.arrays: arrays_of(broadcast.reference.tree)})
        if self.config is not None:
            content[layout.config] = self.config
        try:
            total = self.server.sum(self.grid, self.connected(), session, header, content, self.timeout)
        finally:
            self.costs = self._costs(len(broadcast.clients))
        return Summed(total.total, tuple(broadcast.clients[i] for i in total.survivors))

    def _costs(self, asked: int) -> Costs:
        trips = self.server.trips
        train = sum(t.train for t in trips)
        seconds = {
            "train": train,
            "privacy_client": sum(t.node for t in trips) - train,
            "privacy_server": sum(t.server for t in trips),
            "waiting": sum(t.waiting for t in trips),
        }
        up, down = sum(t.up for t in trips), sum(t.down for t in trips)
        return Costs(up / asked, down / asked, seconds, trips, dict(self.server.refusals))
