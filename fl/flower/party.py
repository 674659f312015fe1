"""A node's part in a round: from a request to an answer, on its own store, identity and policy.

What belongs here: checks in the order in which they must come, and the session's steps. What does not: Flower's calls
(`mod`), files (`site`), training (`work`), protocols.
"""

import time
from dataclasses import replace

from flwr.app import Message, MessageType

from fl.flower.messages import (
    CLOSE,
    HELLO,
    START,
    VERSION,
    Answer,
    Header,
    Request,
    pack,
    strip,
    unpack_request,
)
from fl.flower.node_ledger import node_events
from fl.flower.site import Site, session_key
from fl.flower.work import NodeWork
from fl.round import Broadcast
from fl.round.contribution import encoded
from protocols.errors import PolicyRefusal, ProtocolViolation, SpentUpdate, WireError
from protocols.identity import verify
from protocols.kernel import Message as Frame
from protocols.kernel import Party, Step
from protocols.policy import Policy
from protocols.randomness import SystemRandom
from protocols.record import HEAD_PURPOSE
from protocols.runtime import Runtime, recall
from protocols.session import Session
from protocols.stack import Stack
from protocols.store import write_atomic

KEPT_HEAD, KEPT_HEADS = "kept-head.txt", "kept-heads.txt"


class NodeParty:
    """One node while it answers one message. Raises PolicyRefusal, PeerError, StoreError or Misuse instead of
    answering. policy: the app's own, where the node's files say nothing.
    """

    def __init__(self, site: Site, stack: Stack, work: NodeWork, policy: Policy | None = None) -> None:
        self.site = site
        self.stack = stack
        self.work = work
        self.protocol = stack.secure_sum
        self.policy = site.policy(stack.secure_sum, policy)
        self.train_seconds = 0.0
        self.sent_again = False

    def answer(self, message: Message) -> Message:
        """Return the protected reply to a request."""
        began = time.perf_counter()
        if (kind := message.metadata.message_type) != MessageType.TRAIN:  # no signature covers it
            raise ProtocolViolation(
                f"expected a message of type {MessageType.TRAIN!r}, got {kind!r}", "server"
            )
        request, frames = unpack_request(message.content, self.site.server_key)
        out: list[Frame] = []
        if request.kind != HELLO:
            if request.recipient != self.site.name:
                raise ProtocolViolation(
                    f"a request for {request.recipient!r} came to {self.site.name!r}", "server"
                )
            if request.kind == CLOSE:
                self._keep_head(_header(request))
            else:
                if request.kind == START:
                    self._start(request, message)
                out = self._step(request, frames)
        seconds = time.perf_counter() - began
        answer = Answer(
            version=VERSION,
            context=request.context,
            stage=request.stage,
            name=self.site.name,
            seconds=seconds,
            train_seconds=self.train_seconds,
            sent_again=self.sent_again,
            frames=len(out),
        )
        return Message(pack(answer, [f.to_wire() for f in out], self.site.identity), reply_to=message)

    def _start(self, request: Request, message: Message) -> None:
        """Check everything that can be checked, then train, then begin the session."""
        header = _header(request)
        claimed = Session.decode(header.session)
        site = self.site
        site.require_role(request.role)
        site.require_roster(header.federation, header.serial, claimed.roster)
        self._check_layers()
        self._keep_head(header)
        if request.role == "client" and claimed.roster[request.index : request.index + 1] != (site.name,):
            raise ProtocolViolation(f"index {request.index} of the session is not {site.name!r}", "server")
        broadcast, session = self._open(header, claimed, message)
        if session.context != request.context:
            raise ProtocolViolation("the request is of another session than its header", "server")
        self.policy.check(self.protocol.demands(session))  # before training: it may take hours
        site.enter_round(header.federation, session.round, session.context, session.encode())
        if request.role == "client":
            step = self._contribute(request, header, broadcast, session)
        else:
            step = self.protocol.helper(
                session,
                Party(request.role, request.index),
                random=SystemRandom(),
                policy=self.policy,
                memory=recall(site.store, self.protocol),
            )
        self._runtime(session).begin(step, header.federation)

    def _contribute(self, request: Request, header: Header, broadcast: Broadcast, session: Session) -> Step:
        """Train, pay for the round, and begin the client's part of the session."""
        site, limit = self.site, self.policy.max_epsilon
        events = node_events(broadcast.plan, site.name)
        site.ledger.require(events, limit)
        own = broadcast.own(site.name, site.store)
        began = time.perf_counter()
        vector, update = encoded(broadcast, self.work(broadcast, own), own)
        self.train_seconds = time.perf_counter() - began
        self.sent_again = site.store.marked(f"spent/{update.hex()}")
        if self.sent_again and not self.policy.allow_resend:  # found out now, it costs the others nothing
            raise SpentUpdate("this update left this client once; it is not sent a second time")
        again = self.sent_again
        site.ledger.charge(events, limit, run=header.federation, round=broadcast.number, again=again)
        return self.protocol.client(
            session,
            request.index,
            vector,
            random=SystemRandom(),
            policy=self.policy,
            update=update,
            memory=recall(site.store, self.protocol),
        )

    def _check_layers(self) -> None:
        allowed = self.policy.allow_layers
        if allowed is None:
            return
        for name in (*(layer.name for layer in self.stack.layers), self.protocol.name):
            if name not in allowed:
                raise PolicyRefusal(f"allow_layers: this node does not accept {name!r}, it accepts {allowed}")

    def _open(self, header: Header, claimed: Session, message: Message) -> tuple[Broadcast, Session]:
        """Compute the round from what this node was shown; the server's own digest counts for nothing."""
        broadcast = self.work.open(header, claimed, strip(message.content))
        plan, run = broadcast.plan, broadcast.plan.facts.run
        if run.dimension != broadcast.reference.schema.dimension or run.cohort < claimed.clients:
            raise ProtocolViolation(
                "the planned run does not fit the model or the cohort that was sent", "server"
            )
        own = replace(claimed, model=broadcast.digest)
        if own.model != claimed.model:
            raise ProtocolViolation(
                "the model, configuration or layers that this node was shown are not those of the session",
                "server",
            )
        if (own.dimension, own.bound, int(own.modulus)) != (plan.dimension, plan.bound, plan.modulus):
            raise ProtocolViolation(
                "the session's dimension, bound or modulus is not what the layers give", "server"
            )
        if own.min_survivors < plan.min_survivors:
            raise PolicyRefusal(
                f"min_survivors: the layers demand {plan.min_survivors}, the session offers {own.min_survivors}"
            )
        return broadcast, own

    def _step(self, request: Request, frames: list[bytes]) -> list[Frame]:
        """Hand the frames to the session's state, each once; what is answered was saved before."""
        saved = self.site.store.get(session_key(request.context))
        if saved is None:
            raise PolicyRefusal("no such session was begun here, or it is over")
        runtime = self._runtime(Session.decode(saved))
        out: list[Frame] = []
        for data in frames:
            out.extend(runtime.handle(Frame.from_wire(data)))
        return out

    def _runtime(self, session: Session) -> Runtime:
        return Runtime(self.protocol, session, self.site.store, allow_resend=self.policy.allow_resend)

    def _keep_head(self, header: Header) -> None:
        """Keep the record's last head, so that a record that is cut short later can be found out.

        Raises ProtocolViolation for one of another federation or roster, BadSignature.
        """
        if not header.head:
            return
        roster = self.site.roster
        if roster is not None and (header.federation, header.serial) != (roster.federation, roster.serial):
            raise ProtocolViolation(
                f"expected a head of {roster.federation!r}, serial {roster.serial}, got one of "
                f"{header.federation!r}, serial {header.serial}",
                "server",
            )
        if self.site.server_key is not None:
            verify(self.site.server_key, HEAD_PURPOSE, bytes.fromhex(header.head), header.head_signature)
        self.site.store.put(f"flower/head/{header.federation}", header.head.encode())
        if (folder := self.site.folder) is not None:
            line = header.head.encode() + b"\n"
            write_atomic(folder / KEPT_HEAD, line)
            kept = (folder / KEPT_HEADS).read_bytes() if (folder / KEPT_HEADS).exists() else b""
            if not kept.endswith(line):
                write_atomic(folder / KEPT_HEADS, kept + line)


def _header(request: Request) -> Header:
    if request.header is None:
        raise WireError("expected a header with the first request of a round")
    return request.header
