"""The server as a party: who is connected, what parties are told of a round, the last head of the record handed out.

What belongs here: everything that a Federation and a wrapped strategy share between sums. What does not: a sum
(`network_engine`, `trips`), where plans come from (`fl.coordinator`), what is kept (`server_state`).
"""

import copy
import functools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from logging import INFO, WARNING
from pathlib import Path
from typing import Generic, Self

from fl.network.directory import Directory, Node
from fl.network.messages import CLOSE, EVALUATED, Answer, Header, Request, Shown, sessionless
from fl.network.server_state import ServerFacts
from fl.round import ModelLayout, Origin, RoundTerms, RunHeader, Tree
from protocols.errors import Misuse
from protocols.identity import Identity, Roster, SignedRoster
from protocols.kernel import Party, Step
from protocols.layers import RunFacts
from protocols.randomness import SystemRandom
from protocols.record import GENESIS, HEAD_PURPOSE
from protocols.runtime import forget, recall, remember
from protocols.store import FileStore, MemoryStore, Store
from protocols.summation import SecureSum

Enough = Callable[[], bool]


@dataclass(frozen=True)
class Sent(Generic[Shown]):
    """A request with its frames. shown: the model as it travels, with the first request of a session."""

    request: Request
    frames: list[bytes] = field(default_factory=list, repr=False)
    shown: Shown | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Reply:
    """What came from a node. failure: why it carries no answer. opened: returns the answer and its frames, signed by
    the key that it is given; raises PeerError.
    """

    node: Node
    failure: str | None
    opened: Callable[[bytes | None], tuple[Answer, list[bytes]]]


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


class ServerParty(ABC, Generic[Shown]):
    """The server of one run; a framework makes it able to send. head: the record's last head (64 hexadecimal digits).
    late: after how many seconds a node's answer came too late, which it is to be told.

    store: its own. roster: signed and verified, or None. log: where it says what it does, as `logging.Logger.log`.
    """

    def __init__(
        self,
        protocol: SecureSum,
        store: Store,
        roster: Roster | None,
        identity: Identity | None,
        log: Callable[..., None],
        layout: ModelLayout | None = None,
    ) -> None:
        self.protocol, self.state, self.log = protocol, ServerFacts(store), log
        self.roster, self.identity = roster, identity
        self.layout, self.head, self.series = layout or ModelLayout(), GENESIS, ""
        self.late, self._told = dict[Node, float](), set[str]()
        self._say_what_is_read("update")
        self.forget()  # nodes may have moved on, or be new: a server that starts makes a new set-up

    def beside(self, protocol: SecureSum) -> Self:
        """Return the same server for sums of another protocol: evaluations, whose set-ups of reused keys are theirs."""
        other = copy.copy(self)
        other.protocol, other.series, other.layout = protocol, EVALUATED, ModelLayout(EVALUATED)
        vars(other).pop("helpers", None)
        other._say_what_is_read("client's own evaluation")
        return other

    def _say_what_is_read(self, what: str) -> None:
        if self.protocol.server_sees_vectors:
            self.log(
                WARNING, f"no secure sum is listed: the server reads every {what} (privacy=[SecAggPlus()])"
            )

    @functools.cached_property
    def helpers(self) -> tuple[Party, ...]:
        """The helpers that a session needs."""
        return helpers_of(self.protocol)

    def recall(self) -> bytes | None:
        """Return what is kept for later sessions: a set-up of reused keys."""
        return recall(self.state.store, self.protocol, self.series)

    def remember(self, step: Step) -> None:
        """Keep what a step of the server's leaves for later sessions, synced."""
        if step.marks or step.memory is not None:
            with self.state.store.transaction() as t:
                remember(t, self.protocol, step, series=self.series)

    def federation(self) -> tuple[str, int]:
        """Return the name under which clients count sessions, and the roster's serial (0 without one)."""
        if self.roster is not None:
            return self.roster.federation, self.roster.serial
        return self.state.name(), 0

    def origin(self, run: str) -> Origin:
        """Return whose rounds these are; run: the run's name."""
        return Origin(*self.federation(), run, self.layout)

    def header(self, terms: RoundTerms, session: bytes = b"") -> Header:
        """Return what parties are told of a round: its terms, and the record's last head."""
        if self.head == GENESIS:
            return Header(terms, session, "", b"")
        signer, head = self.identity, bytes.fromhex(self.head)
        return Header(terms, session, self.head, signer.sign(HEAD_PURPOSE, head) if signer else b"")

    def forget(self) -> None:
        """Drop the set-up of reused keys, so that the next session makes a new one: nobody knows which clients still
        hold this one's keys.
        """
        forget(self.state.store, self.protocol, self.series)

    @property
    @abstractmethod
    def simulated(self) -> bool:
        """Whether this machine plays every node."""

    @abstractmethod
    def show(self, arrays: Tree, layout: ModelLayout) -> Shown:
        """Return a model as it travels, with what every node is shown beside it."""

    @abstractmethod
    def ask(
        self, requests: Mapping[Node, Sent[Shown]], seconds: float, group: str, enough: Enough = lambda: True
    ) -> Iterator[Reply]:
        """Send one message each to some nodes, signed by this server; yield the replies as they arrive, at most one per
        node. It ends when all are there or `seconds` have passed; an engine may wait longer, within a bound, until
        the caller has `enough`. A node that is asked and silent yields nothing.
        """

    @abstractmethod
    def look(self) -> Directory:
        """Return who is connected now: by the roster, else as the framework or the nodes themselves say."""

    def connected(self) -> Directory:
        """Return who is connected now. Log once, for each node that takes no part, why it does not.

        Beside a run nothing is logged: who stands aside in an evaluation may help the run's own sums.
        """
        found = self.look()
        for text in found.left_out if not self.series else ():
            if text not in self._told:
                self.log(WARNING, "%s", text)
        self._told = set(found.left_out)
        return found

    def wait(self, needed: int, seconds: float) -> None:
        """Wait until so many clients are connected, at most `seconds`; rounds go on with who is there."""
        deadline = time.monotonic() + seconds
        while len(found := self.connected().clients) < needed and time.monotonic() < deadline:
            self.log(INFO, "%d of %d clients are connected", len(found), needed)
            time.sleep(1.0)

    def farewell(
        self, run: RunFacts | None, timeout: float, over: str = "", whole: bool = True
    ) -> tuple[str, ...]:
        """Hand every connected client the last head of the record; return the names of those who kept it.

        over: the run's name, where clients shall erase what they kept from round to round; "" where they keep it.
        whole: they erase all of it; else only what layers need no more after the run's last row, whose number they are
        told.
        """
        if run is None or (self.head == GENESIS and not over):
            return ()
        terms = RoundTerms(self.origin(over), RunHeader.of(run), number=0 if whole else run.rounds)
        directory, header = self.connected(), self.header(terms)
        clients = directory.clients.items()
        requests = {node: Sent[Shown](sessionless(CLOSE, name, header)) for name, node in clients}
        replies = self.ask(requests, timeout, CLOSE)
        kept = {directory.name_of(reply.node) for reply in replies if reply.failure is None}
        return tuple(sorted(name for name in kept if name))


def helpers_of(protocol: SecureSum) -> tuple[Party, ...]:
    """Return the helpers that each session of a secure sum needs."""
    if type(protocol).helpers is SecureSum.helpers:
        return ()
    names = list(dict.fromkeys((*protocol.recipients, "a", "b", "c")))
    return protocol.helpers(protocol.session(names, 1, 1, random=SystemRandom()))
