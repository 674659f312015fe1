"""What clients and server say to each other, stage by stage. What does not belong here: when it may be
said, and its meaning.

Lists of clients are uint32 vectors, strictly ascending; items of one size that belong to them lie end to end
in one byte string, in the same order. Everything a relay may not read is in `boxes`.
"""

from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from protocols.agreement import Certificate
from protocols.codec import Reader, Record
from protocols.errors import Misuse, WireError
from protocols.kernel import Message

Indices = NDArray[np.uint32]
R = TypeVar("R", bound=Record)

ADVERTISE, REVEAL, SHARE, INPUT, CONFIRM, UNMASK = (
    "advertise-keys",
    "fix-graph",
    "share-keys",
    "masked-input",
    "consistency",
    "unmask",
)
DIGEST_BYTES = 16
SIGNATURE_BYTES = 64


@dataclass(frozen=True)
class Begin(Record):
    """Server to client: advertise your keys."""


@dataclass(frozen=True)
class Advertisement(Record):
    """Client to server. `keys` is laid out by `advertisement.Layout`."""

    keys: bytes


@dataclass(frozen=True, eq=False)
class Commitments(Record):
    """Server to client: who advertised, and each one's commitment (32 bytes) to its part of the graph's
    randomness.
    """

    clients: Indices
    commitments: bytes

    def __post_init__(self) -> None:
        expect_ascending("clients", self.clients)
        expect_size("commitments", self.commitments, 32 * len(self.clients))


@dataclass(frozen=True)
class Reveal(Record):
    """Client to server: its part of the graph's randomness (32 bytes)."""

    part: bytes

    def __post_init__(self) -> None:
        expect_size("part", self.part, 32)


@dataclass(frozen=True, eq=False)
class Neighbourhood(Record):
    """Server to client: those neighbours that advertised and their advertisements; after commitments, all
    that was revealed; where signing keys are the session's, those of the voters who are no neighbours (32 bytes).
    """

    clients: Indices
    keys: bytes
    parts: bytes
    voters: Indices
    voter_keys: bytes

    def __post_init__(self) -> None:
        expect_ascending("clients", self.clients)
        expect_items("keys", self.keys, len(self.clients))
        if len(self.parts) % 32:
            raise Misuse(f"parts: expected items of 32 bytes, got {len(self.parts)}")
        expect_ascending("voters", self.voters)
        expect_size("voter_keys", self.voter_keys, 32 * len(self.voters))


@dataclass(frozen=True, eq=False)
class Dealing(Record):
    """Client to server: a sealed box and two digests of shares per holder, the digest of its self-mask
    seed, a signature.
    """

    holders: Indices
    boxes: bytes
    digests: bytes
    seed_digest: bytes
    signature: bytes

    def __post_init__(self) -> None:
        expect_ascending("holders", self.holders)
        expect_items("boxes", self.boxes, len(self.holders))
        expect_size("digests", self.digests, 2 * DIGEST_BYTES * len(self.holders))
        expect_size("seed_digest", self.seed_digest, 32)
        if self.signature:
            expect_size("signature", self.signature, SIGNATURE_BYTES)


@dataclass(frozen=True, eq=False)
class Delivery(Record):
    """Server to client: all clients that dealt shares (one bit each, `pack_bits`; add masks with the neighbours
    among them), and what each of those neighbours dealt to this client, in ascending order.
    """

    dealers: bytes
    boxes: bytes
    digests: bytes

    def __post_init__(self) -> None:
        if len(self.digests) % (2 * DIGEST_BYTES):
            raise Misuse(f"digests: expected items of {2 * DIGEST_BYTES} bytes, got {len(self.digests)}")
        expect_items("boxes", self.boxes, len(self.digests) // (2 * DIGEST_BYTES))


@dataclass(frozen=True, eq=False)
class Masked(Record):
    """Client to server: the packed masked vector, the dealers whose box did not open or did not match its
    digests, and its signature of the dealers that it masked with (empty in the semi-honest model).
    """

    vector: bytes = field(repr=False)
    complaints: Indices = field(default_factory=lambda: np.empty(0, np.uint32))
    signature: bytes = b""

    def __post_init__(self) -> None:
        expect_ascending("complaints", self.complaints)
        if self.signature:
            expect_size("signature", self.signature, SIGNATURE_BYTES)


@dataclass(frozen=True)
class Survivors(Record):
    """Server to voter: whose masked vector arrived, one bit per client of the roster (`pack_bits`). The answer is
    an `agreement.Vote`.
    """

    bits: bytes


@dataclass(frozen=True, eq=False)
class Unmask(Record):
    """Server to client: the survivors (`pack_bits`), the certificate of them, and the signed input of every
    surviving neighbour who is not in the certificate, in ascending order. Semi-honest: the survivors alone.
    """

    survivors: bytes
    certificate: Certificate | None
    inputs: bytes

    def __post_init__(self) -> None:
        if len(self.inputs) % SIGNATURE_BYTES:
            raise Misuse(f"inputs: expected items of {SIGNATURE_BYTES} bytes, got {len(self.inputs)}")


@dataclass(frozen=True, eq=False)
class Opened(Record):
    """Client to server: the shares (32 bytes each) of the self-mask seeds of `alive` and of the mask keys
    of `dropped`.
    """

    alive: Indices
    seed_shares: bytes = field(repr=False)
    dropped: Indices
    key_shares: bytes = field(repr=False)

    def __post_init__(self) -> None:
        for name in ("alive", "dropped"):
            expect_ascending(name, getattr(self, name))
        expect_size("seed_shares", self.seed_shares, 32 * len(self.alive))
        expect_size("key_shares", self.key_shares, 32 * len(self.dropped))


def read(kind: type[R], message: Message) -> R:
    """Return the body of a message. Raises WireError naming its sender."""
    try:
        return kind.decode(message.body)
    except WireError as error:
        raise WireError(str(error), str(message.sender)) from None


def masked_vector(message: Message) -> tuple[memoryview, Masked]:
    """Return the vector of a `Masked` body, and the body without it. The vector is not copied: it is by far the
    largest part of a session.

    Raises WireError naming the sender, as `read`.
    """
    try:
        reader = Reader(message.body)
        vector = reader.take(reader.count(1))
        return vector, Masked.decode(bytes(4) + bytes(reader.take(reader.left)))
    except WireError as error:
        raise WireError(str(error), str(message.sender)) from None


def indices(clients: Any) -> Indices:
    """Return an iterable of client indices as a uint32 vector."""
    return np.fromiter(clients, dtype=np.uint32)


def items(data: bytes, size: int) -> list[bytes]:
    """Return the items of `size` bytes that lie end to end in `data`."""
    return [data[at : at + size] for at in range(0, len(data), size)] if data else []


def pack_bits(clients: Any, size: int) -> bytes:
    """Return one bit per client of range(size), client 0 in the lowest bit of the first byte."""
    bits = np.zeros(size, np.uint8)
    bits[indices(clients)] = 1
    return np.packbits(bits, bitorder="little").tobytes()


def unpack_bits(data: bytes, size: int) -> set[int]:
    """Inverse of `pack_bits`. Raises WireError for another length or bits beyond `size`."""
    if len(data) != (size + 7) // 8:
        raise WireError(f"expected {(size + 7) // 8} bytes for {size} clients, got {len(data)}")
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    if bits[size:].any():
        raise WireError(f"bits beyond the {size} clients are set")
    return set(np.flatnonzero(bits).tolist())


def expect_ascending(name: str, clients: Indices) -> None:
    """Raises Misuse unless `clients` is a strictly ascending uint32 vector (so without duplicates)."""
    if clients.dtype != np.uint32 or clients.ndim != 1 or (clients[1:] <= clients[:-1]).any():
        raise Misuse(f"{name}: expected strictly ascending uint32 indices")


def expect_size(name: str, data: bytes, size: int) -> None:
    if len(data) != size:
        raise Misuse(f"{name}: expected {size} bytes, got {len(data)}")


def expect_items(name: str, data: bytes, count: int) -> None:
    """Raises Misuse unless `data` cuts evenly into `count` items."""
    if (len(data) % count if count else len(data)) or (count and not data):
        raise Misuse(f"{name}: expected {count} items of one size, got {len(data)} bytes")
