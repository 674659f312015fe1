"""Threshold decryption after Damgard and Jurik (PKC 2001, section 4.1, with s = 1), on Shoup's method
(EUROCRYPT 2000).

A trusted dealer makes n = pq from safe primes p = 2p' + 1, q = 2q' + 1, m = p'q', and shares d (0 modulo m,
1 modulo n) by a polynomial of degree t - 1 modulo nm. Any t partial decryptions give the plaintext; fewer
are determined by it, so they need no smudging noise: an exact group element that the simulator of section
4.1 makes from the plaintext alone. Proofs are in `proofs`.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import gmpy2

from he.keys import MAX_HOLDERS, Threshold
from he.paillier.cipher import centre
from he.paillier.keys import DEFAULT_BITS, PublicKey, SecretKey, generate
from he.paillier.primes import is_safe_prime
from he.paillier.workers import spread
from protocols.codec import BigInt, Record
from protocols.errors import Misuse
from protocols.randomness import SecureRandom, SystemRandom, below


@dataclass(frozen=True)
class ThresholdKey(Record):
    """What everybody knows: the public key, t, the dealer's name, a generator v of the squares modulo n^2,
    and v^(delta s_i) per holder.

    Raises Misuse for numbers that cannot belong together.
    """

    TAG: ClassVar[int | None] = 3

    public: PublicKey
    t: int
    dealer: str
    v: BigInt
    verification: tuple[BigInt, ...]

    def __post_init__(self) -> None:
        n2 = self.public.n**2
        if not 1 <= self.t <= self.holders <= MAX_HOLDERS:
            raise Misuse(
                f"expected 1 <= t <= holders <= {MAX_HOLDERS}, got t={self.t}, {self.holders} holders"
            )
        if any(not 1 < x < n2 or gmpy2.gcd(x, self.public.n) != 1 for x in (self.v, *self.verification)):
            raise Misuse("expected units modulo n^2 as verification values")

    @property
    def holders(self) -> int:
        return len(self.verification)

    @property
    def delta(self) -> int:
        """holders!, which clears the denominators of interpolation."""
        return math.factorial(self.holders)

    @property
    def digest(self) -> bytes:
        """SHA-256 of the encoding (32 bytes): what names this key."""
        return hashlib.sha256(b"paillier threshold key v1\0" + self.encode()).digest()


@dataclass(frozen=True)
class KeyShare(Record):
    """Holder `index`'s (1 to n) share of the decryption exponent: secret."""

    TAG: ClassVar[int | None] = 4

    key: ThresholdKey = field(repr=False)
    index: int
    value: BigInt = field(repr=False)

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.key.holders:
            raise Misuse(f"expected a holder from 1 to {self.key.holders}, got {self.index}")
        if self.value < 0 or self.value >= self.key.public.n**2:
            raise Misuse("expected a share below n^2")


def deal(
    arrangement: Threshold,
    bits: int = DEFAULT_BITS,
    *,
    secret: SecretKey | None = None,
    random: SecureRandom | None = None,
) -> tuple[ThresholdKey, tuple[KeyShare, ...]]:
    """Make a key and its shares: what the trusted dealer does, once, and then forgets everything but the
    public part.

    secret: a key of safe primes to share, in place of a new one of `bits` (tests). Raises Misuse if its
    primes are not safe.
    """
    random = random or SystemRandom()
    secret = secret or generate(bits, safe=True, random=random)
    if not (is_safe_prime(secret.p) and is_safe_prime(secret.q)):
        raise Misuse("threshold decryption needs safe primes: make the key with generate(safe=True)")
    n, m = int(secret.public.n), (int(secret.p) >> 1) * (int(secret.q) >> 1)
    d = m * int(gmpy2.invert(m, n))
    polynomial = [d, *(below(random, n * m) for _ in range(arrangement.t - 1))]
    values = [_evaluate(polynomial, i, n * m) for i in range(1, arrangement.n + 1)]
    # A random square generates the cyclic group of squares, of order n m, but with probability about
    # 2^-(bits/2 - 2).
    v = pow(below(random, n - 2) + 2, 2, n * n)
    delta = math.factorial(arrangement.n)
    verification = [
        BigInt(x) for x in spread(lambda share: [_power(v, delta * s, n * n) for s in share], values, least=1)
    ]
    key = ThresholdKey(secret.public, arrangement.t, arrangement.dealer, BigInt(v), tuple(verification))
    return key, tuple(KeyShare(key, i, BigInt(s)) for i, s in enumerate(values, start=1))


def partial_decrypt(share: KeyShare, ciphertexts: Sequence[Any]) -> list[Any]:
    """Return c^(2 delta s_i) modulo n^2 for each ciphertext."""
    n2 = gmpy2.mpz(share.key.public.n) ** 2
    exponent = gmpy2.mpz(2 * share.key.delta * share.value)
    return spread(lambda part: [gmpy2.powmod(c, exponent, n2) for c in part], ciphertexts, least=1)


def combine(key: ThresholdKey, partials: Mapping[int, Sequence[Any]]) -> list[int]:
    """Return the plaintexts in (-n/2, n/2) from t holders' partial decryptions (by index, checked before).

    Raises Misuse for another number of holders, or vectors of different lengths.
    """
    if len(partials) != key.t or len({len(p) for p in partials.values()}) != 1:
        raise Misuse(
            f"expected partial decryptions of one length from exactly {key.t} holders, got {len(partials)}"
        )
    n = gmpy2.mpz(key.public.n)
    weights = [(2 * lagrange_at_zero(i, list(partials), key.delta), p) for i, p in partials.items()]
    scale = gmpy2.invert(4 * gmpy2.mpz(key.delta) ** 2, n)

    def join(positions: Sequence[int]) -> list[int]:
        return [centre(_log(_product(weights, at, n * n), n) * scale % n, n) for at in positions]

    return spread(join, range(len(next(iter(partials.values())))))


def lagrange_at_zero(i: int, holders: Sequence[int], delta: int) -> int:
    """Return delta times the Lagrange coefficient of point i at 0, an integer."""
    top, bottom = delta, 1
    for j in holders:
        if j != i:
            top, bottom = top * -j, bottom * (i - j)
    value, rest = divmod(top, bottom)
    assert rest == 0
    return value


def _product(weights: Sequence[tuple[int, Sequence[Any]]], at: int, n2: Any) -> Any:
    result = gmpy2.mpz(1)
    for weight, partials in weights:
        result = result * gmpy2.powmod(partials[at], weight, n2) % n2
    return result


def _log(x: Any, n: Any) -> Any:
    """L(x) = (x - 1) / n; any x that is not 1 modulo n comes from partial decryptions that were not
    checked.
    """
    if x % n != 1:
        raise Misuse("the partial decryptions do not belong together: check their proofs first")
    return (x - 1) // n


def _evaluate(polynomial: Sequence[int], at: int, modulus: int) -> int:
    value = 0
    for coefficient in reversed(polynomial):
        value = (value * at + coefficient) % modulus
    return value


def _power(base: int, exponent: int, modulus: int) -> int:
    return int(gmpy2.powmod(base, exponent, modulus))
