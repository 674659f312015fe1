"""What the parties of every homomorphic sum say to each other. What does not belong here: when it may be said, what
follows, what ciphertexts and tickets hold (the schemes say that).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from he.residues import pack, unpack_below
from protocols.agreement import Certificate
from protocols.codec import Record
from protocols.errors import Aborted, Misuse
from protocols.kernel import Party
from protocols.roles import R, naming
from protocols.session import Session
from protocols.summation import IntVector

INPUT, AGREE, OPEN, TOTAL = "encrypted-input", "agree", "open", "total"
HOLDER = "key-holder"
DECRYPTOR = "decryptor"
KEY_HOLDER = Party(HOLDER)


@dataclass(frozen=True)
class EncryptedInput(Record):
    """Client to server: its encrypted vector, and the ticket that whoever opens needs to tell the sum."""

    ciphertexts: bytes = field(repr=False)
    ticket: bytes


@dataclass(frozen=True)
class Listed(Record):
    """Server to voters: what is in the sum: SHA-256 (32 bytes) of each client's ticket."""

    tickets: dict[int, bytes]

    def __post_init__(self) -> None:
        if any(len(digest) != 32 for digest in self.tickets.values()):
            raise Misuse("expected digests of 32 bytes")

    @classmethod
    def of(cls, tickets: Mapping[int, bytes]) -> "Listed":
        """Return the list of these tickets."""
        return cls({i: hashlib.sha256(ticket).digest() for i, ticket in tickets.items()})


@dataclass(frozen=True)
class OpenRequest(Record):
    """Server to whoever opens: the ciphertexts of a sum and the tickets of the clients in it.

    certificate: that a quorum of those who share the key agreed to exactly these tickets; None for a key holder.
    """

    ciphertexts: bytes = field(repr=False)
    tickets: dict[int, bytes]
    certificate: Certificate | None = None


@dataclass(frozen=True)
class OpenedTotal(Record):
    """The answer: the exact total, reduced modulo M where the group is Z_M, packed; or, refused, none and the reason.

    A refusal names no value: one bit, once per session. boxes: the total again, sealed to each client that the
    configuration names and that is in the sum.
    """

    total: bytes = field(repr=False)
    refusal: str = ""
    boxes: dict[int, bytes] = field(default_factory=dict)

    def checked(self, session: Session, who: str) -> IntVector:
        """Return the total, int64 [dimension]. Raises WireError naming `who` for one of another length or out of
        range, Aborted for a refusal.
        """
        if self.refusal:
            raise Aborted(f"{who} refused to open: {self.refusal}")
        return unpack_total(self.total, session, who)


@dataclass(frozen=True)
class Boxed(Record):
    """What a box holds: the total, packed, and who is in it, ascending."""

    total: bytes = field(repr=False)
    survivors: tuple[int, ...]


@dataclass(frozen=True)
class TotalBox(Record):
    """Server to a named client: its box."""

    box: bytes


@dataclass(frozen=True)
class Received(Record):
    """Named client to server: the box has come."""


def decode(kind: type[R], body: bytes, who: str) -> R:
    """Return the record of what `who` sent within another message. Raises WireError naming it."""
    with naming(who):
        return kind.decode(body)


def pack_total(values: IntVector, session: Session) -> bytes:
    """Return a total as words of the fewest bits that the session's sums need."""
    limit, bits = _range(session)
    return pack(values.view(np.uint64) + np.uint64(limit), bits)


def unpack_total(data: bytes, session: Session, who: str) -> IntVector:
    """Inverse of `pack_total`. Raises WireError naming `who` for another length, or values out of range."""
    limit, bits = _range(session)
    with naming(who, "the total of "):
        words = unpack_below(data, session.dimension, bits, 2 * limit + 1)
    return (words - np.uint64(limit)).view(np.int64)


def _range(session: Session) -> tuple[int, int]:
    """Return the largest absolute value of a coordinate of the total, and the bits of what is sent for it."""
    limit = int(session.modulus) // 2 if session.modulus else session.sum_bound
    return limit, min(64, max(1, (2 * limit).bit_length()))
