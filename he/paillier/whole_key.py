"""Where somebody holds the whole key: how the server adds, how a sum is recognised and opened, and the tags that make
the holder no decryption oracle. What does not belong here: decryptors, states.

A client adds to every plaintext a tag of its own: a residue modulo n, uniform over its whole range,
expanded from a seed that only it and whoever opens the sum know. The low 64 bits of a plaintext are
reserved for nothing else. The opener decrypts, takes away the sum of the tags of exactly the clients named
in the request, and demands that the reserved bits are zero and the rest lies within its slots. Of any other
ciphertext, such as one client's, the same re-randomised, or the sum with one left out or doubled, what is
left is uniform modulo n: it fails but with probability 2^-64, and even then shows nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from he import sealing
from he.paillier.cipher import CrtDecryption, add, centre, parse, serialise
from he.paillier.keyring import HolderKey
from he.paillier.keys import PublicKey
from he.paillier.messages import Ticket, checked, ciphertexts_of, parse_named
from he.paillier.parameters import scheme, total_of
from he.roles.messages import EncryptedInput, OpenRequest, decode
from he.roles.recipients import PURPOSE
from he.roles.scheme import Accumulator, GroupKey, HeldKey, NotTheSum
from he.sealing import agree
from protocols.codec import Record
from protocols.errors import PeerError, ProtocolViolation
from protocols.key_agreement import public_key
from protocols.session import Session
from protocols.summation import IntVector

SEED_BYTES = 32
_EXTRA_BYTES = 16  # 128 bits more than n make a residue statistically uniform


def seed_for_holder(private: bytes, holder: bytes, context: bytes, index: int) -> bytes:
    """Return client `index`'s seed: what both ends of an X25519 exchange derive from its fresh key and the
    holder's.

    The client calls it with its own private key and the holder's public one, the holder with its private
    key and the client's public one. Raises ProtocolViolation naming the client for a public key of low
    order.
    """
    return sealing.agree(private, holder, context, f"tag {index}", f"client {index}")


class Tagging(NamedTuple):
    """What a client's tags come from. public: its fresh key, which goes with its ticket (empty: none). seed: of the
    tags (empty: none). box_key: for what the key holder seals to it (empty: nothing).
    """

    public: bytes = b""
    seed: bytes = b""
    box_key: bytes = b""

    @classmethod
    def with_holder(cls, private: bytes, holder: bytes, context: bytes, index: int) -> "Tagging":
        """Return client `index`'s tagging from its fresh private key and the holder's public one, 32 bytes each."""
        box_key = sealing.agree(private, holder, context, PURPOSE, "key-holder")
        return cls(public_key(private), seed_for_holder(private, holder, context, index), box_key)

    @classmethod
    def in_group(cls, secret: bytes, context: bytes, index: int) -> "Tagging":
        """Return client `index`'s tagging where all clients share a secret."""
        return cls(seed=seed_in_group(secret, context, index))

    def added(self, plaintexts: list[int], n: int) -> list[int]:
        """Return the plaintexts with the tags, modulo n; as they are if there are none."""
        return add_tags(plaintexts, self.seed, n) if self.seed else plaintexts


def seed_in_group(secret: bytes, context: bytes, index: int) -> bytes:
    """Return client `index`'s seed where all clients share a secret that the server does not have."""
    return sealing.derive(secret, context, f"tag {index}")


def expand(seed: bytes, count: int, n: int) -> list[int]:
    """Return `count` residues modulo n: the AES-256-CTR key stream of a seed that is used once."""
    size = (n.bit_length() + 7) // 8 + _EXTRA_BYTES
    stream = Cipher(algorithms.AES256(seed), modes.CTR(bytes(16))).encryptor().update(bytes(count * size))
    return [int.from_bytes(stream[i : i + size], "big") % n for i in range(0, len(stream), size)]


def add_tags(plaintexts: Sequence[int], seed: bytes, n: int) -> list[int]:
    """Return the plaintexts with the tags of `seed`, modulo n."""
    return [(m + tag) % n for m, tag in zip(plaintexts, expand(seed, len(plaintexts), n), strict=True)]


def remove_tags(opened: Sequence[int], seeds: Iterable[bytes], n: int) -> list[int]:
    """Return what is left, in (-n/2, n/2), when the tags of all `seeds` are taken away. Nothing is checked
    yet.
    """
    left = list(opened)
    for seed in seeds:
        left = [value - tag for value, tag in zip(left, expand(seed, len(left), n), strict=True)]
    return [centre(value % n, n) for value in left]


@dataclass
class PaillierAccumulator(Accumulator):
    """sum: the ciphertexts of the sum so far (empty: none yet). signers: the clients' keys, 32 bytes each, or empty.
    tagged: each ticket must carry a key that tags are agreed with (KeyHolder).
    """

    TAG = 1

    public: PublicKey
    signers: bytes
    tagged: bool
    sum: bytes = field(default=b"", repr=False)

    def add(self, session: Session, index: int, sent: EncryptedInput) -> None:
        ticket, vector = checked(sent, session, index, self.signers, self.public)
        if len(ticket.tag) != 32 * self.tagged:
            who = f"client {index}"
            raise ProtocolViolation(f"{who}: expected a key of {32 * self.tagged} bytes for its tags", who)
        if self.sum:
            vector = add(parse(self.sum, ciphertexts_of(session), self.public), vector, self.public)
        self.sum = serialise(vector, self.public)

    def finish(self) -> bytes:
        return self.sum


@dataclass(frozen=True)
class _WholeKey(Record, ABC):
    """Opens the sum if the ciphertexts are exactly those of the contributions behind the tickets."""

    key: HolderKey = field(repr=False)
    signers: bytes

    @abstractmethod
    def seed(self, session: Session, index: int, ticket: Ticket) -> bytes:
        """Return the seed of client `index`'s tags."""

    def open(self, session: Session, asked: OpenRequest) -> IntVector:
        tickets = {i: _ticket(data, i) for i, data in asked.tickets.items()}
        seeds = [self.seed(session, i, ticket) for i, ticket in tickets.items()]
        for index, ticket in tickets.items():
            ticket.check(session, index, self.signers)
        public = self.key.secret.public
        ciphertexts = parse_named(asked.ciphertexts, session, public, "server")
        opened = remove_tags(CrtDecryption(self.key.secret).decrypt(ciphertexts), seeds, int(public.n))
        try:
            digits = scheme(session).packing.unpack(opened, session.dimension)
        except PeerError as error:
            raise NotTheSum(str(error)) from None
        return total_of(digits, session)


@dataclass(frozen=True)
class PaillierHeldKey(_WholeKey, HeldKey):
    """Tags are agreed with each client by the X25519 key in its ticket."""

    TAG = 1

    def seed(self, session: Session, index: int, ticket: Ticket) -> bytes:
        return seed_for_holder(self.key.sealing, ticket.tag, session.context, index)

    def box_key(self, session: Session, index: int, ticket: bytes) -> bytes:
        tag = _ticket(ticket, index).tag
        return agree(self.key.sealing, tag, session.context, PURPOSE, f"client {index}")


@dataclass(frozen=True)
class PaillierGroupKey(_WholeKey, GroupKey):
    """Tags come from the secret that the clients share."""

    TAG = 1

    @property
    def secret(self) -> bytes:
        return self.key.sealing

    def seed(self, session: Session, index: int, ticket: Ticket) -> bytes:
        return seed_in_group(self.key.sealing, session.context, index)


def _ticket(data: bytes, index: int) -> Ticket:
    return decode(Ticket, data, f"client {index}")
