"""Proof that a client knows what it encrypted (`Threshold`). What does not belong here: encryption, who checks.

Ciphertexts are malleable: without a proof a client that is in league with the server could send a power of another
client's ciphertext as its own, in this session or a later one, and the opened sum would tell that client's
update. Where a key holder opens, tags find that out; decryptors add up whatever is signed.

The proof is Schnorr's for the map (m, r) -> (1 + n)^m g^r modulo n^2, g = h^n, made non-interactive by a hash over
everything (Fiat-Shamir), the session and the client's place included. All ciphertexts of a vector are proven at
once, each with a 128-bit exponent of its own: n has no prime factor below 2^128, so that the answers to enough
challenges determine every plaintext. A proof of knowledge beside semantically secure encryption makes it non-malleable
(Bernhard, Pereira and Warinschi, ASIACRYPT 2012).
"""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import gmpy2
from gmpy2 import mpz

from he.paillier.keys import PublicKey
from he.paillier.proofs import CHALLENGE_BYTES, HIDING_BITS, challenges, multi_power
from protocols.codec import Record
from protocols.errors import Misuse, ProtocolViolation
from protocols.randomness import SecureRandom, below

_DOMAIN = b"paillier knowledge proof v1\0"


@dataclass(frozen=True)
class Knowledge(Record):
    """digest: SHA-256 (32 bytes) of all that is proven and of the commitment, from which the challenges follow.
    plain: modulo n. exponent: over the integers. Both are big-endian in full width, whatever their values.
    """

    digest: bytes
    plain: bytes = field(repr=False)
    exponent: bytes = field(repr=False)


@dataclass(frozen=True)
class KnownPlaintexts:
    """What is proven: that the ciphertexts of client `index` in a session (`context`) are encryptions it made, with
    exponents of at most `exponent_bits` bits. Raises Misuse for a key without a base of its own.
    """

    public: PublicKey
    context: bytes
    index: int
    ciphertexts: Sequence[mpz]
    exponent_bits: int

    def __post_init__(self) -> None:
        if self.public.h is None:
            raise Misuse("a proof of knowledge needs a key with a base for randomisers")

    @property
    def mask_bits(self) -> int:
        """Length of the mask of the exponents."""
        return self.exponent_bits + 8 * CHALLENGE_BYTES + len(self.ciphertexts).bit_length() + HIDING_BITS

    @property
    def widths(self) -> tuple[int, int]:
        """Bytes of a proof's answers."""
        return self.public.residue_bytes, (self.mask_bits + 8) // 8

    def digest(self, commitment: mpz) -> bytes:
        """Hash key, session, place, ciphertexts and commitment."""
        size = self.public.ciphertext_bytes
        hasher = hashlib.sha256(_DOMAIN + self.public.digest + self.index.to_bytes(4, "big"))
        hasher.update(len(self.context).to_bytes(4, "big") + self.context)
        hasher.update(self.exponent_bits.to_bytes(4, "big") + len(self.ciphertexts).to_bytes(8, "big"))
        for value in (*self.ciphertexts, commitment):
            hasher.update(value.to_bytes(size, "big"))
        return hasher.digest()

    def challenges(self, digest: bytes) -> list[bytes]:
        """Return an exponent of 16 bytes for each ciphertext."""
        return challenges(b"challenges\0" + digest, len(self.ciphertexts))

    def image(self, plain: mpz, exponent: mpz) -> mpz:
        """Return (1 + n)^plain g^exponent modulo n^2."""
        n = mpz(self.public.n)
        return (1 + plain % n * n) * gmpy2.powmod(_base(self.public), exponent, n * n) % (n * n)


@functools.lru_cache(maxsize=8)
def _base(public: PublicKey) -> mpz:
    """Return g = h^n modulo n^2."""
    n = mpz(public.n)
    return gmpy2.powmod(public.h, n, n * n)


def prove(
    statement: KnownPlaintexts, plaintexts: Sequence[int], exponents: Sequence[bytes], random: SecureRandom
) -> Knowledge:
    """Prove knowledge of the plaintexts and of the randomisers' exponents (little-endian bytes), one per ciphertext."""
    n = int(statement.public.n)
    mask = int.from_bytes(random.bytes((statement.mask_bits + 7) // 8), "big") >> (-statement.mask_bits % 8)
    plain = below(random, n)
    digest = statement.digest(statement.image(plain, mask))
    for challenge, m, r in zip(statement.challenges(digest), plaintexts, exponents, strict=True):
        e = int.from_bytes(challenge, "big")
        plain, mask = plain + e * m, mask + e * int.from_bytes(r, "little")
    plain_bytes, exponent_bytes = statement.widths
    return Knowledge(digest, (plain % n).to_bytes(plain_bytes, "big"), mask.to_bytes(exponent_bytes, "big"))


def check(statement: KnownPlaintexts, proof: Knowledge | None) -> None:
    """Raises ProtocolViolation, naming the client, unless it proves that it knows what it encrypted."""
    who, n = f"client {statement.index}", mpz(statement.public.n)
    if proof is None:
        raise ProtocolViolation(f"{who}: expected a proof that it knows what it encrypted, got none", who)
    plain, exponent = (int.from_bytes(answer, "big") for answer in (proof.plain, proof.exponent))
    sizes = (len(proof.plain), len(proof.exponent))
    if len(proof.digest) != 32 or sizes != statement.widths or plain >= n:
        raise ProtocolViolation(f"{who}: the proof that it knows what it encrypted is out of range", who)
    n2 = n * n
    product = multi_power(statement.ciphertexts, statement.challenges(proof.digest), n2)
    commitment = statement.image(plain, exponent) * gmpy2.invert(product, n2) % n2
    if statement.digest(commitment) != proof.digest:
        raise ProtocolViolation(
            f"{who}: its proof that it knows what it encrypted does not verify: the ciphertexts were not made by it "
            "for this session",
            who,
        )
