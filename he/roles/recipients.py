"""How the total reaches the clients that a key holder's configuration names, sealed past the server that
carries it.

What does not belong here: opening a sum, agreeing on keys. Each named client that is in the sum has a key of its own
with the holder for the session; nobody else can make or read its box. The server is told the sum by the holder, never
by a box, and has no say in whom the boxes are for.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from he.roles.messages import HOLDER, TOTAL, Boxed, Received, TotalBox, decode, unpack_total
from he.roles.scheme import least_survivors
from he.sealing import seal, unseal
from protocols.errors import ProtocolViolation
from protocols.kernel import Message, Step, client
from protocols.protocol import Stage
from protocols.randomness import SecureRandom
from protocols.roles import Asked, Asking, requests
from protocols.session import Session
from protocols.summation import IntVector, Total

DELIVER = Stage(TOTAL)
PURPOSE = "total to client"  # what the boxes' keys are derived for


def seal_for(
    session: Session, keys: Mapping[int, bytes], total: bytes, survivors: Iterable[int], random: SecureRandom
) -> dict[int, bytes]:
    """Holder: return a box for each client in `keys` (32 bytes each, of this session and purpose). total: packed."""
    plain = Boxed(total, tuple(sorted(survivors))).encode()
    return {i: seal(key, plain, session.context, HOLDER, random) for i, key in keys.items()}


def expect_boxes(boxes: Mapping[int, bytes], asked: Collection[int], who: str) -> None:
    """Server: raises ProtocolViolation naming the holder unless there is a box for each named client, and no other."""
    if set(boxes) != set(asked):
        raise ProtocolViolation(
            f"expected boxes for the clients {sorted(asked)} that the configuration names, got {sorted(boxes)}",
            who,
        )


@dataclass(frozen=True)
class AwaitsTotal(Asked):
    """Named client, last state: its input has left, it waits for the sum and ends with it.

    key: of its box.
    """

    TAG = 40
    STAGE = TOTAL

    session: Session
    index: int
    key: bytes = field(repr=False)

    def receive(self, request: Message, random: SecureRandom) -> Step:
        box, context = self.take(TotalBox, request).box, self.session.context
        given = decode(Boxed, unseal(self.key, box, context, HOLDER), HOLDER)
        total = unpack_total(given.total, self.session, HOLDER)
        self._expect_survivors(given.survivors)
        send = self.answer(Received())
        return Step(Total(total, given.survivors), send, marks=(f"received/{context.hex()}",))

    def _expect_survivors(self, survivors: tuple[int, ...]) -> None:
        cohort = range(self.session.clients)
        if list(survivors) != sorted(set(survivors)) or any(i not in cohort for i in survivors):
            raise ProtocolViolation(f"expected survivors of the roster, ascending, got {survivors}", HOLDER)
        least = least_survivors(self.session)
        if self.index not in survivors or len(survivors) < least:
            raise ProtocolViolation(
                f"expected a sum over this client and others, {least} at least, got {len(survivors)}", HOLDER
            )


@dataclass(frozen=True, eq=False)
class Delivering(Asking):
    """Server, last state where clients are named: has the sum, waits until they have their boxes; none must.

    boxes: by client. answers: who acknowledged.
    """

    TAG = 41
    STAGE = TOTAL

    session: Session
    total: NDArray[np.int64] = field(repr=False)
    survivors: tuple[int, ...]
    blamed: tuple[str, ...]
    boxes: dict[int, bytes]
    answers: dict[int, bool]

    def asked(self) -> Collection[int]:
        return sorted(self.boxes)

    def receive(self, message: Message, random: SecureRandom) -> Step:
        self.answers[self.take(Received, message)[0]] = True
        return Step(self)

    def close(self, random: SecureRandom) -> Step:
        return Step(Total(self.total, self.survivors, self.blamed))


def deliver(
    session: Session,
    total: IntVector,
    survivors: tuple[int, ...],
    blamed: tuple[str, ...],
    boxes: Mapping[int, bytes],
) -> Step:
    """Server: return the last step but one where there are boxes to carry, else the last."""
    if not boxes:
        return Step(Total(total, survivors, blamed))
    asks = requests(session, TOTAL, {client(i): TotalBox(box) for i, box in sorted(boxes.items())})
    return Step(Delivering(session, total, survivors, blamed, dict(boxes), {}), asks)
