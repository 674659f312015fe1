"""A Federation's rounds over Flower's grid, and Flower's simulation started from here.

What belongs here: the engine that `Federation.fit` plays its rounds on, and who is which client. What does
not: the federation (`fl.federation`), the apps (`apps`), trips (`trips`). It is the in-memory engine's
counterpart: same openings, same vectors, same totals; only the messages travel.
"""

import time
from logging import INFO, WARNING

from flwr.app import RecordDict
from flwr.serverapp import Grid

from fl.config import Setup
from fl.coordinator import Coordinator
from fl.flower.compat import log, node_keys
from fl.flower.nodes import Directory, from_names, from_roster
from fl.flower.rounds import arrays_of
from fl.flower.server_party import ServerParty
from fl.flower.server_state import LOST
from fl.round import Broadcast, Charge, Costs, RoundResult, Summed
from protocols.session import Session

NOTES = (
    "the client's policy binds a server application that misbehaves, not whoever can replace the client's code: "
    "pin the code at the site",
)
AMPLIFIED = (
    "the price counts on a secret choice of clients, which no client can check: each node's own ledger, and its "
    "max_epsilon, count every round that it was asked for without it"
)


class FlowerEngine:
    """Plays a Federation's rounds on the nodes of `grid`. timeout: seconds per message trip.

    Raises Misuse if a client of the federation is neither on the roster nor among the connected nodes' names.
    """

    def __init__(
        self, setup: Setup, coordinator: Coordinator, grid: Grid, server: ServerParty, timeout: float
    ) -> None:
        self.setup = setup
        self.coordinator = coordinator
        self.grid = grid
        self.server = server
        self.timeout = timeout
        self.clock = time.perf_counter
        self.costs = Costs()
        self._names: dict[int, str] = {}
        self._claimed: dict[str, tuple[int, ...]] = {}
        self._interrupted = (
            server.state.last_asked()
        )  # of a process before this one, if its round was not saved

    @property
    def notes(self) -> tuple[str, ...]:
        """What the statement must say besides."""
        return (*NOTES, *((AMPLIFIED,) if self.coordinator.hidden else ()), *self.server.state.notes())

    def memory(self) -> bytes | None:
        return self.server.state.recall(self.setup.stack.secure_sum)

    def session_number(self, round: int) -> int:
        self.server.require_new_updates()
        return self.server.state.next_session()

    def lost(self, round: int) -> RoundResult | None:
        out, self._interrupted = self._interrupted, None
        if out is None or out.round != round:
            return None
        log(WARNING, "round %d was lost: %s", round, LOST)
        return RoundResult(round, out.asked, session=out.session.hex(), abandoned=LOST)

    def sum(self, broadcast: Broadcast, session: Session, charge: Charge) -> Summed:
        """Run one sum; everybody asked is charged for before the first request."""
        self.costs = Costs()
        charge(broadcast.clients)
        facts = broadcast.plan.facts
        header = self.server.header(session.encode(), broadcast.number, facts.run, facts.public)
        content = RecordDict({"arrays": arrays_of(broadcast.reference.tree)})
        try:
            total = self.server.sum(self.grid, self.directory(), session, header, content, self.timeout)
        finally:
            self.costs = self._costs(len(broadcast.clients))
        return Summed(total.total, tuple(broadcast.clients[i] for i in total.survivors))

    def directory(self) -> Directory:
        """Return who is connected now: by the roster, else by the names that nodes say."""
        if self.server.roster is not None:
            return from_roster(self.server.roster, node_keys(self.grid))
        helpers = self.server.helpers
        present = [int(node) for node in self.grid.get_node_ids()]
        strangers = [node for node in present if node not in self._names]
        if strangers:
            self._names |= self.server.hello(self.grid, strangers)
        named = {node: name for node, name in self._names.items() if node in present}
        found = from_names(named, self.setup.names, helpers)
        for name, nodes in found.claimed.items():
            if self._claimed.get(name) != nodes:
                shown = ", ".join(map(str, nodes))
                log(WARNING, "%r takes no part: nodes %s claim that name, give each one its own", name, shown)
        self._claimed = found.claimed
        return found

    def wait_for_clients(self) -> None:
        """Wait until a round's clients are connected, at most one trip's time; rounds go on with who is there."""
        deadline = time.monotonic() + self.timeout
        needed = self.coordinator.cohort()
        while len(found := self.directory().clients) < needed and time.monotonic() < deadline:
            log(INFO, "%d of %d clients are connected", len(found), needed)
            time.sleep(1.0)

    def farewell(self) -> tuple[str, ...]:
        """Hand the clients the record's last head; return who kept it."""
        if self.coordinator.run is None:
            return ()
        return self.server.farewell(
            self.grid, self.directory(), self.coordinator.run, min(self.timeout, 60.0)
        )

    def _costs(self, asked: int) -> Costs:
        trips = self.server.trips
        train = sum(t.train for t in trips)
        seconds = {
            "train": train,
            "privacy_client": sum(t.node for t in trips) - train,
            "privacy_server": sum(t.server for t in trips),
            "waiting": sum(t.waiting for t in trips),
        }
        return Costs(sum(t.up for t in trips) / asked, sum(t.down for t in trips) / asked, seconds)
