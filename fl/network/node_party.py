"""A node's part in a round: from a request to an answer, on its own store, identity and policy.

What belongs here: whose request it is, and the session's steps. What does not: what a client checks of a round
(`fl.round.party`), a framework's calls, files (`site`), training (`node_work`).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from logging import ERROR, getLogger
from typing import Generic

from fl.network.messages import CLOSE, EVALUATED, HELLO, START, VERSION, WORK, Answer, Header, Request, Shown
from fl.network.node_work import NodeWork
from fl.network.site import Site, session_key
from fl.round.party import RoundParty
from protocols.codec import Record
from protocols.errors import Misuse, PolicyRefusal, SecAggError, WireError, refuse
from protocols.identity import verify
from protocols.kernel import Message as Frame
from protocols.kernel import Party
from protocols.party_state import erase, expire
from protocols.policy import Policy
from protocols.randomness import SystemRandom
from protocols.record import HEAD_PURPOSE
from protocols.runtime import Runtime, Start
from protocols.session import Session
from protocols.stack import Stack
from protocols.store import write_atomic
from protocols.summation import IntVector


@dataclass(frozen=True)
class Begun(Record):
    """What a node keeps of a session that it began: its public facts, and under which name the model travelled."""

    session: Session
    arrays: str


KEPT_HEAD, KEPT_HEADS = "kept-head.txt", "kept-heads.txt"
IN_CLEAR = "no secure sum is listed for this: the server reads what this node sends (privacy=[SecAggPlus()])"


@dataclass(frozen=True)
class Part(Generic[Shown]):
    """What a node plays in a session: its layers, its work, and the app's policy, where its own files say nothing."""

    stack: Stack
    work: NodeWork[Shown]
    policy: Policy | None = None


class NodeParty(Generic[Shown]):
    """One node while it answers one message. Raises PolicyRefusal, PeerError, StoreError or Misuse instead of
    answering. part_of: gives the part by the name of the record that the model travels under.
    """

    def __init__(self, site: Site, part_of: Callable[[str], Part[Shown]]) -> None:
        self.site, self.part_of = site, part_of
        self.own: RoundParty | None = None

    def _take_part(self, arrays: str) -> tuple[RoundParty, NodeWork[Shown]]:
        site, part = self.site, self.part_of(arrays)
        demands = site.policy(part.stack.secure_sum, part.policy)
        self.own = RoundParty(site.name, site.store, site.ledger, demands, part.stack)
        return self.own, part.work

    def answer(self, request: Request, frames: list[bytes], shown: Shown) -> tuple[Answer, list[bytes]]:
        """Return the answer to a request and its frames. shown: what came with it of a model."""
        began = time.perf_counter()
        expire(self.site.store, time.time())
        out: list[Frame] = []
        if request.kind != HELLO:
            if request.recipient != self.site.name:
                wanted = request.recipient
                raise refuse(f"a request for {wanted!r} came to {self.site.name!r}")
            if request.kind == CLOSE:
                self._keep_head(header := _header(request))
                if (origin := header.terms.origin).run:  # it is over, says who may go on with it
                    counted = self.part_of(origin.layout.arrays).stack.counted
                    erase(self.site.store, origin.scope, counted if header.terms.number else ("",))
            elif request.kind == WORK:
                self._work(_header(request), shown)
            else:
                if request.kind == START:
                    self._start(request, shown)
                out = self._step(request, frames)
        seconds, own = time.perf_counter() - began, self.own
        spent = (0.0, False) if own is None else (own.train_seconds, own.sent_again)
        facts = request.context, request.stage, self.site.name, seconds, *spent
        return Answer(VERSION, *facts, frames=len(out)), [f.to_wire() for f in out]

    def _work(self, header: Header, shown: Shown) -> None:
        """Check the model and the chain that it is a link of, train on it, and keep what comes of it."""
        site, origin, manifest = self.site, header.terms.origin, header.terms.manifest
        site.require_role("client")
        site.require_roster(origin.federation, origin.serial, (site.name,))
        own, work = self._take_part(origin.layout.arrays)
        own.require_layers()
        self._keep_head(header)
        if manifest is not None:
            manifest.chain.require_signed(origin.scope, site.server_key)
        work.prepare(header, site.name, site.store, shown)

    def _start(self, request: Request, shown: Shown) -> None:
        """Check everything that can be checked, then train, then begin the session."""
        header, site = _header(request), self.site
        claimed, origin = Session.decode(header.session), header.terms.origin
        federation, arrays = origin.federation, origin.layout.arrays
        site.require_role(request.role)
        site.require_roster(federation, origin.serial, claimed.roster)
        own, work = self._take_part(arrays)
        own.require_layers()
        if own.stack.secure_sum.server_sees_vectors:
            getLogger(__name__).warning(IN_CLEAR)
        self._keep_head(header)
        if request.role == "client" and claimed.roster[request.index : request.index + 1] != (site.name,):
            raise refuse(f"index {request.index} of the session is not {site.name!r}")
        broadcast = work.open(header, claimed, shown)
        if broadcast.manifest is not None:
            broadcast.manifest.chain.require_signed(origin.scope, site.server_key)
        session = own.session(broadcast, claimed, header.terms)
        if session.context != request.context:
            raise refuse("the request is of another session than its header")
        site.enter_round(origin, session.round, session.context, Begun(session, arrays).encode())
        # set-ups are of one run; what a client counts is of the federation, for a server may invent runs: and it does,
        # one for each evaluation
        evaluates, reuses = arrays == EVALUATED, own.stack.secure_sum.builds_on_earlier
        series = f"{federation}/{EVALUATED}" if evaluates else (origin.scope if reuses else federation)
        if request.role == "client":
            first = own.begin(broadcast, session, request.index, work, federation, series)
        else:
            first = _helper(own, session, Party(request.role, request.index))
        self._runtime(own, session).begin(first, series)

    def _step(self, request: Request, frames: list[bytes]) -> list[Frame]:
        """Hand the frames to the session's state, each once; what is answered was saved before."""
        saved = self.site.store.get(session_key(request.context))
        if saved is None:
            raise PolicyRefusal("no such session was begun here, or it is over")
        begun = Begun.decode(saved)
        # after a start in the same message, its facts are kept: seconds, an update sent again
        if self.own is None:
            self._take_part(begun.arrays)
        assert self.own is not None
        runtime = self._runtime(self.own, begun.session)
        out: list[Frame] = []
        for data in frames:
            out.extend(runtime.handle(Frame.from_wire(data)))
        return out

    def _runtime(self, own: RoundParty, session: Session) -> Runtime[IntVector]:
        resend, protocol = own.policy.allow_resend, own.stack.secure_sum
        return Runtime(protocol, session, self.site.store, allow_resend=resend)

    def _keep_head(self, header: Header) -> None:
        """Keep the record's last head, so that a record that is cut short later can be found out.

        Raises ProtocolViolation for one of another federation or roster, BadSignature.
        """
        if not header.head:
            return
        roster, origin = self.site.roster, header.terms.origin
        if roster is not None and (origin.federation, origin.serial) != (roster.federation, roster.serial):
            raise refuse(
                f"expected a head of {roster.federation!r}, serial {roster.serial}, got one of "
                f"{origin.federation!r}, serial {origin.serial}"
            )
        if self.site.server_key is not None:
            verify(self.site.server_key, HEAD_PURPOSE, bytes.fromhex(header.head), header.head_signature)
        self.site.store.put(f"flower/head/{origin.federation}", header.head.encode())
        if (folder := self.site.folder) is not None:
            line = header.head.encode() + b"\n"
            write_atomic(folder / KEPT_HEAD, line)
            kept = (folder / KEPT_HEADS).read_bytes() if (folder / KEPT_HEADS).exists() else b""
            if not kept.endswith(line):
                write_atomic(folder / KEPT_HEADS, kept + line)


def failed(error: Exception, log: Callable[..., None]) -> Misuse:
    """Return what may be said of a failure: its text can quote the data, so it goes to this node's own log."""
    log(ERROR, "the app failed", exc_info=error)
    return Misuse(f"the app failed: {type(error).__name__}; its own log says why")


def told(error: Exception, log: Callable[..., None]) -> str:
    """Return what a node tells others of an error: the text of an error of this project, and of any other its type
    alone. Notes go to the node's own log.
    """
    for note in getattr(error, "__notes__", ()):
        log(ERROR, "%s", note)
    known = error if isinstance(error, SecAggError) else failed(error, log)
    return f"{type(known).__name__}: {known}"


def _helper(own: RoundParty, session: Session, party: Party) -> Start:
    protocol, policy = own.stack.secure_sum, own.policy
    return lambda memory: protocol.helper(session, party, random=SystemRandom(), policy=policy, memory=memory)


def _header(request: Request) -> Header:
    if request.header is None:
        raise WireError("expected a header with the first request of a round")
    return request.header
