"""First state: the client has its input and fresh keys, and waits to be asked for the public ones."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from protocols.identity import Identity
from protocols.kernel import Message, Step
from protocols.randomness import SecureRandom
from protocols.session import Session
from secagg.client.base import ClientState
from secagg.client.keys import Holding, make_keys
from secagg.client.revealing import Revealing
from secagg.client.sharing import Sharing
from secagg.client.tries import Tries
from secagg.messages import ADVERTISE, Advertisement, Begin
from secagg.rules import rules_of


@dataclass(frozen=True, eq=False)
class Joining(Holding):
    """Waits to be asked for its keys."""

    TAG: ClassVar[int | None] = 16
    STAGE: ClassVar[str] = ADVERTISE

    def receive(self, request: Message, random: SecureRandom) -> Step:
        self.take(Begin, request)
        return Step(self.joined(), self.answer(Advertisement(self.keys.advertisement)))

    def joined(self) -> ClientState:
        """The state after the keys have left."""
        if self.rules.committed:
            return Revealing(*self.after("advertisement"))
        return Sharing(*self.after("advertisement", "part"), None)


def join(
    session: Session,
    index: int,
    vector: NDArray[np.int64],
    update: bytes,
    identity: Identity | None,
    random: SecureRandom,
    memory: bytes | None = None,
) -> Step:
    """Return a client's first step. memory: what it kept of earlier sessions. Raises PolicyRefusal if the server drew
    too many graphs already.
    """
    tries = Tries.kept(memory).next().encode() if rules_of(session).committed else None
    state = Joining(session, index, update, vector, make_keys(session, index, identity, random))
    return Step(state, memory=tries)
