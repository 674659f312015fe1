"""Proof that a holder's partial decryptions are right, so that a wrong one is named. What does not belong
here: decryption itself.

Damgard and Jurik (PKC 2001, section 4.1) prove per ciphertext that log_(c^4)(c_i^2) = log_v(v_i), by
Shoup's protocol (EUROCRYPT 2000) made non-interactive by a hash (Fiat-Shamir). All ciphertexts of a session
are proven at once: both sides are raised to random 128-bit exponents and multiplied (small-exponent
batching: Bellare, Garay and Rabin, EUROCRYPT '98). The squares modulo n^2 form a group whose order n p'q'
has no factor below 2^128, so a single wrong element survives with probability 2^-128.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import gmpy2

from he.paillier.threshold import KeyShare, ThresholdKey
from protocols.codec import BigInt, Record
from protocols.errors import PeerError
from protocols.randomness import SecureRandom

CHALLENGE_BYTES = 16
# The nonce is so much longer than challenge x exponent: the answer is statistically independent of the share.
HIDING_BITS = 128
_FEW = 48  # below so many, filling and emptying 255 buckets costs more than it saves
_DOMAIN = b"paillier partial decryption proof v1\0"


class WrongPartial(PeerError):
    """A holder's partial decryptions or their proof are wrong; `party` names it."""


@dataclass(frozen=True)
class Proof(Record):
    """challenge: 16 bytes. answer: nonce + challenge x delta s_i, over the integers."""

    challenge: bytes
    answer: BigInt = field(repr=False)


def prove(
    share: KeyShare, ciphertexts: Sequence[Any], partials: Sequence[Any], context: bytes, random: SecureRandom
) -> Proof:
    """Prove `partials` of `ciphertexts`; `context` binds the proof to its session."""
    key = share.key
    n2 = gmpy2.mpz(key.public.n) ** 2
    base, _, transcript = _batch(key, share.index, ciphertexts, partials, context)
    nonce = int.from_bytes(random.bytes(_nonce_bytes(key)), "big")
    challenge = _challenge(transcript, gmpy2.powmod(base, nonce, n2), gmpy2.powmod(key.v, nonce, n2), key)
    answer = nonce + int.from_bytes(challenge, "big") * key.delta * share.value
    return Proof(challenge, BigInt(answer))


def check(
    key: ThresholdKey,
    index: int,
    ciphertexts: Sequence[Any],
    partials: Sequence[Any],
    context: bytes,
    proof: Proof,
) -> None:
    """Raises WrongPartial, naming the holder, unless its partial decryptions are right."""
    who = f"decryptor {index - 1}"
    n2 = gmpy2.mpz(key.public.n) ** 2
    limit = 8 * _nonce_bytes(key) + 1
    if len(proof.challenge) != CHALLENGE_BYTES or proof.answer < 0 or int(proof.answer).bit_length() > limit:
        raise WrongPartial(f"{who}: the proof is out of range", who)
    base, image, transcript = _batch(key, index, ciphertexts, partials, context)
    e = int.from_bytes(proof.challenge, "big")
    at_base = gmpy2.powmod(base, proof.answer, n2) * gmpy2.powmod(gmpy2.invert(image, n2), e, n2) % n2
    verification = gmpy2.invert(key.verification[index - 1], n2)
    at_v = gmpy2.powmod(key.v, proof.answer, n2) * gmpy2.powmod(verification, e, n2) % n2
    if _challenge(transcript, at_base, at_v, key) != proof.challenge:
        raise WrongPartial(f"{who}: its partial decryption is wrong, the proof does not verify", who)


def _nonce_bytes(key: ThresholdKey) -> int:
    exponent_bits = 2 * key.public.bits + key.delta.bit_length()
    return (exponent_bits + 8 * CHALLENGE_BYTES + HIDING_BITS + 7) // 8


def _batch(
    key: ThresholdKey, index: int, ciphertexts: Sequence[Any], partials: Sequence[Any], context: bytes
) -> tuple[Any, Any, bytes]:
    """Return the product of c^(4 e), of c_i^(2 e), and the hash of everything they depend on."""
    size = key.public.ciphertext_bytes
    n2 = gmpy2.mpz(key.public.n) ** 2
    digest = hashlib.sha256(
        _DOMAIN + key.digest + index.to_bytes(4, "big") + len(context).to_bytes(4, "big") + context
    )
    digest.update(len(ciphertexts).to_bytes(8, "big"))
    for value in (*ciphertexts, *partials):
        digest.update(value.to_bytes(size, "big"))
    transcript = digest.digest()
    stream = hashlib.shake_256(b"batch\0" + transcript).digest(CHALLENGE_BYTES * len(ciphertexts))
    exponents = [stream[i : i + CHALLENGE_BYTES] for i in range(0, len(stream), CHALLENGE_BYTES)]
    base = gmpy2.powmod(multi_power(ciphertexts, exponents, n2), 4, n2)
    image = gmpy2.powmod(multi_power(partials, exponents, n2), 2, n2)
    return base, image, transcript


def _challenge(transcript: bytes, at_base: Any, at_v: Any, key: ThresholdKey) -> bytes:
    size = key.public.ciphertext_bytes
    return hashlib.sha256(
        b"challenge\0" + transcript + at_base.to_bytes(size, "big") + at_v.to_bytes(size, "big")
    ).digest()[:CHALLENGE_BYTES]


def multi_power(bases: Sequence[Any], exponents: Sequence[bytes], modulus: Any) -> Any:
    """Return the product of bases[i]^exponents[i] (big-endian, of one length), by Pippenger's buckets of
    one byte; few bases are raised one by one.
    """
    result = gmpy2.mpz(1)
    if len(bases) < _FEW:
        for base, exponent in zip(bases, exponents, strict=True):
            result = result * gmpy2.powmod(base, int.from_bytes(exponent, "big"), modulus) % modulus
        return result
    for position in range(len(exponents[0])):
        buckets: list[Any] = [None] * 256
        for base, exponent in zip(bases, exponents, strict=True):
            digit = exponent[position]
            held = buckets[digit]
            buckets[digit] = base if held is None else held * base % modulus
        running, column = gmpy2.mpz(1), gmpy2.mpz(1)
        for bucket in reversed(buckets[1:]):  # sum of digit x bucket in the exponent
            if bucket is not None:
                running = running * bucket % modulus
            column = column * running % modulus
        result = gmpy2.powmod(result, 256, modulus) * column % modulus
    return result
