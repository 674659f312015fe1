"""Server, set-up: it collects public keys, and goes on with the first round. In later rounds it starts
from what it keeps.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import ClassVar

from protocols.errors import Misuse
from protocols.kernel import Message, Step
from protocols.randomness import SecureRandom
from protocols.session import Session
from secagg.advertisement import check_certificate, parse
from secagg.messages import ADVERTISE, INPUT, Advertisement, Begin, indices
from secagg.reuse.collecting import Collecting
from secagg.reuse.memory import FIRST_PATIENCE, ServerMemory, recalled, roster_digest
from secagg.reuse.messages import Proceed
from secagg.rules import rules_of
from secagg.server.base import ServerState


@dataclass(frozen=True, eq=False)
class Enrolment(ServerState):
    """keys: advertisements by client. patience: of the set-up that is made (`ServerMemory`)."""

    TAG: ClassVar[int | None] = 52
    STAGE: ClassVar[str] = ADVERTISE

    keys: dict[int, bytes]
    patience: int

    def asked(self) -> Collection[int]:
        return range(self.session.clients)

    def answered(self) -> Collection[int]:
        return self.keys

    def receive(self, answer: Message, random: SecureRandom) -> Step:
        index, body = self.take(Advertisement, answer)
        parse(self.rules, body.keys, str(answer.sender))
        check_certificate(self.rules, self.session.context, index, body.keys, str(answer.sender))
        self.keys[index] = body.keys
        return Step(self)

    def close(self, random: SecureRandom) -> Step:
        self.enough()
        rules, session = self.rules, self.session
        memory = ServerMemory(
            session.context,
            roster_digest(session),
            session.parameters,
            session.round,
            session.round,
            self.keys,
            indices(()),
            self.patience,
        )
        asks = []
        for i in sorted(self.keys):
            known = {*rules.neighbours(i, rules.seed), *rules.channels(i)}
            given = sorted(j for j in known if j in self.keys)
            body = Proceed(indices(given), b"".join(self.keys[j] for j in given))
            asks.append(self.request(INPUT, i, body))
        return Step(_collecting(session, memory), tuple(asks), memory=memory.encode())


def start(session: Session, memory: bytes | None) -> Step:
    """Return the server's first state: of a set-up, or of a round that builds on one. Raises Misuse if it
    keeps no such set-up.
    """
    epoch, kept = rules_of(session).parameters.epoch, recalled(memory)
    if not epoch:
        state = Enrolment(session, {}, kept.next_patience(session) if kept else FIRST_PATIENCE)
        return Step(state, tuple(state.request(ADVERTISE, i, Begin()) for i in range(session.clients)))
    if kept is None or kept.epoch != epoch or kept.roster != roster_digest(session):
        raise Misuse(
            "the session builds on a set-up that this server does not keep: make a session without it"
        )
    if session.round <= kept.last_round:
        raise Misuse(f"round {session.round} was begun already, the last one is {kept.last_round}")
    kept = replace(kept, last_round=session.round)
    collecting, nobody = _collecting(session, kept), Proceed(indices(()), b"")
    asks = tuple(collecting.request(INPUT, i, nobody) for i in sorted(kept.keys))
    return Step(collecting, asks, memory=kept.encode())


def _collecting(session: Session, memory: ServerMemory) -> Collecting:
    return Collecting(session, memory, rules_of(session).ring.zeros(session.dimension), {})
