"""First state: the server collects public keys. What does not belong here: the graph."""

import functools
from dataclasses import dataclass

from protocols.kernel import Message, Step
from protocols.randomness import SecureRandom
from protocols.roles import Ask
from protocols.session import Session
from secagg.advertisement import admit, parse
from secagg.memory import FIRST_PATIENCE, recalled
from secagg.messages import ADVERTISE, REVEAL, Advertisement, Commitments, indices
from secagg.server.base import ServerState
from secagg.server.enrolling import enrolled, resumed
from secagg.server.revealing import ServerRevealing
from secagg.server.sharing import ServerSharing, ask_to_share
from secagg.session_rules import rules_of


@dataclass(frozen=True, eq=False)
class Advertising(ServerState):
    """answers: advertisements by client. patience: of the set-up that is made (`ServerMemory`), if keys are reused."""

    TAG = 32
    STAGE = ADVERTISE

    answers: dict[int, bytes]
    patience: int

    @functools.cached_property
    def _public(self) -> set[bytes]:
        """All keys that were advertised: a faulty client's must not make its neighbours refuse theirs."""
        return {key for keys in self.answers.values() for key in (keys[:32], keys[32:64])}

    def receive(self, answer: Message, random: SecureRandom) -> Step:
        index, body = self.take(Advertisement, answer)
        keys = admit(self.rules, self.session.context, index, body.keys, self._public, str(answer.sender))
        self._public.update((keys.seal_key, keys.mask_key))
        self.answers[index] = body.keys
        return Step(self)

    def close(self, random: SecureRandom) -> Step:
        self.enough()
        if self.rules.parameters.reuse:
            self.enough_left(self.rules.seed)
            return enrolled(self.session, self.answers, self.patience)
        if not self.rules.committed:
            return ask_to_share(ServerSharing(self.session, self.answers, b"", self.rules.seed, {}))
        present = sorted(self.answers)
        commitments = b"".join(parse(self.rules, self.answers[i], "").commitment for i in present)
        body = Commitments(indices(present), commitments)
        asks = tuple(self.request(REVEAL, i, body) for i in present)
        return Step(ServerRevealing(self.session, self.answers, body, {}), asks)


def start(session: Session, memory: bytes | None = None) -> Step:
    """Return the server's first state and its requests. memory: what it kept of a set-up. Raises Misuse if the session
    builds on one that it does not keep.
    """
    p = rules_of(session).parameters
    kept = recalled(memory) if p.reuse else None
    if p.epoch:
        return resumed(session, kept)
    patience = FIRST_PATIENCE if kept is None else kept.next_patience(session)
    state = Advertising(session, {}, patience)
    return Step(state, tuple(state.request(ADVERTISE, i, Ask()) for i in range(session.clients)))
