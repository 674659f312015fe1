"""First state: the client has its input and fresh keys, and waits to be asked for the public ones.

What does not belong here: any peer's key. All keys are made for this session and go with it, but for the identity that
signs in the malicious model.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from protocols.codec import Record
from protocols.identity import Identity
from protocols.kernel import Message, Step
from protocols.randomness import SecureRandom
from protocols.session import Session
from secagg.client.base import ClientState
from secagg.client.revealing import Revealing
from secagg.client.sharing import Sharing
from secagg.client.tries import Tries
from secagg.commitments import CERTIFY, certified_bytes, part_commitment, signer
from secagg.key_agreement import generate, public_key
from secagg.messages import ADVERTISE, Advertisement, Begin
from secagg.rules import rules_of


@dataclass(frozen=True)
class Keys(Record):
    """A client's secrets of one session: X25519 keys for sealing and for masks, the Ed25519 key that signs (of the
    session, or the roster's), its part of the graph's seed.
    """

    seal: bytes = field(repr=False)
    mask: bytes = field(repr=False)
    sign: bytes = field(repr=False)
    part: bytes = field(repr=False)
    advertisement: bytes


def make_keys(session: Session, index: int, identity: Identity | None, random: SecureRandom) -> Keys:
    """Return fresh keys and their advertisement, certified by the client's identity where the session asks
    for that.
    """
    rules, context = rules_of(session), session.context
    seal, mask, sign, part = generate(random), generate(random), random.bytes(32), random.bytes(32)
    public = public_key(seal) + public_key(mask)
    if rules.keyed:
        public += signer(sign).public
    if rules.committed:
        public += part_commitment(context, index, part)
    if rules.certified and identity is not None:
        sign = identity.private_bytes()
        public += identity.sign(CERTIFY, certified_bytes(context, index, public))
    return Keys(seal, mask, sign, part, public)


@dataclass(frozen=True, eq=False)
class Joining(ClientState):
    """Waits to be asked for its keys."""

    TAG: ClassVar[int | None] = 16
    STAGE: ClassVar[str] = ADVERTISE

    update: bytes
    vector: NDArray[np.int64] = field(repr=False)
    keys: Keys = field(repr=False)

    def receive(self, request: Message, random: SecureRandom) -> Step:
        self.take(Begin, request)
        return Step(self.joined(), self.answer(Advertisement(self.keys.advertisement)))

    def joined(self) -> ClientState:
        """The state after the keys have left."""
        held, k = (self.session, self.index, self.update, self.vector), self.keys
        if self.rules.committed:
            return Revealing(*held, k.seal, k.mask, k.sign, k.part)
        return Sharing(*held, k.seal, k.mask, k.sign, None)


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
