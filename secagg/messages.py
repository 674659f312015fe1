"""What clients and server say to each other, stage by stage. What does not belong here: when it may be said, and its
meaning.

Lists of clients are uint32 vectors, strictly ascending; items of one size that belong to them lie end to end in one
byte string, in the same order. Everything a relay may not read is in `boxes`. With fresh keys shares are dealt before
the masked vectors; with reused keys they come along with them, and are handed on with the request to open.
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from protocols.agreement import Certificate
from protocols.codec import ByteReader, Record
from protocols.errors import Misuse, WireError, require
from protocols.kernel import Message
from protocols.roles import naming

Indices = NDArray[np.uint32]

STAGES = ("advertise-keys", "fix-graph", "share-keys", "masked-input", "consistency", "unmask")
ADVERTISE, REVEAL, SHARE, INPUT, CONFIRM, UNMASK = STAGES
DIGEST_BYTES = 16
SIGNATURE_BYTES = 64


def each(clients: str, size: int = 0) -> dict[str, object]:
    """Metadata of a byte field: `size` bytes for each client of a list, or of one size that the message chooses."""
    return {"check": lambda m, name, data: expect_items(name, data, len(getattr(m, clients)), size)}


def exactly(size: int) -> dict[str, object]:
    """Metadata of a byte field: of `size` bytes."""
    return {"check": lambda _, name, data: expect_items(name, data, 1, size)}


def whole(size: int) -> dict[str, object]:
    """Metadata of a byte field: items of `size` bytes, as many as they are."""
    return {"check": lambda _, name, data: expect_whole(name, data, size)}


def expect_opened(message: "Opened", name: str, data: bytes) -> None:
    """Raises Misuse unless `data` is shares of 16 bytes and more, of 32 at least for each owner."""
    expect_whole(name, data, 16)
    if len(data) < 32 * len(message.owners):
        expect_items(name, data, len(message.owners), 32)


SIGNED: dict[str, object] = {"check": lambda _, name, data: expect_items(name, data, int(data != b""), 64)}
"""Metadata of a signature, which may be left out."""


class Body(Record):
    """Base of what is checked when it is made: every list of clients is strictly ascending, every field as its metadata
    say.
    """

    def __post_init__(self) -> None:
        for name, one in self.__dataclass_fields__.items():  # type: ignore[attr-defined]  # it is a dataclass
            value = getattr(self, name)
            if isinstance(value, np.ndarray):
                expect_ascending(name, value)
            elif "check" in one.metadata:
                one.metadata["check"](self, name, value)


@dataclass(frozen=True)
class Advertisement(Record):
    """Client to server. `keys` is laid out as `advertisement` says."""

    keys: bytes


@dataclass(frozen=True, eq=False)
class Commitments(Body):
    """Server to client: who advertised, and each one's commitment (32 bytes) to its part of the graph's randomness."""

    clients: Indices
    commitments: bytes = field(metadata=each("clients", 32))


@dataclass(frozen=True)
class Reveal(Body):
    """Client to server: its part of the graph's randomness (32 bytes)."""

    part: bytes = field(metadata=exactly(32))


@dataclass(frozen=True, eq=False)
class Neighbourhood(Body):
    """Server to client: those neighbours that advertised and their advertisements; after commitments, all
    that was revealed; where signing keys are the session's, those of the voters who are no neighbours (32 bytes).
    """

    clients: Indices
    keys: bytes = field(metadata=each("clients"))
    parts: bytes = field(metadata=whole(32))
    voters: Indices
    voter_keys: bytes = field(metadata=each("voters", 32))


@dataclass(frozen=True, eq=False)
class Proceed(Body):
    """Server to client, where keys are reused: send your masked vector. In the round of a set-up: who enrolled
    (`pack_bits`), and the keys of those whom the client shares masks with or seals shares to.
    """

    enrolled: bytes
    clients: Indices
    keys: bytes = field(metadata=each("clients"))


@dataclass(frozen=True, eq=False)
class Pledge(Body):
    """What binds a dealer to its shares: its holders; for each holder a digest (16 bytes) of its share of every secret;
    digests (32 bytes) of secrets: of the self-mask seed, with reused keys also of each edge's seed.
    """

    holders: Indices
    digests: bytes = field(
        metadata={"check": lambda m, n, d: expect_whole(n, d, 16 * max(1, len(m.holders)))}
    )
    pledges: bytes = field(metadata=whole(32))

    def digest(self, holder: int, place: int) -> bytes:
        """The digest of a holder's share of one secret; empty for a stranger."""
        row = self.row(holder)
        start = len(self.digests) // max(1, len(self.holders)) * row + DIGEST_BYTES * place
        return self.digests[start : start + DIGEST_BYTES] if row >= 0 else b""

    def row(self, holder: int) -> int:
        """The place of a holder among all of them; -1 for a stranger."""
        at = bisect_left(self.holders, holder)
        return at if at < len(self.holders) and self.holders[at] == holder else -1

    def secret(self, place: int) -> bytes:
        """The digest of one secret."""
        return self.pledges[32 * place : 32 * place + 32]


@dataclass(frozen=True, eq=False)
class Dealing(Pledge):
    """Client to server: what binds it, a sealed box of shares per holder, a signature (semi-honest: none)."""

    boxes: bytes = field(metadata=each("holders"))
    signature: bytes = field(metadata=SIGNED)

    def pledge(self) -> Pledge:
        """Return what binds the dealer, without the boxes."""
        return Pledge(self.holders, self.digests, self.pledges)


@dataclass(frozen=True, eq=False)
class Delivery(Body):
    """Server to client: all clients that dealt shares (one bit each, `pack_bits`; add masks with the neighbours
    among them), and what each of those neighbours dealt to this client, in ascending order.
    """

    dealers: bytes
    boxes: bytes = field(metadata={"check": lambda m, n, d: expect_items(n, d, len(m.digests) // 32)})
    digests: bytes = field(metadata=whole(2 * DIGEST_BYTES))


@dataclass(frozen=True, eq=False)
class Masked(Body):
    """Client to server: the packed masked vector, the dealers whose box did not open or did not match its digests, its
    signature of the dealers that it masked with (empty in the semi-honest model); with reused keys, its own shares.
    """

    vector: bytes = field(repr=False)
    complaints: Indices = field(default_factory=lambda: np.empty(0, np.uint32))
    signature: bytes = field(metadata=SIGNED, default=b"")
    dealing: Dealing | None = None


@dataclass(frozen=True)
class Survivors(Record):
    """Server to voter: whose masked vector arrived, one bit per client of the roster (`pack_bits`). The answer is
    an `agreement.Vote`.
    """

    bits: bytes


@dataclass(frozen=True, eq=False)
class Unmask(Body):
    """Server to client: the survivors (`pack_bits`), the certificate of them, and the signed input of every survivor
    whose shares it holds and who is not in the certificate, in ascending order. Semi-honest: the survivors alone.
    boxes: with reused keys, what survivors entrusted to it, by survivor.
    """

    survivors: bytes
    certificate: Certificate | None
    inputs: bytes = field(metadata=whole(SIGNATURE_BYTES))
    boxes: dict[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Opened(Body):
    """Client to server: for each owner its shares of what the survivors open (`Places.opens`), end to end."""

    owners: Indices
    shares: bytes = field(metadata={"check": expect_opened}, repr=False)


def masked_vector(message: Message) -> tuple[memoryview, Masked]:
    """Return the vector of a `Masked` body, and the body without it. The vector is not copied: it is by far the
    largest part of a session. Raises WireError naming the sender.
    """
    with naming(str(message.sender)):
        reader = ByteReader(message.body)
        vector = reader.take(reader.count(1))
        return vector, Masked.decode(bytes(4) + bytes(reader.take(reader.left)))


def indices(clients: Iterable[int]) -> Indices:
    """Return an iterable of client indices as a uint32 vector."""
    return np.fromiter(clients, dtype=np.uint32)


def items(data: bytes, size: int) -> list[bytes]:
    """Return the items of `size` bytes that lie end to end in `data`."""
    return [data[at : at + size] for at in range(0, len(data), size)] if data else []


def listed(clients: Indices, data: bytes) -> dict[int, bytes]:
    """Return items of one size, end to end, by the clients that they belong to."""
    return dict(zip(clients.tolist(), items(data, len(data) // max(1, len(clients))), strict=True))


def pack_bits(clients: Iterable[int], size: int) -> bytes:
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


def expect_items(name: str, data: bytes, count: int, size: int = 0) -> None:
    """Raises Misuse unless `data` cuts evenly into `count` items, of `size` bytes each (0: of any one size)."""
    length = count * (size or max(1, len(data) // max(1, count)))
    if len(data) != length:
        what = f"{size} bytes" if size else "one size"
        raise Misuse(f"{name}: expected {count} items of {what}, got {len(data)} bytes")


def expect_whole(name: str, data: bytes, size: int) -> None:
    """Raises Misuse unless `data` is items of `size` bytes, as many as they are."""
    require(len(data) % size == 0, f"items of {size} bytes", len(data), name)
