"""Client, set-up: it has its input and fresh keys, and waits to be asked for the public ones."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from protocols.identity import Identity
from protocols.kernel import Message, Step
from protocols.randomness import SecureRandom
from protocols.session import Session
from secagg.client.base import ClientState
from secagg.client.joining import Keys, make_keys
from secagg.messages import ADVERTISE, Advertisement, Begin
from secagg.reuse.establishing import Establishing


@dataclass(frozen=True, eq=False)
class Enrolling(ClientState):
    """Waits to be asked for its keys."""

    TAG: ClassVar[int | None] = 48
    STAGE: ClassVar[str] = ADVERTISE

    update: bytes
    vector: NDArray[np.int64] = field(repr=False)
    keys: Keys = field(repr=False)

    def receive(self, request: Message, random: SecureRandom) -> Step:
        self.take(Begin, request)
        k = self.keys
        state = Establishing(self.session, self.index, self.update, self.vector, k.seal, k.mask, k.sign)
        return Step(state, self.answer(Advertisement(k.advertisement)))


def enrol(
    session: Session,
    index: int,
    vector: NDArray[np.int64],
    update: bytes,
    identity: Identity | None,
    random: SecureRandom,
) -> Enrolling:
    """Return the first state of a client in a set-up."""
    return Enrolling(session, index, update, vector, make_keys(session, index, identity, random))
