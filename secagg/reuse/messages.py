"""Messages of rounds that build on a set-up. What does not belong here: messages of other rounds
(`secagg.messages`).
"""

from dataclasses import dataclass, field

from protocols.codec import Record
from protocols.errors import Misuse
from secagg.messages import (
    DIGEST_BYTES,
    SIGNATURE_BYTES,
    Indices,
    expect_ascending,
    expect_items,
    expect_size,
)

SEED_BYTES, EDGE_BYTES = 32, 16


@dataclass(frozen=True, eq=False)
class Proceed(Record):
    """Server to client: send your masked vector. In the round of a set-up: the keys of its neighbours and
    share holders.
    """

    clients: Indices
    keys: bytes

    def __post_init__(self) -> None:
        expect_ascending("clients", self.clients)
        expect_items("keys", self.keys, len(self.clients))


@dataclass(frozen=True, eq=False)
class Entrusted(Record):
    """What a client seals for one holder: a share of its self-mask seed and one of each edge's seed (16
    bytes each).
    """

    neighbours: Indices
    seed_share: bytes = field(repr=False)
    edge_shares: bytes = field(repr=False)

    def __post_init__(self) -> None:
        expect_ascending("neighbours", self.neighbours)
        expect_size("seed_share", self.seed_share, SEED_BYTES)
        expect_size("edge_shares", self.edge_shares, EDGE_BYTES * len(self.neighbours))


@dataclass(frozen=True, eq=False)
class Deposit(Record):
    """Client to server: the packed masked vector, a sealed `Entrusted` per holder, and what binds the
    client to them.

    digests: for each holder 16 bytes for the seed's share and each edge's. pledges: 32 bytes for the seed and
    each edge.
    """

    vector: bytes = field(repr=False)
    neighbours: Indices
    holders: Indices
    boxes: bytes
    digests: bytes
    pledges: bytes
    signature: bytes

    def __post_init__(self) -> None:
        expect_ascending("neighbours", self.neighbours)
        expect_ascending("holders", self.holders)
        expect_items("boxes", self.boxes, len(self.holders))
        secrets = 1 + len(self.neighbours)
        expect_size("digests", self.digests, DIGEST_BYTES * secrets * len(self.holders))
        expect_size("pledges", self.pledges, 32 * secrets)
        if self.signature:
            expect_size("signature", self.signature, SIGNATURE_BYTES)


@dataclass(frozen=True, eq=False)
class Release(Record):
    """Server to holder: whose vectors arrived (one bit per client), and what each of them entrusted to it."""

    bits: bytes
    boxes: dict[int, bytes]


@dataclass(frozen=True, eq=False)
class Released(Record):
    """Holder to server: shares of survivors' seeds, and of their edges (`owners` to `peers`, in ascending
    pairs) to the gone.
    """

    alive: Indices
    seed_shares: bytes = field(repr=False)
    owners: Indices
    peers: Indices
    edge_shares: bytes = field(repr=False)

    def __post_init__(self) -> None:
        expect_ascending("alive", self.alive)
        expect_size("seed_shares", self.seed_shares, SEED_BYTES * len(self.alive))
        expect_size("edge_shares", self.edge_shares, EDGE_BYTES * len(self.owners))
        pairs = list(zip(self.owners.tolist(), self.peers.tolist(), strict=False))
        if len(self.owners) != len(self.peers) or pairs != sorted(set(pairs)):
            raise Misuse("expected ascending pairs of owner and peer")
