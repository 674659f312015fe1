"""Which ring, scale and limbs a session uses: the fewest ciphertext bytes for which the rounded sum is exact.

What does not belong here: keys, ciphertexts. Everything is derived from public facts (clients, dimension,
bound, modulus, arrangement), so every party derives it again and refuses a session that says otherwise. The
proofs are in docs/ckks.md; in short, with

    n clients, |digit| <= beta, error coefficients |e| <= 21, ternary u and s, k0 and k1 dropped low bits of
    the two halves: V = 21 (1 + 2N) (public key) or 21 (symmetric), plus 2^(k0-1) + N 2^(k1-1) for what was
    dropped, the phase of a sum is  scale x digit sum + noise  with |noise| <= n V,

rounding is exact if 2 n V < scale and nothing wraps if (2 n beta + 1) scale <= q.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from he.roles.scheme import parameters
from protocols.codec import Record
from protocols.errors import CapacityError
from protocols.session import Session


def is_prime(n: int) -> bool:
    """GMP's test (Baillie-PSW), which no composite below 2^64 passes. Loaded late: SEAL is what a user misses first."""
    import gmpy2

    return bool(gmpy2.is_prime(n))


@lru_cache(maxsize=1024)
def ntt_prime(degree: int, bits: int) -> int:
    """Return the largest prime q < 2^bits with q = 1 mod 2 degree and exactly `bits` bits, or 0 if there is
    none.
    """
    step = 2 * degree
    q = ((1 << bits) - 1) // step * step + 1
    while q >> (bits - 1):
        if q >> bits == 0 and is_prime(q):
            return q
        q -= step
    return 0


TABLE_128 = {1024: 27, 2048: 54, 4096: 109, 8192: 218}
"""Largest log2 q for 128 bits of security against classical attacks with ternary secrets (Albrecht et al.,
HomomorphicEncryption.org security standard, 2018, table 1). SEAL enforces the same numbers."""
ERROR_BOUND = 21
"""SEAL's errors are differences of two 21-bit Hamming weights: |e| <= 21, sub-Gaussian with variance proxy
10.5.
"""
ERROR_PROXY, TERNARY_PROXY = 10.5, 2 / 3
MAX_PRIME_BITS = 60
MAX_CLIENTS = 1 << 20
CHECK_BITS = 80
FAILURE_BITS = 128
_MAX_LIMBS = 8


@dataclass(frozen=True)
class CKKSParameters(Record):
    """The public parameters of one session.

    degree: N. modulus: the prime q. scale: what one unit is multiplied by. limbs, limb_bits: a value is
    `limbs` balanced digits in base 2^limb_bits. digit_bound: largest |digit|. dropped: low bits left out of
    the two halves of a ciphertext. checks: words of a check value. noise: largest |noise| of one client's part
    (in the worst case), or 0 where `sum_noise` holds with failure under 2^-128 for all clients together.
    symmetric: ciphertexts are seeded.
    """

    degree: int
    modulus: int
    scale: int
    limbs: int
    limb_bits: int
    digit_bound: int
    dropped: tuple[int, int]
    checks: int
    noise: int
    sum_noise: int
    symmetric: bool
    dimension: int

    @property
    def coefficients(self) -> int:
        """Coefficients in use: the limbs of every value."""
        return self.limbs * self.dimension

    @property
    def ciphertexts(self) -> int:
        return -(-self.coefficients // self.degree)

    @property
    def widths(self) -> tuple[int, int]:
        """Bits per coefficient of the two halves on the wire."""
        bits = self.modulus.bit_length()
        return bits - self.dropped[0], bits - self.dropped[1]

    @property
    def upload_bits(self) -> int:
        """Ciphertext bits of one client: the first half is cut after the last coefficient in use, a seed
        replaces the second.
        """
        second = 512 * self.ciphertexts if self.symmetric else self.widths[1] * self.ciphertexts * self.degree
        return self.widths[0] * self.coefficients + second

    @property
    def worst_case(self) -> bool:
        return self.noise > 0


def scheme(session: Session) -> CKKSParameters:
    """Return CKKS's part of a session's parameters. Raises WireError if it does not decode."""
    return CKKSParameters.decode(parameters(session).scheme)


@lru_cache(maxsize=256)
def choose(clients: int, dimension: int, bound: int, symmetric: bool) -> CKKSParameters:
    """Return the parameters with the fewest upload bits for `clients` vectors of `dimension` values in
    [-bound, bound].

    Every number of limbs is tried: with the worst-case bound where any ring carries it, else with the
    statistical one. Raises CapacityError if nothing fits.
    """
    if clients > MAX_CLIENTS:
        raise CapacityError(f"expected at most {MAX_CLIENTS} clients, got {clients}")
    fits: list[CKKSParameters] = []
    for limbs in range(1, min(_MAX_LIMBS, bound.bit_length() + 1) + 1):
        width, digit = digits(bound, limbs)
        checks = _checks(clients, digit)
        base = CKKSParameters(0, 0, 0, limbs, width, digit, (0, 0), checks, 0, 0, symmetric, dimension)
        found = _fewest(_candidates(base, clients, worst_case=True))
        fits += found or _fewest(_candidates(base, clients, worst_case=False))
    if not fits:
        raise CapacityError(
            f"no CKKS parameters of 128 bits carry {clients} clients x bound {bound}: use fewer clients or bits"
        )
    return _fewest(fits)[0]


def _fewest(candidates: Iterable[CKKSParameters]) -> list[CKKSParameters]:
    """Return the one with the fewest upload bits, if there is any."""
    found = min(candidates, key=lambda p: (p.upload_bits, p.limbs, p.degree), default=None)
    return [] if found is None else [found]


def digits(bound: int, limbs: int) -> tuple[int, int]:
    """Return (bits per limb, largest |digit|) for values in [-bound, bound] as balanced digits; at least
    one bit.
    """
    if limbs == 1:
        return 64, max(1, bound)
    width = -(-(bound.bit_length() + 1) // limbs)
    return width, max(1 << (width - 1), (bound >> (width * (limbs - 1))) + 1)


def _checks(clients: int, digit_bound: int) -> int:
    """Words of a check value: each finds a change of a sum but with probability 2^-(64 - k), see
    `he.ckks.coefficients`.
    """
    k = (4 * clients * digit_bound).bit_length()
    return -(-CHECK_BITS // max(1, 64 - k))


def _candidates(base: CKKSParameters, clients: int, *, worst_case: bool) -> Iterator[CKKSParameters]:
    """Yield the parameters in every ring, with every prime and number of dropped bits, for which rounding is exact.

    base: what the limbs decide; the rest is replaced.
    """
    for degree in TABLE_128:
        for bits in range(degree.bit_length() + 1, min(TABLE_128[degree], MAX_PRIME_BITS) + 1):
            yield from _with_prime(replace(base, degree=degree), clients, bits, worst_case)


def _with_prime(base: CKKSParameters, clients: int, bits: int, worst_case: bool) -> Iterator[CKKSParameters]:
    degree, q, fresh = base.degree, ntt_prime(base.degree, bits), _fresh_noise(base, clients, worst_case)
    scale = q // (2 * clients * base.digit_bound + 1)
    room = (scale - 1) // 2 - fresh
    if not q or room < 0:
        return
    for k1 in range(1 if base.symmetric else bits):
        left = room // clients - degree * _half(k1)
        if left < 0:
            break
        k0 = min(left.bit_length(), bits - 1)
        if not _fits_words(bits - k1, k1, clients):
            continue
        if not _fits_words(bits - k0, k0, clients):
            k0 = 0
        total = fresh + clients * (_half(k0) + degree * _half(k1))
        noise = total // clients if worst_case else 0
        yield replace(base, modulus=q, scale=scale, dropped=(k0, k1), noise=noise, sum_noise=total)


def _fits_words(width: int, dropped: int, clients: int) -> bool:
    """True if the server can add all clients' words in 64 bits: whole residues it reduces, shortened ones
    it cannot.
    """
    return not dropped or width + clients.bit_length() <= 63


def _half(k: int) -> int:
    """Largest error of leaving out k low bits and putting their middle back."""
    return 1 << (k - 1) if k else 0


def _fresh_noise(p: CKKSParameters, clients: int, worst_case: bool) -> int:
    """Bound on |noise| of a coefficient of a sum of fresh ciphertexts: certain, or in all coefficients but
    with probability 2^-128.

    Statistical: given s and the key's error e, the noise of n ciphertexts is a sum of independent sub-
    Gaussian terms with proxies 10.5 (e0), 10.5 |s|^2 <= 10.5 N (e1 s) and 2/3 |e|^2 (e u), so P(|x| > t) <=
    2 exp(-t^2 / 2 proxy); |e|^2 <= 10.5 (N + 2 sqrt(N c) + 2c) but with probability e^-c (Hsu, Kakade,
    Zhang 2012, theorem 1). Half of 2^-128 goes to each, by a union bound over all coefficients.
    """
    if worst_case:
        return clients * ERROR_BOUND * (1 if p.symmetric else 1 + 2 * p.degree)
    proxy = ERROR_PROXY
    if not p.symmetric:
        c = (FAILURE_BITS + 1) * math.log(2)
        key_error = ERROR_PROXY * (p.degree + 2 * math.sqrt(p.degree * c) + 2 * c)
        proxy += ERROR_PROXY * p.degree + TERNARY_PROXY * key_error
    tail = (FAILURE_BITS + 2) * math.log(2) + math.log(p.ciphertexts * p.degree)
    return math.ceil(math.sqrt(2 * clients * proxy * tail) * (1 + 2**-20))
