"""Later round: it has its input and the pair keys of the set-up, and waits to be asked."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from protocols.errors import PolicyRefusal, WireError
from protocols.identity import Identity
from protocols.kernel import Message, Step
from protocols.randomness import SecureRandom
from protocols.session import Session
from secagg.client.base import ClientState, refuse
from secagg.messages import INPUT
from secagg.reuse.client.depositing import deposit
from secagg.reuse.memory import ClientMemory
from secagg.reuse.messages import Proceed


@dataclass(frozen=True, eq=False)
class Resuming(ClientState):
    """Waits to be asked for its masked vector. sign: the key that signs."""

    TAG: ClassVar[int | None] = 50
    STAGE: ClassVar[str] = INPUT

    update: bytes
    vector: NDArray[np.int64] = field(repr=False)
    memory: ClientMemory = field(repr=False)
    sign: bytes = field(repr=False)

    def receive(self, request: Message, random: SecureRandom) -> Step:
        asked = self.take(Proceed, request)
        if asked.enrolled or len(asked.clients):
            raise refuse("new keys in a round that builds on a set-up")
        return deposit(self, self.update, self.vector, self.memory, self.sign, random)


def resume(
    session: Session,
    index: int,
    vector: NDArray[np.int64],
    update: bytes,
    memory: bytes | None,
    identity: Identity | None,
) -> Step:
    """Return a client's first step in a later round: it keeps no chain of the rounds before, so that an earlier round,
    begun afterwards, cannot bring those chains back. Raises PolicyRefusal if it has no keys for this round.
    """
    if memory is None:
        raise PolicyRefusal("setup: this client took no part in the set-up; it joins with the next one")
    try:
        kept = ClientMemory.decode(memory)
    except WireError as error:
        raise PolicyRefusal(f"setup: what this client kept is not readable: {error}") from None
    sign = identity.private_bytes() if identity is not None else kept.sign
    moved = kept.at(session)
    return Step(Resuming(session, index, update, vector, moved, sign), memory=moved.encode())
