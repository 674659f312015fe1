"""Threshold decryption: any t of n holders open a ciphertext together. What does not belong here: proofs
(`proofs`), protocol states.

In the style of Damgard and Jurik (PKC 2001, section 4): a trusted dealer, safe primes p = 2p' + 1 and q =
2q' + 1, Shamir shares of an exponent, Shoup's interpolation (EUROCRYPT 2000) with delta = n!. What is
shared is the n-th root rather than the logarithm: of c = (1 + n)^M u^n everybody sees x = c^2 modulo n =
(u^2)^n, and the shared exponent 1/n modulo m = p'q' gives u^2 (Paillier, EUROCRYPT '99, section 5, inverts
his trapdoor permutation in this way). Interpolation gives a power of it, w = u^(8 delta^2); then
c^(8 delta^2) / w^n = (1 + n)^(8 delta^2 M). Exponents and modulus are half as long as those of c^d modulo n^2,
so a holder's part takes an eighth of the time.

The shared exponent is 1/n itself, and the factor that interpolation brings is divided out of the plaintext, in the
open. It must not be divided out of the exponent: the parts of a ciphertext whose u somebody knows would then
combine to a square root of u^2 among the squares, and that with u gives the factors of n.

What becomes known is u^2 of the one ciphertext that is opened, and nothing that it and the plaintext do not
determine, so partial decryptions need no smudging noise; docs/homomorphic.md shows that it says nothing about
the ciphertexts that were added.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import gmpy2
from gmpy2 import mpz

from he.arrangements import MAX_HOLDERS, Threshold
from he.paillier.cipher import centre
from he.paillier.keys import DEFAULT_BITS, PublicKey, SecretKey, generate, is_safe_prime
from he.paillier.workers import spread
from he.roles.voting import voter
from protocols.codec import BigInt, Record
from protocols.errors import Misuse, require
from protocols.identity import KEY_BYTES
from protocols.randomness import SecureRandom, SystemRandom, below


class Mismatch(Misuse):
    """Partial decryptions that do not open the ciphertext: at least one is wrong, or of another ciphertext."""


@dataclass(frozen=True)
class ThresholdKey(Record):
    """What everybody knows: the public key, t, the dealer's name, a generator v of the squares modulo n, and
    v^(delta s_i) modulo n and a key for votes (Ed25519, 32 bytes) per holder. Raises Misuse for what cannot belong
    together.
    """

    TAG = 7

    public: PublicKey
    t: int
    dealer: str
    v: BigInt
    verification: tuple[BigInt, ...]
    votes: tuple[bytes, ...]

    def __post_init__(self) -> None:
        n = self.public.n
        if not 1 <= self.t <= self.holders <= MAX_HOLDERS:
            raise Misuse(
                f"expected 1 <= t <= holders <= {MAX_HOLDERS}, got t={self.t}, {self.holders} holders"
            )
        if len(set(self.votes)) != self.holders or any(len(key) != KEY_BYTES for key in self.votes):
            raise Misuse(
                f"expected a key of {KEY_BYTES} bytes of its own for each of {self.holders} holders' votes"
            )
        if self.public.h is None:
            raise Misuse("expected a key with a base for randomisers: what clients encrypt is proven with it")
        if any(not 1 < x < n or gmpy2.gcd(x, n) != 1 for x in (self.v, *self.verification)):
            raise Misuse("expected units modulo n as verification values")

    @property
    def holders(self) -> int:
        return len(self.verification)

    @property
    def voters(self) -> dict[int, bytes]:
        """Keys for votes, by decryptor (from 0)."""
        return dict(enumerate(self.votes))

    @property
    def delta(self) -> int:
        """holders!, which clears the denominators of interpolation."""
        return math.factorial(self.holders)

    @property
    def digest(self) -> bytes:
        """SHA-256 of the encoding (32 bytes): what names this key."""
        return hashlib.sha256(b"paillier threshold key v3\0" + self.encode()).digest()


@dataclass(frozen=True)
class KeyShare(Record):
    """Holder `index`'s (1 to n) share of the decryption exponent, and what it signs votes with (32 bytes): secret."""

    TAG = 8

    key: ThresholdKey = field(repr=False)
    index: int
    value: BigInt = field(repr=False)
    vote: bytes = field(repr=False)

    def __post_init__(self) -> None:
        require(1 <= self.index <= self.key.holders, f"a holder from 1 to {self.key.holders}", self.index)
        if not 0 <= self.value < self.key.public.n:
            raise Misuse("expected a share below n")
        if (
            len(self.vote) != KEY_BYTES
            or voter(self.vote, "decryptor").public != self.key.votes[self.index - 1]
        ):
            raise Misuse(f"expected the key for votes that was dealt to holder {self.index}")


def deal(
    arrangement: Threshold,
    bits: int = DEFAULT_BITS,
    *,
    secret: SecretKey | None = None,
    random: SecureRandom | None = None,
) -> tuple[ThresholdKey, tuple[KeyShare, ...]]:
    """Make a key and its shares: what the trusted dealer does, once, and then forgets all but the public
    part.

    secret: a key of safe primes to share, in place of a new one of `bits` (tests). Raises Misuse if its
    primes are not safe.
    """
    random = random or SystemRandom()
    secret = secret or generate(bits, safe=True, random=random)
    if not (is_safe_prime(secret.p) and is_safe_prime(secret.q)):
        raise Misuse("threshold decryption needs safe primes: make the key with generate(safe=True)")
    n, m = int(secret.public.n), (int(secret.p) >> 1) * (int(secret.q) >> 1)
    delta = math.factorial(arrangement.n)
    d = int(gmpy2.invert(n, m))
    polynomial = [d, *(below(random, m) for _ in range(arrangement.t - 1))]
    values = [sum(c * i**k for k, c in enumerate(polynomial)) % m for i in range(1, arrangement.n + 1)]
    # A random square generates the squares, of order p'q', but with probability about 2^-(bits/2 - 2).
    v = pow(below(random, n - 2) + 2, 2, n)
    verification = tuple(BigInt(int(gmpy2.powmod(v, delta * s, n))) for s in values)
    seeds = [random.bytes(KEY_BYTES) for _ in values]
    votes = tuple(voter(seed, "decryptor").public for seed in seeds)
    key = ThresholdKey(secret.public, arrangement.t, arrangement.dealer, BigInt(v), verification, votes)
    shares = enumerate(zip(values, seeds, strict=True), start=1)
    return key, tuple(KeyShare(key, i, BigInt(s), seed) for i, (s, seed) in shares)


def squares_of(ciphertexts: Sequence[mpz], n: mpz) -> list[mpz]:
    """Return what holders work on: x = c^2 modulo n, a square whose n-th root is the square of c's randomness."""
    return [c % n * (c % n) % n for c in ciphertexts]


def partial_decrypt(share: KeyShare, ciphertexts: Sequence[mpz]) -> list[mpz]:
    """Return x^(2 delta s_i) modulo n for each ciphertext."""
    n = mpz(share.key.public.n)
    exponent = mpz(2 * share.key.delta * share.value)
    return spread(
        lambda part: [gmpy2.powmod(x, exponent, n) for x in part], squares_of(ciphertexts, n), least=1
    )


def combine(
    key: ThresholdKey, ciphertexts: Sequence[mpz], partials: Mapping[int, Sequence[mpz]]
) -> list[int]:
    """Return the plaintexts in (-n/2, n/2) from t holders' partial decryptions (by index, from 1).

    Raises Misuse for another number of holders or of partial decryptions, Mismatch if they do not open the ciphertexts:
    a wrong plaintext is never returned.
    """
    if len(partials) != key.t or any(len(p) != len(ciphertexts) for p in partials.values()):
        raise Misuse(
            f"expected a partial decryption per ciphertext from exactly {key.t} holders, got {len(partials)}"
        )
    n = mpz(key.public.n)
    weights = [(2 * lagrange_at_zero(i, list(partials), key.delta), p) for i, p in partials.items()]
    factor = 8 * mpz(key.delta) ** 2
    unscale = gmpy2.invert(factor, n)

    def plaintext(at: int) -> int:
        root = math.prod(gmpy2.powmod(p[at], weight, n) for weight, p in weights) % n
        return centre(_open(ciphertexts[at], root, factor, n) * unscale % n, n)

    return spread(lambda share: [plaintext(at) for at in share], range(len(ciphertexts)), least=1)


def _open(c: mpz, root: mpz, factor: mpz, n: mpz) -> mpz:
    """Return factor M modulo n from c = (1 + n)^M u^n and root = u^factor. Raises Mismatch for another root."""
    n2 = n * n
    power, raised = gmpy2.powmod(root, n, n2), gmpy2.powmod(c, factor, n2)
    if power % n != raised % n:
        raise Mismatch("the partial decryptions do not open the ciphertext: one of them is wrong")
    return (raised * gmpy2.invert(power, n2) % n2 - 1) // n


def lagrange_at_zero(i: int, holders: Sequence[int], delta: int) -> int:
    """Return delta times the Lagrange coefficient of point i at 0, an integer."""
    top, bottom = delta, 1
    for j in holders:
        if j != i:
            top, bottom = top * -j, bottom * (i - j)
    value, rest = divmod(top, bottom)
    assert rest == 0
    return value
