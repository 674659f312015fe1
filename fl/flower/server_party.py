"""The server as a party: headers, one secure sum, the last head of the record handed out.

What belongs here: everything between a round's plan and its total, the same for a Federation and for a wrapped
strategy. What does not: where plans come from (`server`, `engine`), single trips (`trips`), what is kept
(`server_state`).
"""

import functools
from logging import WARNING
from pathlib import Path

from flwr.app import RecordDict
from flwr.serverapp import Grid

from fl.flower.compat import failure_of, log
from fl.flower.messages import CLOSE, HELLO, Header, ModelLayout, RunHeader, sessionless, unpack_answer
from fl.flower.nodes import Directory
from fl.flower.server_state import ServerFacts
from fl.flower.trips import POLL_SECONDS, SumOverGrid, ask
from fl.round import Trip
from protocols.errors import Aborted, Misuse, PeerError, SecAggError
from protocols.identity import Identity, Roster, SignedRoster
from protocols.kernel import Party
from protocols.layers import Public, PublicValues, RunFacts
from protocols.randomness import SystemRandom
from protocols.record import GENESIS, HEAD_PURPOSE
from protocols.session import Session
from protocols.store import FileStore, MemoryStore, Store
from protocols.summation import SecureSum, Total

HELLO_SECONDS = 60.0
STUCK = (
    "clients refuse to send an update that has left them before, in two rounds running: training gives the same "
    'update again. Let it depend on the round (config["server-round"]: another seed, batch order or rate), or '
    "let sites allow it by `allow_resend` in their policy, which their ledgers charge and the statement names"
)
PATIENCE = 2
"""Rounds in a row that may fail because updates were spent; every one of them costs as much as a good one."""


def server_files(
    folder: Path | None, signed: SignedRoster | None, authority: bytes | None, identity: Identity | None
) -> tuple[Store, Roster | None]:
    """Return the server's own store, in `folder`, and the verified roster.

    signed, authority, identity: the signed roster, the pinned key that signed it and the server's signing key. Raises
    Misuse unless all three are given or none, and for a roster without a folder; PeerError for one not verified.
    """
    if len({signed is None, authority is None, identity is None}) != 1:
        raise Misuse("a roster comes with the authority's key and the server's identity, all three or none")
    if signed is not None and folder is None:
        raise Misuse("with a roster rounds are counted across runs: name an output folder")
    store = MemoryStore() if folder is None else FileStore(folder / "state" / "store", "server")
    return store, None if signed is None or authority is None else signed.verified(authority)


class ServerParty:
    """The server of one run. head: the record's last head (64 hexadecimal digits). trips, refusals: of the last sum.

    store: its own. roster: signed and verified, or None: names are then Flower's node ids, or what nodes say.
    """

    def __init__(
        self,
        protocol: SecureSum,
        store: Store,
        roster: Roster | None = None,
        identity: Identity | None = None,
        poll: float = POLL_SECONDS,
        layout: ModelLayout | None = None,
    ) -> None:
        self.protocol, self.state = protocol, ServerFacts(store)
        self.roster, self.identity, self.poll, self.layout = roster, identity, poll, layout or ModelLayout()
        self.head = GENESIS
        self.trips: tuple[Trip, ...] = ()
        self.refusals: dict[str, str] = {}
        self._spent_rounds = 0
        self._forget()  # nodes may have moved on, or be new: a server that starts makes a new set-up

    @functools.cached_property
    def helpers(self) -> tuple[Party, ...]:
        """The helpers that a session needs."""
        return helpers_of(self.protocol)

    def federation(self) -> tuple[str, int]:
        """Return the name under which clients count sessions, and the roster's serial (0 without one)."""
        if self.roster is not None:
            return self.roster.federation, self.roster.serial
        return self.state.name(), 0

    def header(self, session: bytes, number: int, run: RunFacts, public: Public, name: str = "") -> Header:
        """Return what parties are told of a round. number: as the training counts. name: of the sum."""
        federation, serial = self.federation()
        known, signature = self.head != GENESIS, b""
        if self.identity and known:
            signature = self.identity.sign(HEAD_PURPOSE, bytes.fromhex(self.head))
        return Header(
            federation=federation,
            serial=serial,
            number=number,
            name=name,
            session=session,
            run=RunHeader.of(run),
            public=PublicValues.of(public),
            layout=self.layout,
            head=self.head if known else "",
            head_signature=signature,
        )

    def _forget(self) -> None:
        """Drop the set-up of reused keys: nobody knows who holds which one, so the next session makes one."""
        self.state.store.delete(f"memory/{self.protocol.tag}")

    def require_new_updates(self) -> None:
        """Raises SecAggError (`STUCK`) when most clients refused to repeat themselves in the last rounds."""
        if self._spent_rounds >= PATIENCE:
            raise SecAggError(STUCK)

    def sum(
        self,
        grid: Grid,
        directory: Directory,
        session: Session,
        header: Header,
        content: RecordDict,
        timeout: float,
    ) -> Total:
        """Run one secure sum; log who was left out and why. Raises Aborted if there is no total."""
        common = (grid, self.poll, self.protocol, self.state, self.identity)
        driver = SumOverGrid(*common, directory, session, header, content, timeout)
        try:
            total = driver.run()
            self._spent_rounds = 0
            return total
        except Aborted as error:
            self._forget()
            spent = sum("SpentUpdate" in why for why in driver.refusals.values())
            self._spent_rounds = self._spent_rounds + 1 if 2 * spent > session.clients else 0
            if not spent:
                raise
            raise Aborted(
                f"{error.reason} ({spent} clients would have sent an update that had left before)"
            ) from error
        finally:
            self.trips, self.refusals = tuple(driver.trips), dict(driver.refusals)
            if driver.resent:
                log(WARNING, "sent an update a second time: %s", ", ".join(sorted(driver.resent)))
            for name, why in sorted(self.refusals.items()):
                log(WARNING, "%s took no part to the end: %s", name, why)

    def hello(self, grid: Grid, nodes: list[int]) -> dict[int, str]:
        """Ask nodes for their names, where no roster tells them. Returns node id -> name of those that answered."""
        request = sessionless(HELLO, "", None, self.identity)
        names: dict[int, str] = {}
        for reply in ask(grid, self.poll, dict.fromkeys(nodes, request), HELLO_SECONDS, HELLO):
            node = reply.metadata.src_node_id
            if (why := failure_of(reply)) is not None:
                log(WARNING, "node %d says no name: %s", node, why)
                continue
            try:
                names[node] = unpack_answer(reply.content, None)[0].name
            except PeerError as error:
                log(WARNING, "node %d says no name: %s", node, error)
        return names

    def farewell(
        self, grid: Grid, directory: Directory, run: RunFacts | None, timeout: float
    ) -> tuple[str, ...]:
        """Hand every connected client the last head of the record; return the names of those who kept it."""
        if self.head == GENESIS or run is None:
            return ()
        header = self.header(b"", 0, run, {})
        clients = directory.clients.items()
        requests = {node: sessionless(CLOSE, name, header, self.identity) for name, node in clients}
        replies = ask(grid, self.poll, requests, timeout, CLOSE)
        kept = {directory.name_of(reply.metadata.src_node_id) for reply in replies if not reply.has_error()}
        return tuple(sorted(name for name in kept if name))


def helpers_of(protocol: SecureSum) -> tuple[Party, ...]:
    """Return the helpers that each session of a secure sum needs."""
    if type(protocol).helpers is SecureSum.helpers:
        return ()
    names = list(dict.fromkeys((*protocol.recipients, "a", "b", "c")))
    return protocol.helpers(protocol.session(names, 1, 1, random=SystemRandom()))
