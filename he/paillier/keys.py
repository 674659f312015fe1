"""Paillier keys: their generation, their checks, their encodings. What does not belong here: encryption,
shares of a threshold key.

Keys meet the conditions of Damgard, Jurik and Nielsen (DJN; Int. J. Inf. Secur. 9, 2010, section 4.2): p =
q = 3 modulo 4, gcd(p - 1, q - 1) = 2, and h = -x^2 for a random x, so that h^n generates the n-th residues
of Jacobi symbol 1 and a randomiser's exponent needs half the modulus' length only.
"""

import hashlib
from dataclasses import dataclass, field

import gmpy2

from he.paillier.primes import blum_prime, safe_prime
from he.paillier.workers import spread
from protocols.codec import BigInt, Record
from protocols.errors import Misuse
from protocols.randomness import SecureRandom, SystemRandom, below

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
