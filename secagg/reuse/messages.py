"""Messages of rounds that build on a set-up. What does not belong here: messages of other rounds
(`secagg.messages`), and of the vote, which are theirs.

With whom a client shares masks and who holds its shares follows from the set-up (`places`), so no message names them.
"""

from dataclasses import dataclass, field

from protocols.codec import Record
from protocols.errors import Misuse
from secagg.messages import (
    DIGEST_BYTES,
    SIGNATURE_BYTES,
    Indices,
    Unmask,
    expect_ascending,
    expect_items,
    expect_size,
)

SEED_BYTES, EDGE_BYTES = 32, 16


@dataclass(frozen=True, eq=False)
class Proceed(Record):
    """Server to client: send your masked vector. In the round of a set-up: who enrolled (`pack_bits`), and the keys of
    those whom the client shares masks with or seals shares to.
    """

    enrolled: bytes
    clients: Indices
    keys: bytes

    def __post_init__(self) -> None:
        expect_ascending("clients", self.clients)
        expect_items("keys", self.keys, len(self.clients))


@dataclass(frozen=True, eq=False)
class Deposit(Record):
    """Client to server: the packed masked vector, a sealed box for each holder, and what binds the client to them.

    A box holds a share of the self-mask seed (32 bytes) and one of each edge's seed (16 bytes each). digests: for each
    holder 16 bytes per share. pledges: 32 bytes for the seed and each edge. input: its signature of those whom it
    masked with; signature: of all the rest; both empty in the semi-honest model.
    """

    vector: bytes = field(repr=False)
    boxes: bytes
    digests: bytes
    pledges: bytes
    input: bytes
    signature: bytes

    def __post_init__(self) -> None:
        if len(self.digests) % DIGEST_BYTES or len(self.pledges) % 32:
            raise Misuse("expected digests of 16 bytes and pledges of 32")
        for name in ("input", "signature"):
            if getattr(self, name):
                expect_size(name, getattr(self, name), SIGNATURE_BYTES)


@dataclass(frozen=True, eq=False)
class Release(Unmask):
    """Server to holder: as `Unmask`, and the boxes that survivors entrusted to it, by survivor."""

    boxes: dict[int, bytes]


@dataclass(frozen=True, eq=False)
class Released(Record):
    """Holder to server: for each owner whose box opened, its share of the seed and of its edges to the gone, by
    ascending neighbour, end to end.
    """

    owners: Indices
    shares: bytes = field(repr=False)

    def __post_init__(self) -> None:
        expect_ascending("owners", self.owners)
        expect_least = SEED_BYTES * len(self.owners)
        if len(self.shares) < expect_least or len(self.shares) % EDGE_BYTES:
            expect_size("shares", self.shares, expect_least)
