"""Paillier keys: their primes, their generation, their checks, their encodings. What does not belong here: encryption,
shares of a threshold key.

Keys meet the conditions of Damgard, Jurik and Nielsen (DJN; Int. J. Inf. Secur. 9, 2010, section 4.2): p =
q = 3 modulo 4, gcd(p - 1, q - 1) = 2, and h = -x^2 for a random x, so that h^n generates the n-th residues
of Jacobi symbol 1 and a randomiser's exponent needs half the modulus' length only.
"""

import functools
import hashlib
from dataclasses import dataclass, field

import gmpy2
import numpy as np
from gmpy2 import mpz
from numpy.typing import NDArray

from he.paillier.workers import releasing_gil, spread
from protocols.codec import BigInt, Record
from protocols.errors import Misuse, require
from protocols.randomness import SecureRandom, SystemRandom, below

ROUNDS = 40  # beyond Baillie-PSW, for which no composite is known
_SIEVE_LIMIT = 1 << 20
_SIEVE_LENGTH = 1 << 17


def blum_prime(bits: int, random: SecureRandom) -> mpz:
    """Return a uniform prime of exactly `bits` bits, the upper two set, congruent to 3 modulo 4."""
    small = gmpy2.primorial(2000)
    with releasing_gil():
        while True:
            candidate = _odd_with_top_bits(bits, random) | 2
            if gmpy2.gcd(candidate, small) == 1 and _fermat(candidate) and gmpy2.is_prime(candidate, ROUNDS):
                return candidate


def safe_prime(bits: int, random: SecureRandom) -> mpz:
    """Return a prime p = 2p' + 1 of exactly `bits` >= 64 bits, the upper two set, p' prime: the first after
    random starts.

    For 768 to 1536 bits this takes seconds: a sieve removes candidates whose p or p' has a small factor,
    then one Fermat test each, and GMP's full test on what is left.
    """
    require(bits >= 64, "a safe prime of at least 64 bits", bits)
    with releasing_gil():
        while True:
            start = _odd_with_top_bits(bits - 1, random)
            start += (5 - start) % 6  # p' = 5 modulo 6, or 3 would divide p' or 2p' + 1
            for step in np.flatnonzero(_sieve(start)):
                half = start + 6 * int(step)
                p = 2 * half + 1
                if _fermat(half) and _fermat(p) and _is_safe(p, half) and p.bit_length() == bits:
                    return p


def is_safe_prime(p: mpz) -> bool:
    """True if p and (p - 1) / 2 are prime."""
    return _is_safe(mpz(p), mpz(p) >> 1)


def _is_safe(p: mpz, half: mpz) -> bool:
    return bool(gmpy2.is_prime(half, ROUNDS) and gmpy2.is_prime(p, ROUNDS))


def _fermat(candidate: mpz) -> bool:
    return bool(gmpy2.powmod(2, candidate - 1, candidate) == 1)


def _odd_with_top_bits(bits: int, random: SecureRandom) -> mpz:
    value = int.from_bytes(random.bytes((bits + 7) // 8), "big") >> (-bits % 8)
    return mpz(value | 3 << (bits - 2) | 1)


def _sieve(start: mpz) -> NDArray[np.bool_]:
    """Mark the k for which neither start + 6k nor 2 (start + 6k) + 1 has a prime factor from 5 to the
    limit.
    """
    open_ = np.ones(_SIEVE_LENGTH, np.bool_)
    for q, inverse in _small_primes():
        residue = int(start % q)
        open_[-residue * inverse % q :: q] = False
        open_[((q - 1) // 2 - residue) * inverse % q :: q] = False
    return open_


@functools.cache
def _small_primes() -> list[tuple[int, int]]:
    """The primes q from 5 below the limit, each with the inverse of 6 modulo q."""
    sieve = np.ones(_SIEVE_LIMIT, np.bool_)
    sieve[:2] = False
    for q in range(2, int(_SIEVE_LIMIT**0.5) + 1):
        if sieve[q]:
            sieve[q * q :: q] = False
    return [(q, pow(6, -1, q)) for q in np.flatnonzero(sieve).tolist() if q >= 5]


DEFAULT_BITS = 3072
LEAST_BITS = 2048  # 112 bits of security; 3072 gives 128 (NIST SP 800-57 part 1, table 2)
MOST_BITS = 15360


@dataclass(frozen=True)
class PublicKey(Record):
    """A modulus n and the base h of DJN's randomisers; h is None for a key made elsewhere (phe), which
    gives no such base.

    Raises Misuse for a modulus of fewer than 2048 bits, or numbers that cannot be a key.
    """

    n: BigInt
    h: BigInt | None = None

    def __post_init__(self) -> None:
        if not LEAST_BITS <= self.bits <= MOST_BITS:
            raise Misuse(f"expected a modulus of {LEAST_BITS} to {MOST_BITS} bits, got {self.bits}")
        if self.n <= 0 or self.n % 2 == 0:
            raise Misuse("expected an odd positive modulus")
        if self.h is not None and not (1 < self.h < self.n - 1 and gmpy2.gcd(self.h, self.n) == 1):
            raise Misuse("expected a base h prime to the modulus, neither 1 nor -1")

    @property
    def bits(self) -> int:
        return int(self.n).bit_length()

    @property
    def ciphertext_bytes(self) -> int:
        """Bytes of one ciphertext: an integer modulo n^2, in full width."""
        return (2 * self.bits + 7) // 8

    @property
    def residue_bytes(self) -> int:
        """Bytes of an integer modulo n, in full width."""
        return (self.bits + 7) // 8

    @property
    def digest(self) -> bytes:
        """SHA-256 of the encoding (32 bytes): what names this key."""
        return hashlib.sha256(b"paillier public key v1\0" + self.encode()).digest()


@dataclass(frozen=True)
class SecretKey(Record):
    """The factors of a public key's modulus. Its repr shows the public key only. Raises Misuse if they do
    not fit.
    """

    public: PublicKey
    p: BigInt = field(repr=False)
    q: BigInt = field(repr=False)

    def __post_init__(self) -> None:
        if self.p * self.q != self.public.n or self.p == self.q or min(self.p, self.q) < 3:
            raise Misuse("expected two different factors of the modulus; these are not")


def generate(
    bits: int = DEFAULT_BITS, *, safe: bool = False, random: SecureRandom | None = None
) -> SecretKey:
    """Return a new key; with `safe` its factors are safe primes, as threshold decryption needs (a few
    seconds at 3072 bits).

    bits: even, 2048 or more. random: the operating system's generator unless a test gives another. Raises
    Misuse.
    """
    if bits % 2 or not LEAST_BITS <= bits <= MOST_BITS:
        raise Misuse(f"expected an even key length of {LEAST_BITS} to {MOST_BITS} bits, got {bits}")
    random = random or SystemRandom()
    make = safe_prime if safe else blum_prime
    while True:
        p, q = spread(lambda share: [make(bits // 2, random) for _ in share], [0, 1], least=1)
        # Upper bits set give n its full length; primes of one length give gcd(n, (p-1)(q-1)) = 1.
        if p != q and gmpy2.gcd(p - 1, q - 1) == 2:
            break
    n = int(p * q)
    return SecretKey(PublicKey(BigInt(n), BigInt(_base(n, random))), BigInt(p), BigInt(q))


def _base(n: int, random: SecureRandom) -> int:
    """Return h = -x^2 modulo n for a uniform unit x (DJN, section 4.2)."""
    while True:
        x = below(random, n)
        if x > 1 and gmpy2.gcd(x, n) == 1:
            return -x * x % n
