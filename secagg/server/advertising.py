"""First state: the server collects public keys. What does not belong here: the graph."""

import functools
from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

from protocols.kernel import Message, Step
from protocols.randomness import SecureRandom
from protocols.session import Session
from secagg.advertisement import admit, parse
from secagg.messages import ADVERTISE, REVEAL, Advertisement, Begin, Commitments, indices
from secagg.rules import rules_of
from secagg.server.base import ServerState
from secagg.server.revealing import Revealing
from secagg.server.sharing import Sharing, ask_to_share


@dataclass(frozen=True, eq=False)
class Advertising(ServerState):
    """keys: advertisements by client."""

    TAG: ClassVar[int | None] = 32
    STAGE: ClassVar[str] = ADVERTISE

    keys: dict[int, bytes]

    def asked(self) -> Collection[int]:
        return range(self.session.clients)

    def answered(self) -> Collection[int]:
        return self.keys

    @functools.cached_property
    def _public(self) -> set[bytes]:
        """All keys that were advertised: a faulty client's must not make its neighbours refuse theirs."""
        return {key for keys in self.keys.values() for key in (keys[:32], keys[32:64])}

    def receive(self, answer: Message, random: SecureRandom) -> Step:
        index, body = self.take(Advertisement, answer)
        keys = admit(self.rules, self.session.context, index, body.keys, self._public, str(answer.sender))
        self._public.update((keys.seal_key, keys.mask_key))
        self.keys[index] = body.keys
        return Step(self)

    def close(self, random: SecureRandom) -> Step:
        self.enough()
        if not self.rules.committed:
            return ask_to_share(Sharing(self.session, self.keys, b"", self.rules.seed, {}))
        present = sorted(self.keys)
        commitments = b"".join(parse(self.rules, self.keys[i], "").commitment for i in present)
        body = Commitments(indices(present), commitments)
        asks = tuple(self.request(REVEAL, i, body) for i in present)
        return Step(Revealing(self.session, self.keys, body, {}), asks)


def start(session: Session) -> Step:
    """Return the server's first state and the requests for keys."""
    rules_of(session)
    state = Advertising(session, {})
    return Step(state, tuple(state.request(ADVERTISE, i, Begin()) for i in range(session.clients)))
