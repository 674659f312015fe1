"""What Paillier's tickets hold, and what server and decryptors say to each other. What does not belong here: when it
may be said, and what follows.
"""

import hashlib
from dataclasses import dataclass, field

from gmpy2 import mpz

from he.paillier.cipher import parse
from he.paillier.keys import PublicKey
from he.paillier.knowledge import Knowledge, KnownPlaintexts, check
from he.paillier.parameters import PaillierParameters, scheme
from he.paillier.proofs import Proof
from he.roles.messages import EncryptedInput, decode
from protocols.agreement import Certificate
from protocols.codec import Record
from protocols.errors import ProtocolViolation, WireError
from protocols.identity import KEY_BYTES, BadSignature, verify
from protocols.roles import naming
from protocols.session import Session

DECRYPT = "decrypt"
PURPOSE = "paillier contribution"


@dataclass(frozen=True)
class Ticket(Record):
    """What goes with a client's ciphertexts to whoever opens.

    tag: the client's fresh X25519 key (32 bytes), empty where no holder agrees on tags. digest: SHA-256 of
    the ciphertexts. signature: the client's, over session, index, tag and digest; empty in sessions without
    signing keys. knowledge: where decryptors open, the proof that the client knows what it encrypted.
    """

    tag: bytes
    digest: bytes
    signature: bytes
    knowledge: Knowledge | None = None

    def signed(self, session: Session, index: int) -> bytes:
        """What the signature covers."""
        tag = len(self.tag).to_bytes(1, "big") + self.tag
        return session.context + index.to_bytes(4, "big") + tag + self.digest

    def check(self, session: Session, index: int, signers: bytes) -> None:
        """Raises PeerError naming the client if the session has signing keys and this is not signed by it."""
        who = f"client {index}"
        if len(self.digest) != 32:
            raise WireError(f"expected a digest of 32 bytes, got {len(self.digest)}", who)
        if not signers:
            return
        key = signers[KEY_BYTES * index : KEY_BYTES * (index + 1)]
        try:
            verify(key, PURPOSE, self.signed(session, index), self.signature)
        except BadSignature as error:
            raise BadSignature(f"{who}: its contribution is not signed by it: {error}", who) from None


@dataclass(frozen=True)
class DecryptRequest(Record):
    """Server to decryptor: everything that is in the sum, as the clients sent it, and that a quorum of decryptors
    agreed to it.
    """

    inputs: dict[int, EncryptedInput]
    certificate: Certificate


@dataclass(frozen=True)
class Partial(Record):
    """Decryptor to server: its partial decryptions (full-width integers modulo n) and the proof that they
    are right.
    """

    partials: bytes = field(repr=False)
    proof: Proof


def checked(
    sent: EncryptedInput, session: Session, index: int, signers: bytes, public: PublicKey
) -> tuple[Ticket, list[mpz]]:
    """Return ticket and ciphertexts after checking digest, signature and range. Raises PeerError naming the client."""
    who = f"client {index}"
    ticket = decode(Ticket, sent.ticket, who)
    ticket.check(session, index, signers)
    if hashlib.sha256(sent.ciphertexts).digest() != ticket.digest:
        raise ProtocolViolation(f"{who}: expected ciphertexts that fit their digest", who)
    return ticket, parse_named(sent.ciphertexts, session, public, who)


def known(sent: EncryptedInput, session: Session, index: int, signers: bytes, public: PublicKey) -> list[mpz]:
    """Return the ciphertexts after those checks and that of the proof of knowledge. Raises PeerError naming the
    client.
    """
    ticket, values = checked(sent, session, index, signers, public)
    bits = scheme(session).exponent_bits
    check(KnownPlaintexts(public, session.context, index, values, bits), ticket.knowledge)
    return values


def parse_named(data: bytes, session: Session, public: PublicKey, who: str) -> list[mpz]:
    """Return a vector's ciphertexts. Raises WireError naming the sender."""
    with naming(who):
        return parse(data, ciphertexts_of(session), public)


def ciphertexts_of(session: Session) -> int:
    """Return how many ciphertexts a vector of this session takes."""
    parameters: PaillierParameters = scheme(session)
    return parameters.packing.plaintexts(session.dimension)
