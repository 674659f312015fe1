"""Proof that a holder's partial decryptions are right, so that a wrong one is named. What does not belong
here: decryption itself.

With x = c^2 modulo n and a partial decryption x_i, Shoup (EUROCRYPT 2000, section 2) proves
log_(x^4)(x_i^2) = log_v(v_i) = delta s_i, non-interactively by a hash (Fiat-Shamir). All ciphertexts of a
session are proven at once: both sides are raised to random 128-bit exponents and multiplied (small-exponent
batching: Bellare, Garay and Rabin, EUROCRYPT '98). The squares modulo n form a group whose order p'q' has
no factor below 2^128, so a single wrong element survives with probability 2^-128.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import gmpy2
from gmpy2 import mpz

from he.paillier.threshold import KeyShare, ThresholdKey, squares_of
from protocols.codec import BigInt, Record
from protocols.errors import PeerError
from protocols.randomness import SecureRandom

CHALLENGE_BYTES = 16
# A nonce is so much longer than challenge x secret: the answer is statistically independent of the secret.
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
    share: KeyShare, ciphertexts: Sequence[mpz], partials: Sequence[mpz], context: bytes, random: SecureRandom
) -> Proof:
    """Prove `partials` of `ciphertexts`; `context` binds the proof to its session."""
    key, n = share.key, mpz(share.key.public.n)
    base, _, transcript = _batch(key, share.index, ciphertexts, partials, context)
    nonce = int.from_bytes(random.bytes(_nonce_bytes(key)), "big")
    challenge = _challenge(transcript, gmpy2.powmod(base, nonce, n), gmpy2.powmod(key.v, nonce, n), key)
    answer = nonce + int.from_bytes(challenge, "big") * key.delta * share.value
    return Proof(challenge, BigInt(answer))


def check(
    key: ThresholdKey,
    index: int,
    ciphertexts: Sequence[mpz],
    partials: Sequence[mpz],
    context: bytes,
    proof: Proof,
) -> None:
    """Raises WrongPartial, naming the holder, unless its partial decryptions are right."""
    who, n = f"decryptor {index - 1}", mpz(key.public.n)
    limit = 8 * _nonce_bytes(key) + 1
    if len(proof.challenge) != CHALLENGE_BYTES or proof.answer < 0 or int(proof.answer).bit_length() > limit:
        raise WrongPartial(f"{who}: the proof is out of range", who)
    base, image, transcript = _batch(key, index, ciphertexts, partials, context)
    e = int.from_bytes(proof.challenge, "big")
    at_base = gmpy2.powmod(base, proof.answer, n) * gmpy2.powmod(gmpy2.invert(image, n), e, n) % n
    verification = gmpy2.invert(key.verification[index - 1], n)
    at_v = gmpy2.powmod(key.v, proof.answer, n) * gmpy2.powmod(verification, e, n) % n
    if _challenge(transcript, at_base, at_v, key) != proof.challenge:
        raise WrongPartial(f"{who}: its partial decryption is wrong, the proof does not verify", who)


def _nonce_bytes(key: ThresholdKey) -> int:
    exponent_bits = key.public.bits + key.delta.bit_length()
    return (exponent_bits + 8 * CHALLENGE_BYTES + HIDING_BITS + 7) // 8


def _batch(
    key: ThresholdKey, index: int, ciphertexts: Sequence[mpz], partials: Sequence[mpz], context: bytes
) -> tuple[mpz, mpz, bytes]:
    """Return the products of x^(4 e) and of x_i^(2 e), and the hash of everything they depend on."""
    n, size = mpz(key.public.n), key.public.ciphertext_bytes
    digest = hashlib.sha256(_DOMAIN + key.digest + index.to_bytes(4, "big"))
    digest.update(len(context).to_bytes(4, "big") + context + len(ciphertexts).to_bytes(8, "big"))
    for value in (*ciphertexts, *partials):
        digest.update(value.to_bytes(size, "big"))
    transcript = digest.digest()
    exponents = challenges(b"batch\0" + transcript, len(ciphertexts))
    base = gmpy2.powmod(multi_power(squares_of(ciphertexts, n), exponents, n), 4, n)
    image = gmpy2.powmod(multi_power(partials, exponents, n), 2, n)
    return base, image, transcript


def challenges(seed: bytes, count: int) -> list[bytes]:
    """Return `count` exponents of 16 bytes that a hash (SHAKE-256) gives for a seed."""
    stream = hashlib.shake_256(seed).digest(CHALLENGE_BYTES * count)
    return [stream[i : i + CHALLENGE_BYTES] for i in range(0, len(stream), CHALLENGE_BYTES)]


def _challenge(transcript: bytes, at_base: mpz, at_v: mpz, key: ThresholdKey) -> bytes:
    size = key.public.ciphertext_bytes
    points = at_base.to_bytes(size, "big") + at_v.to_bytes(size, "big")
    return hashlib.sha256(b"challenge\0" + transcript + points).digest()[:CHALLENGE_BYTES]


def multi_power(bases: Sequence[mpz], exponents: Sequence[bytes], modulus: mpz) -> mpz:
    """Return the product of bases[i]^exponents[i] (big-endian, of one length), by Pippenger's buckets of one
    byte; few bases are raised one by one.
    """
    result = mpz(1)
    if len(bases) < _FEW:
        for base, exponent in zip(bases, exponents, strict=True):
            result = result * gmpy2.powmod(base, int.from_bytes(exponent, "big"), modulus) % modulus
        return result
    for position in range(len(exponents[0])):
        column = _column(bases, [exponent[position] for exponent in exponents], modulus)
        result = gmpy2.powmod(result, 256, modulus) * column % modulus
    return result


def _column(bases: Sequence[mpz], digits: Sequence[int], modulus: mpz) -> mpz:
    """Return the product of bases[i]^digits[i] for digits of one byte."""
    buckets: list[mpz] = [mpz(1)] * 256
    for base, digit in zip(bases, digits, strict=True):
        buckets[digit] = buckets[digit] * base % modulus
    running, column = mpz(1), mpz(1)
    for bucket in reversed(buckets[1:]):  # each bucket ends up in `column` as often as its digit says
        running = running * bucket % modulus
        column = column * running % modulus
    return column
