"""The server as a party: who is connected, what parties are told of a round, the last head of the record handed out.

What belongs here: everything that a Federation and a wrapped strategy share between sums. What does not: a sum
(`grid_engine`, `trips`), where plans come from (`rounds`, `fl.coordinator`), what is kept (`server_state`).
"""

import copy
import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from logging import INFO, WARNING
from pathlib import Path

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fl.flower.compat import failure_of, log, node_keys
from fl.flower.messages import CLOSE, EVALUATED, HELLO, Header, sessionless, unpack_answer
from fl.flower.nodes import Directory, from_names, from_roster, without_roster
from fl.flower.server_state import ServerFacts
from fl.round import ModelLayout, Origin, RoundTerms, RunHeader
from protocols.errors import Misuse, PeerError
from protocols.identity import Identity, Roster, SignedRoster
from protocols.kernel import Party, Step
from protocols.layers import RunFacts
from protocols.randomness import SystemRandom
from protocols.record import GENESIS, HEAD_PURPOSE
from protocols.runtime import forget, recall, remember
from protocols.store import FileStore, MemoryStore, Store
from protocols.summation import SecureSum

HELLO_SECONDS = 60.0
POLL_SECONDS = 0.1


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
    """The server of one run. head: the record's last head (64 hexadecimal digits).

    store: its own. roster: signed and verified, or None: clients are then called what nodes say, where `names` are the
    clients of a federation, else by Flower's node ids. poll: seconds between two looks for replies.
    """

    def __init__(
        self,
        grid: Grid,
        protocol: SecureSum,
        store: Store,
        roster: Roster | None = None,
        identity: Identity | None = None,
        poll: float = POLL_SECONDS,
        layout: ModelLayout | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        self.grid, self.protocol, self.state = grid, protocol, ServerFacts(store)
        self.roster, self.identity, self.poll, self.names = roster, identity, poll, names
        self.layout, self.head, self.series = layout or ModelLayout(), GENESIS, ""
        self._said: dict[int, str] = {}
        self._warned: set[object] = set()
        self.forget()  # nodes may have moved on, or be new: a server that starts makes a new set-up

    def beside(self, protocol: SecureSum) -> "ServerParty":
        """Return the same server for sums of another protocol: evaluations, whose set-ups of reused keys are theirs."""
        other = copy.copy(self)
        other.protocol, other.series, other.layout = protocol, EVALUATED, ModelLayout(EVALUATED)
        vars(other).pop("helpers", None)
        return other

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
        """Drop the set-up of reused keys: nobody knows who holds which one, so the next session makes one."""
        forget(self.state.store, self.protocol, self.series)

    def ask(self, contents: Mapping[int, RecordDict], seconds: float, group: str) -> Iterator[Message]:
        """Send one message each to some nodes; yield the replies as they arrive, at most one per node.

        It ends when all are there or `seconds` have passed; a node that is asked and silent yields nothing.
        """
        messages = [Message(c, node, "train", ttl=seconds, group_id=group) for node, c in contents.items()]
        pending = {message_id for message_id in self.grid.push_messages(messages) if message_id}
        waiting = set(contents)
        deadline = time.monotonic() + seconds
        while pending and waiting:
            late = time.monotonic() >= deadline  # whatever came in time is taken: one last look
            for reply in list(self.grid.pull_messages(list(pending))):
                pending.discard(reply.metadata.reply_to_message_id)
                node = reply.metadata.src_node_id
                if node in waiting:
                    waiting.discard(node)
                    yield reply
            if late:
                break
            if pending and waiting:
                time.sleep(min(self.poll, max(0.0, deadline - time.monotonic())))

    def connected(self) -> Directory:
        """Return who is connected now: by the roster, else by the names that nodes say, else by node ids."""
        if self.roster is not None:
            found = from_roster(self.roster, node_keys(self.grid))
        elif self.names is None:
            found = without_roster(self.grid.get_node_ids(), self.helpers)
        else:
            found = from_names(self._by_name(), self.names, self.helpers)
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
        while len(found := self.connected().clients) < needed and time.monotonic() < deadline:
            log(INFO, "%d of %d clients are connected", len(found), needed)
            time.sleep(1.0)

    def _by_name(self) -> dict[int, str]:
        """Return the nodes by the names they say; each is asked once."""
        present = [int(node) for node in self.grid.get_node_ids()]
        request = sessionless(HELLO, "", None, self.identity)
        strangers = dict.fromkeys((node for node in present if node not in self._said), request)
        for reply in self.ask(strangers, HELLO_SECONDS, HELLO) if strangers else ():
            node = reply.metadata.src_node_id
            try:
                if (why := failure_of(reply)) is None:
                    self._said[node] = unpack_answer(reply.content, None)[0].name
                    continue
            except PeerError as error:
                why = str(error)
            log(WARNING, "node %d says no name: %s", node, why)
        return {node: name for node, name in self._said.items() if node in present}

    def _warn(self, about: object, text: str, *values: object) -> None:
        if about not in self._warned:
            self._warned.add(about)
            log(WARNING, text, *values)

    def farewell(self, run: RunFacts | None, timeout: float, over: str = "") -> tuple[str, ...]:
        """Hand every connected client the last head of the record; return the names of those who kept it. over: names
        the run, if its clients shall erase what they kept from round to round.
        """
        if run is None or (self.head == GENESIS and not over):
            return ()
        directory, header = self.connected(), self.header(RoundTerms(self.origin(over), RunHeader.of(run)))
        clients = directory.clients.items()
        requests = {node: sessionless(CLOSE, name, header, self.identity) for name, node in clients}
        replies = self.ask(requests, timeout, CLOSE)
        kept = {directory.name_of(reply.metadata.src_node_id) for reply in replies if not reply.has_error()}
        return tuple(sorted(name for name in kept if name))


def helpers_of(protocol: SecureSum) -> tuple[Party, ...]:
    """Return the helpers that each session of a secure sum needs."""
    if type(protocol).helpers is SecureSum.helpers:
        return ()
    names = list(dict.fromkeys((*protocol.recipients, "a", "b", "c")))
    return protocol.helpers(protocol.session(names, 1, 1, random=SystemRandom()))
