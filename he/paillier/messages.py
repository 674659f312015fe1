"""What the parties of a Paillier sum say to each other. What does not belong here: when it may be said, and
what follows.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from he.delivery import check_total
from he.paillier.cipher import parse
from he.paillier.keys import PublicKey
from he.paillier.knowledge import Knowledge, Statement, check
from he.paillier.parameters import PaillierParameters
from he.paillier.proofs import Proof
from protocols.codec import Record
from protocols.errors import Aborted, PeerError, ProtocolViolation, WireError
from protocols.identity import KEY_BYTES, BadSignature, verify
from protocols.session import Session

INPUT, AGREE, OPEN, DECRYPT = "encrypted-input", "agree", "open", "decrypt"
PURPOSE = "paillier contribution"


@dataclass(frozen=True)
class Ask(Record):
    """Server to client: send your encrypted input."""


@dataclass(frozen=True)
class Ticket(Record):
    """What goes with a client's ciphertexts to whoever opens.

    tag: the client's fresh X25519 key (32 bytes), empty where no holder agrees on tags. digest: SHA-256 of
    the ciphertexts. signature: the client's, over session, index, tag and digest; empty in sessions without
    signing keys.
    """

    tag: bytes
    digest: bytes
    signature: bytes

    def signed(self, session: Session, index: int) -> bytes:
        """What the signature covers."""
        return (
            session.context
            + index.to_bytes(4, "big")
            + len(self.tag).to_bytes(1, "big")
            + self.tag
            + self.digest
        )

    def check(self, session: Session, index: int, signers: bytes) -> None:
        """Raises PeerError naming the client if the session has signing keys and this is not signed by it."""
        who = f"client {index}"
        if len(self.digest) != 32:
            raise WireError(f"expected a digest of 32 bytes, got {len(self.digest)}", who)
        if not signers:
            return
        try:
            verify(
                signers[KEY_BYTES * index : KEY_BYTES * (index + 1)],
                PURPOSE,
                self.signed(session, index),
                self.signature,
            )
        except BadSignature as error:
            raise BadSignature(f"{who}: its contribution is not signed by it: {error}", who) from None


@dataclass(frozen=True)
class Contribution(Record):
    """Client to server: its encrypted vector (full-width integers modulo n^2, end to end) and its ticket.

    knowledge: where decryptors open, the proof that the client knows what it encrypted.
    """

    ciphertexts: bytes = field(repr=False)
    ticket: Ticket
    knowledge: Knowledge | None = None

    def checked(
        self, session: Session, index: int, signers: bytes, public: PublicKey, count: int
    ) -> list[Any]:
        """Return the ciphertexts after checking digest, signature and range. Raises PeerError naming the
        client.
        """
        self.ticket.check(session, index, signers)
        with blaming(f"client {index}"):
            if hashlib.sha256(self.ciphertexts).digest() != self.ticket.digest:
                raise ProtocolViolation("expected ciphertexts that fit their digest", f"client {index}")
            return parse(self.ciphertexts, count, public)

    def known(self, session: Session, index: int, signers: bytes, public: PublicKey) -> list[Any]:
        """Return the ciphertexts after those checks and that of the proof of knowledge. Raises PeerError naming the
        client.
        """
        parameters = PaillierParameters.decode(session.parameters)
        count = parameters.packing.plaintexts(session.dimension)
        values = self.checked(session, index, signers, public, count)
        check(Statement(public, session.context, index, values, parameters.exponent_bits), self.knowledge)
        return values


@dataclass(frozen=True)
class Survivors(Record):
    """Server to clients that share the key: who is in the sum, ascending."""

    clients: tuple[int, ...]


@dataclass(frozen=True)
class Agreed(Record):
    """Client to clients that share the key: the one list of survivors that it agreed to, authenticated (32 bytes)."""

    mac: bytes


@dataclass(frozen=True)
class OpenRequest(Record):
    """Server to key holder or clients: open this sum of the ciphertexts behind these tickets (by client).

    agreed: where clients open, the proofs of those who agreed to exactly these clients.
    """

    ciphertexts: bytes = field(repr=False)
    tickets: dict[int, Ticket]
    agreed: dict[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Opened(Record):
    """The answer: the sum, reduced already, int64 [dimension]; or, refused, none and the reason.

    A refusal names no value: one bit, once per session. boxes: the sum again, sealed to each client that the
    configuration names and that is in the sum.
    """

    total: NDArray[np.int64] = field(repr=False)
    refusal: str = ""
    boxes: dict[int, bytes] = field(default_factory=dict)

    def checked(self, session: Session, who: str) -> NDArray[np.int64]:
        """Return the sum after checking its shape and range. Raises ProtocolViolation naming `who`, Aborted for
        a refusal.
        """
        if self.refusal:
            raise Aborted(f"{who} refused to open: {self.refusal}")
        return check_total(self.total, session, who)


@dataclass(frozen=True)
class DecryptRequest(Record):
    """Server to decryptor: everything that is in the sum, as the clients signed it."""

    contributions: dict[int, Contribution]


@dataclass(frozen=True)
class Partial(Record):
    """Decryptor to server: its partial decryptions (full-width integers modulo n) and the proof that they
    are right.
    """

    partials: bytes = field(repr=False)
    proof: Proof


@contextmanager
def blaming(who: str) -> Iterator[None]:
    """Name the sender in errors about its bytes."""
    try:
        yield
    except WireError as error:
        raise WireError(f"{who}: {error}", who) from None


def decode(kind: Any, body: bytes, who: str) -> Any:
    """Return the record of a message's body. Raises WireError naming the sender."""
    with blaming(who):
        return kind.decode(body)


def expect_indices(contributions: Sequence[int], least: int, clients: int) -> None:
    """Refuse to open anything over fewer than `least` clients, or of clients outside the cohort. Raises
    PeerError.
    """
    if len(contributions) < least:
        raise PeerError(
            f"expected the sum of at least {least} clients, the server asks for {len(contributions)}",
            "server",
        )
    if any(not 0 <= index < clients for index in contributions):
        raise PeerError(f"expected clients below {clients}, got {sorted(contributions)}", "server")
