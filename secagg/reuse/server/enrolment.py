"""Set-up: the server collects public keys, and goes on with the first round. In later rounds it starts
from what it keeps.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from protocols.errors import Misuse, TooFewSurvivors
from protocols.kernel import Step
from protocols.randomness import SecureRandom
from protocols.session import Session
from secagg.messages import ADVERTISE, INPUT, Begin, indices, pack_bits
from secagg.reuse.memory import FIRST_PATIENCE, ServerMemory, Setup, recalled
from secagg.reuse.messages import Proceed
from secagg.reuse.places import Places
from secagg.reuse.server.collecting import Collecting
from secagg.rules import rules_of
from secagg.server.advertising import Advertising


@dataclass(frozen=True, eq=False)
class Enrolment(Advertising):
    """patience: of the set-up that is made (`ServerMemory`)."""

    TAG: ClassVar[int | None] = 52

    patience: int

    def close(self, random: SecureRandom) -> Step:
        self.enough_left(self.rules.seed)
        session, places = self.session, Places(self.rules, self.keys)
        if len(places.holders(-1)) <= self.rules.threshold:
            raise TooFewSurvivors(f"expected more share holders than {self.rules.threshold} to enrol")
        memory = ServerMemory(Setup.of(session), session.round, self.keys, indices(()), self.patience)
        enrolled, asks = pack_bits(self.keys, session.clients), []
        for i in sorted(self.keys):
            known = places.known(i)
            body = Proceed(enrolled, indices(known), b"".join(self.keys[j] for j in known))
            asks.append(self.request(INPUT, i, body))
        return Step(_collecting(session, memory), tuple(asks), memory=memory.encode())


def start(session: Session, memory: bytes | None) -> Step:
    """Return the server's first state: of a set-up, or of a round that builds on one. Raises Misuse if it
    keeps no such set-up.
    """
    kept = recalled(memory)
    if not rules_of(session).parameters.epoch:
        state = Enrolment(session, {}, kept.next_patience(session) if kept else FIRST_PATIENCE)
        return Step(state, tuple(state.request(ADVERTISE, i, Begin()) for i in range(session.clients)))
    if kept is None or kept.setup != Setup.of(session):
        raise Misuse(
            "the session builds on a set-up that this server does not keep: make a session without it"
        )
    if session.round <= kept.last_round:
        raise Misuse(f"round {session.round} was begun already, the last one is {kept.last_round}")
    kept = replace(kept, last_round=session.round)
    collecting, nobody = _collecting(session, kept), Proceed(b"", indices(()), b"")
    asks = tuple(collecting.request(INPUT, i, nobody) for i in sorted(kept.keys))
    return Step(collecting, asks, memory=kept.encode())


def _collecting(session: Session, memory: ServerMemory) -> Collecting:
    return Collecting(session, memory, rules_of(session).ring.zeros(session.dimension), {})
