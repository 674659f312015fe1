"""Set-up: it has its input and fresh keys, and waits to be asked for the public ones."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from protocols.identity import Identity
from protocols.randomness import SecureRandom
from protocols.session import Session
from secagg.client.base import ClientState
from secagg.client.joining import Joining
from secagg.client.keys import make_keys
from secagg.reuse.client.establishing import Establishing


@dataclass(frozen=True, eq=False)
class Enrolling(Joining):
    """Waits to be asked for its keys."""

    TAG: ClassVar[int | None] = 48

    def joined(self) -> ClientState:
        return Establishing(*self.after("advertisement", "part"))


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
