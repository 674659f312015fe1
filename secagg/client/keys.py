"""What a client brings to a session: its vector, and the keys that it makes for it. What does not belong here: any
peer's key.

All keys are of this session and go with it, but for the identity that signs in the malicious model.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from protocols.codec import Record
from protocols.identity import Identity
from protocols.key_agreement import PairKeys, generate, public_key
from protocols.randomness import SecureRandom
from protocols.session import Session
from secagg.client.base import ClientState
from secagg.commitments import CERTIFY, certified_bytes, part_commitment, signer
from secagg.session_rules import rules_of


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
    """Return fresh keys and their advertisement, certified by the client's identity where the session asks for that."""
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
class Bearing(ClientState):
    """Base of the states before the masked vector leaves. update: names what the vector was made from."""

    update: bytes
    vector: NDArray[np.int64] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Holding(Bearing):
    """Base of those with fresh keys."""

    keys: Keys = field(repr=False)

    def after(self, *spent: str) -> tuple[Session, int, bytes, NDArray[np.int64], Keys]:
        """What the next such state starts with: everything but these of the keys."""
        keys = replace(self.keys, **dict.fromkeys(spent, b""))
        return self.session, self.index, self.update, self.vector, keys

    def pair_keys(self, private: bytes, theirs: Mapping[int, bytes], purpose: str) -> dict[int, bytes]:
        """The keys that this client shares with others for a purpose: of its private key and their public ones."""
        own, names = PairKeys(private, self.name, self.session.context), self.session.roster
        return {j: own.agree(names[j], key, purpose) for j, key in theirs.items()}
