"""How a key holder's keys of a session reach the clients. What does not belong here: what parties do with them, the
messages that every homomorphic sum has (`he.roles.messages`).

Boxes are sealed to whom they are for (`he.sealing`); the server that relays them cannot open them.
"""

import hashlib
from dataclasses import dataclass, replace

from he.sealing import expect_key
from protocols.codec import Record
from protocols.identity import Identity, verify

JOIN, KEY = "join", "key"
JOIN_PURPOSE, HOLDER_PURPOSE = "ckks join", "ckks holder"


@dataclass(frozen=True)
class Join(Record):
    """Client to holder: a public key (X25519, 32 bytes) for this session's boxes; its signature, if parties
    sign.
    """

    key: bytes
    signature: bytes

    def __post_init__(self) -> None:
        expect_key(self.key)

    @classmethod
    def of(cls, key: bytes, session: bytes, index: int, identity: Identity | None) -> "Join":
        """Return what client `index` joins with, signed if it has an identity."""
        signature = identity.sign(JOIN_PURPOSE, cls.signed(session, index, key)) if identity else b""
        return cls(key, signature)

    @staticmethod
    def signed(session: bytes, index: int, key: bytes) -> bytes:
        """What a client signs: its key, for one session and place."""
        return session + index.to_bytes(4, "big") + key

    def verify(self, signer: bytes, session: bytes, index: int) -> None:
        """Raises BadSignature unless `signer` (Ed25519, 32 bytes) signed this for the session and place."""
        verify(signer, JOIN_PURPOSE, self.signed(session, index, self.key), self.signature)


@dataclass(frozen=True)
class Joined(Record):
    """Server to holder: who joined, with which key."""

    clients: dict[int, Join]


@dataclass(frozen=True)
class Published(Record):
    """What the holder makes for one session: its CKKS context (no secret in it), its X25519 key, its
    signature.
    """

    context: bytes
    key: bytes
    signature: bytes

    def __post_init__(self) -> None:
        expect_key(self.key)

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.context).digest()

    def signed(self, session: bytes) -> bytes:
        """What the holder signs: context and key, for one session."""
        return session + self.digest + self.key

    def by(self, session: bytes, identity: Identity | None) -> "Published":
        """Return this, signed if the holder has an identity."""
        signature = identity.sign(HOLDER_PURPOSE, self.signed(session)) if identity else b""
        return replace(self, signature=signature)

    def verify(self, signer: bytes, session: bytes) -> None:
        """Raises BadSignature unless `signer` (Ed25519, 32 bytes) signed this for the session."""
        verify(signer, HOLDER_PURPOSE, self.signed(session), self.signature)


@dataclass(frozen=True)
class HolderKeys(Record):
    """Holder to server: what it publishes, and for every client that joined a box.

    A client's box holds the session's check key and the digest of the context.
    """

    published: Published
    boxes: dict[int, bytes]


@dataclass(frozen=True)
class ClientKeys(Record):
    """Server to client: what the holder published, and this client's box."""

    published: Published
    box: bytes
