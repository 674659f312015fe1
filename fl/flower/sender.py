"""What the server's side of every run shares: durable numbers, headers, one secure sum, the last head handed out.

What belongs here: everything between a round's plan and its total. What does not: where plans come from (`server` for a
wrapped strategy, `engine` for a Federation), single trips (`trips`).
"""

import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from logging import WARNING

from flwr.app import RecordDict
from flwr.serverapp import Grid

from fl.flower.compat import failure_of, log
from fl.flower.messages import CLOSE, HELLO, VERSION, Header, Request, RunHeader, pack, unpack_answer
from fl.flower.nodes import Directory
from fl.flower.progress import Out, last_out, sent_again_notes
from fl.flower.trips import POLL_SECONDS, Exchange, Summed, SumOverGrid, Trip
from protocols.errors import Aborted, PeerError
from protocols.identity import Identity, Roster
from protocols.kernel import Party
from protocols.layers import RunFacts
from protocols.randomness import SystemRandom
from protocols.record import GENESIS, HEAD_PURPOSE
from protocols.runtime import recall
from protocols.session import Session
from protocols.store import Store
from protocols.summation import SecureSum

NO_SESSION = bytes(32)
HELLO_SECONDS = 60.0


@dataclass(frozen=True)
class Shape:
    """How the model and the metrics travel: names of records, and the rule for integer arrays."""

    arrays: str = "arrays"
    config: str = "config"
    weight: str = "num-examples"
    metrics: tuple[str, ...] = ()
    integers: str = "keep"


@dataclass
class Sender:
    """The server as a party. head: the record's last head (64 hexadecimal digits). trips, refusals: of the last sum."""

    protocol: SecureSum
    store: Store
    roster: Roster | None = None
    identity: Identity | None = None
    poll: float = POLL_SECONDS
    shape: Shape = field(default_factory=Shape)
    head: str = GENESIS
    trips: tuple[Trip, ...] = ()
    refusals: dict[str, str] = field(default_factory=dict)

    def recall(self) -> bytes | None:
        """Return what the server keeps of earlier sessions."""
        return recall(self.store, self.protocol)

    def forget(self) -> None:
        """Drop what is kept of earlier sessions: after a round without a total nobody knows who holds which set-up, so
        the next session makes a new one.
        """
        self.store.delete(f"memory/{self.protocol.tag}")

    @functools.cached_property
    def helpers(self) -> tuple[Party, ...]:
        """The helpers that a session needs."""
        if type(self.protocol).helpers is SecureSum.helpers:
            return ()
        names = list(dict.fromkeys((*self.protocol.recipients, "a", "b", "c")))
        return self.protocol.helpers(self.protocol.session(names, 1, 1, random=SystemRandom()))

    def open(self) -> int:
        """Take the next session number, durably: clients answer a number once."""
        with self.store.transaction() as t:
            number = t.counter("flower/round") + 1
            t.advance("flower/round", number)
        return number

    def opened(self) -> int:
        """Return the last session number that was taken (0: none)."""
        with self.store.transaction() as t:
            return t.counter("flower/round")

    def last_out(self) -> Out | None:
        """Return the last round whose inputs were asked for, by this process or one before it."""
        return last_out(self.store)

    def notes(self) -> tuple[str, ...]:
        """Return what the statement must say of updates that left more than once."""
        return sent_again_notes(self.store)

    def federation(self) -> tuple[str, int]:
        """Return the name under which clients count sessions, and the roster's serial (0 without one)."""
        if self.roster is not None:
            return self.roster.federation, self.roster.serial
        with self.store.transaction() as t:
            name = t.get("flower/federation")
            if name is None:
                name = b"federation-" + os.urandom(8).hex().encode()
                t.put("flower/federation", name)
        return name.decode(), 0

    def header(
        self, session: bytes, number: int, run: RunFacts, public: Mapping[str, Mapping[str, float]]
    ) -> Header:
        """Return what parties are told of a round. number: as the training counts."""
        federation, serial = self.federation()
        known = self.head != GENESIS
        signature = (
            self.identity.sign(HEAD_PURPOSE, bytes.fromhex(self.head)) if self.identity and known else b""
        )
        return Header(
            federation=federation,
            serial=serial,
            number=number,
            session=session,
            run=RunHeader.of(run),
            public={name: dict(values) for name, values in public.items()},
            metrics=self.shape.metrics,
            weight_key=self.shape.weight,
            arrays_key=self.shape.arrays,
            config_key=self.shape.config,
            integers=self.shape.integers,
            head=self.head if known else "",
            head_signature=signature,
        )

    def sum(
        self,
        grid: Grid,
        directory: Directory,
        session: Session,
        header: Header,
        content: Callable[[], RecordDict],
        timeout: float,
    ) -> Summed:
        """Run one secure sum; log who was left out and why. Raises Aborted if there is no total."""
        driver = SumOverGrid(
            Exchange(grid, self.poll),
            directory,
            self.protocol,
            session,
            header,
            content,
            self.store,
            self.identity,
            timeout,
        )
        try:
            return driver.run()
        except Aborted:
            self.forget()
            raise
        finally:
            self.trips, self.refusals = tuple(driver.trips), dict(driver.refusals)
            if driver.sent_again:
                log(WARNING, "sent an update a second time: %s", ", ".join(sorted(driver.sent_again)))
            for name, why in sorted(self.refusals.items()):
                log(WARNING, "%s took no part to the end: %s", name, why)

    def hello(self, grid: Grid, nodes: list[int]) -> dict[int, str]:
        """Ask nodes for their names, where no roster tells them. Returns node id -> name of those that answered."""
        requests = {
            node: pack(
                Request(VERSION, HELLO, NO_SESSION, HELLO, "", "client", 0, None, 0), (), self.identity
            )
            for node in nodes
        }
        names: dict[int, str] = {}
        for reply in Exchange(grid, self.poll).ask(requests, HELLO_SECONDS, HELLO):
            node = reply.metadata.src_node_id
            if (why := failure_of(reply)) is not None:
                log(WARNING, "node %d says no name: %s", node, why)
                continue
            try:
                names[node] = unpack_answer(reply.content, None)[0].name
            except PeerError as error:
                log(WARNING, "node %d says no name: %s", node, error)
        return names

    def farewell(self, grid: Grid, directory: Directory, run: RunFacts, timeout: float) -> tuple[str, ...]:
        """Hand every connected client the last head of the record; return the names of those who kept it."""
        if self.head == GENESIS:
            return ()
        header = self.header(b"", 0, run, {})
        requests = {
            node: pack(
                Request(VERSION, CLOSE, NO_SESSION, CLOSE, name, "client", 0, header, 0), (), self.identity
            )
            for name, node in directory.clients.items()
        }
        replies = Exchange(grid, self.poll).ask(requests, timeout, CLOSE)
        kept = {directory.name_of(reply.metadata.src_node_id) for reply in replies if not reply.has_error()}
        return tuple(sorted(name for name in kept if name))
