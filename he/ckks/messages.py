"""What the parties of a CKKS sum say to each other. What does not belong here: what they do with it.

Boxes are sealed to whom they are for (`he.sealing`); the server that relays them cannot open them.
"""

import hashlib
from dataclasses import dataclass, field

from he.ckks.ciphertexts import Sum, Upload
from he.ckks.parameters import CKKSParameters
from protocols.codec import Record
from protocols.errors import Misuse

JOIN, KEY, INPUT, AGREE, OPEN = "join", "key", "input", "agree", "open"
HOLDER = "key-holder"
X25519_BYTES = 32
JOIN_PURPOSE, HOLDER_PURPOSE = "ckks join", "ckks holder"


@dataclass(frozen=True)
class Settings(Record):
    """A session's public parameters: who holds the key, how few contributions are opened, and the ring.

    roster: SHA-256 of the roster whose keys sign what the parties send each other; empty if nobody signs.
    recipients: clients that are given the opened sum besides the server.
    """

    arrangement: str
    holder: str
    roster: bytes
    least: int
    ckks: CKKSParameters
    recipients: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ask(Record):
    """Server to client: answer this stage."""


@dataclass(frozen=True)
class Join(Record):
    """Client to holder: a public key (X25519, 32 bytes) for this session's boxes; its signature, if parties
    sign.
    """

    key: bytes
    signature: bytes

    def __post_init__(self) -> None:
        if len(self.key) != X25519_BYTES:
            raise Misuse(f"expected a public key of {X25519_BYTES} bytes, got {len(self.key)}")

    @staticmethod
    def signed(session: bytes, index: int, key: bytes) -> bytes:
        """What a client signs: its key, for one session and place."""
        return session + index.to_bytes(4, "big") + key


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
        if len(self.key) != X25519_BYTES:
            raise Misuse(f"expected a public key of {X25519_BYTES} bytes, got {len(self.key)}")

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.context).digest()

    def signed(self, session: bytes) -> bytes:
        """What the holder signs: context and key, for one session."""
        return session + self.digest + self.key


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


@dataclass(frozen=True)
class Input(Record):
    """Client to server: the ciphertexts, and the check value sealed to whoever opens the sum."""

    upload: Upload
    box: bytes


@dataclass(frozen=True)
class Survivors(Record):
    """Server to clients that share the key: who will be in the sum."""

    clients: tuple[int, ...]


@dataclass(frozen=True)
class Agreed(Record):
    """Client to clients that share the key: the one set of survivors that it agreed to, authenticated."""

    mac: bytes


@dataclass(frozen=True)
class ToOpen(Record):
    """Server to opener: a sum, the boxes of the clients in it and, where clients open, who agreed to these
    clients.
    """

    total: Sum
    boxes: dict[int, bytes]
    agreed: dict[int, bytes]


@dataclass(frozen=True)
class Opened(Record):
    """Opener to server: exact integers, reduced modulo M where the group is Z_M, packed; or none and the
    reason.

    A refusal names no value: it reveals one bit, once per session and key. boxes: the sum again, sealed to each
    client that the configuration names and that is in the sum.
    """

    total: bytes = field(repr=False)
    refusal: str = ""
    boxes: dict[int, bytes] = field(default_factory=dict)
