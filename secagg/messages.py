"""What clients and server say to each other, stage by stage. What does not belong here: when it may be said, and its
meaning.

Lists of clients are uint32 vectors, strictly ascending; items of one size that belong to them lie end to end in one
byte string, in the same order. Everything a relay may not read is in `boxes`. With fresh keys shares are dealt before
the masked vectors; with reused keys they come along with them, and are handed on with the request to open.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.agreement import Certificate
from protocols.codec import ByteReader, Record
from protocols.errors import Misuse, WireError
from protocols.kernel import Message
from protocols.roles import naming

Indices = NDArray[np.uint32]

STAGES = ("advertise-keys", "fix-graph", "share-keys", "masked-input", "consistency", "unmask")
ADVERTISE, REVEAL, SHARE, INPUT, CONFIRM, UNMASK = STAGES
DIGEST_BYTES = 16
SIGNATURE_BYTES = 64


@dataclass(frozen=True)
class Advertisement(Record):
    """Client to server. `keys` is laid out by `advertisement.Layout`."""

    keys: bytes


@dataclass(frozen=True, eq=False)
class Commitments(Record):
    """Server to client: who advertised, and each one's commitment (32 bytes) to its part of the graph's randomness."""

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
        expect_whole("parts", self.parts, 32)
        expect_ascending("voters", self.voters)
        expect_size("voter_keys", self.voter_keys, 32 * len(self.voters))


@dataclass(frozen=True, eq=False)
class Proceed(Record):
    """Server to client, where keys are reused: send your masked vector. In the round of a set-up: who enrolled
    (`pack_bits`), and the keys of those whom the client shares masks with or seals shares to.
    """

    enrolled: bytes
    clients: Indices
    keys: bytes

    def __post_init__(self) -> None:
        expect_ascending("clients", self.clients)
        expect_items("keys", self.keys, len(self.clients))


@dataclass(frozen=True, eq=False)
class Pledge(Record):
    """What binds a dealer to its shares: its holders; for each holder a digest (16 bytes) of its share of every secret;
    digests (32 bytes) of secrets: of the self-mask seed, with reused keys also of each edge's seed.
    """

    holders: Indices
    digests: bytes
    pledges: bytes

    def __post_init__(self) -> None:
        expect_ascending("holders", self.holders)
        expect_whole("digests", self.digests, DIGEST_BYTES * max(1, len(self.holders)))
        expect_whole("pledges", self.pledges, 32)

    def digest(self, holder: int, place: int) -> bytes:
        """The digest of a holder's share of one secret; empty for a stranger."""
        row = self.row(holder)
        start = len(self.digests) // max(1, len(self.holders)) * row + DIGEST_BYTES * place
        return self.digests[start : start + DIGEST_BYTES] if row >= 0 else b""

    def row(self, holder: int) -> int:
        """The place of a holder among all of them; -1 for a stranger."""
        at = int(self.holders.searchsorted(np.uint32(holder)))
        return at if at < len(self.holders) and self.holders[at] == holder else -1

    def secret(self, place: int) -> bytes:
        """The digest of one secret."""
        return self.pledges[32 * place : 32 * place + 32]


@dataclass(frozen=True, eq=False)
class Dealing(Pledge):
    """Client to server: what binds it, a sealed box of shares per holder, a signature (semi-honest: none)."""

    boxes: bytes
    signature: bytes

    def __post_init__(self) -> None:
        super().__post_init__()
        expect_items("boxes", self.boxes, len(self.holders))
        expect_signature(self.signature)

    def pledge(self) -> Pledge:
        """Return what binds the dealer, without the boxes."""
        return Pledge(self.holders, self.digests, self.pledges)


@dataclass(frozen=True, eq=False)
class Delivery(Record):
    """Server to client: all clients that dealt shares (one bit each, `pack_bits`; add masks with the neighbours
    among them), and what each of those neighbours dealt to this client, in ascending order.
    """

    dealers: bytes
    boxes: bytes
    digests: bytes

    def __post_init__(self) -> None:
        expect_whole("digests", self.digests, 2 * DIGEST_BYTES)
        expect_items("boxes", self.boxes, len(self.digests) // (2 * DIGEST_BYTES))


@dataclass(frozen=True, eq=False)
class Masked(Record):
    """Client to server: the packed masked vector, the dealers whose box did not open or did not match its digests, its
    signature of the dealers that it masked with (empty in the semi-honest model); with reused keys, its own shares.
    """

    vector: bytes = field(repr=False)
    complaints: Indices = field(default_factory=lambda: np.empty(0, np.uint32))
    signature: bytes = b""
    dealing: Dealing | None = None

    def __post_init__(self) -> None:
        expect_ascending("complaints", self.complaints)
        expect_signature(self.signature)


@dataclass(frozen=True)
class Survivors(Record):
    """Server to voter: whose masked vector arrived, one bit per client of the roster (`pack_bits`). The answer is
    an `agreement.Vote`.
    """

    bits: bytes


@dataclass(frozen=True, eq=False)
class Unmask(Record):
    """Server to client: the survivors (`pack_bits`), the certificate of them, and the signed input of every survivor
    whose shares it holds and who is not in the certificate, in ascending order. Semi-honest: the survivors alone.
    boxes: with reused keys, what survivors entrusted to it, by survivor.
    """

    survivors: bytes
    certificate: Certificate | None
    inputs: bytes
    boxes: dict[int, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        expect_whole("inputs", self.inputs, SIGNATURE_BYTES)


@dataclass(frozen=True, eq=False)
class Opened(Record):
    """Client to server: for each owner its shares of what the survivors open (`Places.opens`), end to end."""

    owners: Indices
    shares: bytes = field(repr=False)

    def __post_init__(self) -> None:
        expect_ascending("owners", self.owners)
        expect_whole("shares", self.shares, 16)
        if len(self.shares) < 32 * len(self.owners):
            expect_size("shares", self.shares, 32 * len(self.owners))


def masked_vector(message: Message) -> tuple[memoryview, Masked]:
    """Return the vector of a `Masked` body, and the body without it. The vector is not copied: it is by far the
    largest part of a session. Raises WireError naming the sender.
    """
    with naming(str(message.sender)):
        reader = ByteReader(message.body)
        vector = reader.take(reader.count(1))
        return vector, Masked.decode(bytes(4) + bytes(reader.take(reader.left)))


def indices(clients: Any) -> Indices:
    """Return an iterable of client indices as a uint32 vector."""
    return np.fromiter(clients, dtype=np.uint32)


def items(data: bytes, size: int) -> list[bytes]:
    """Return the items of `size` bytes that lie end to end in `data`."""
    return [data[at : at + size] for at in range(0, len(data), size)] if data else []


def listed(clients: Indices, data: bytes) -> dict[int, bytes]:
    """Return items of 32 bytes by the clients that they belong to."""
    return dict(zip(clients.tolist(), items(data, 32), strict=True))


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


def expect_whole(name: str, data: bytes, size: int) -> None:
    """Raises Misuse unless `data` is items of `size` bytes, as many as they are."""
    if len(data) % size:
        raise Misuse(f"{name}: expected items of {size} bytes, got {len(data)}")


def expect_signature(signature: bytes) -> None:
    """Raises Misuse unless it is one, or nothing."""
    if signature:
        expect_size("signature", signature, SIGNATURE_BYTES)
