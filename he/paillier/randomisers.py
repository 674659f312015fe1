"""Powers of a fixed base, and the randomisers of Paillier ciphertexts made from them. What does not belong
here: plaintexts.

A randomiser is a uniform-looking n-th residue modulo n^2; it is the whole cost of an encryption. With a
table of the base's powers, one byte of the exponent costs one product (Brickell, Gordon, McCurley and
Wilson, EUROCRYPT '92).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import gmpy2
from gmpy2 import mpz

from he.paillier.keys import PublicKey, SecretKey
from he.paillier.workers import spread
from protocols.errors import Misuse
from protocols.randomness import SecureRandom, SystemRandom, below

LEAST_SHORT_EXPONENT = 256  # twice the 128 bits that a generic discrete-logarithm attack must cost
FOREIGN_EXTRA = 128  # exponents so much longer than n make a power statistically uniform in the base's group
_FEW = 200  # up to so many powers a table of 4-bit digits is cheaper to make and use


class FixedBase:
    """All powers of one base modulo one number, for exponents of up to `bytes_` bytes."""

    def __init__(self, base: mpz, modulus: mpz, bytes_: int, wide: bool) -> None:
        self.modulus, self.bytes, self.wide = mpz(modulus), bytes_, wide
        digits, size = (bytes_, 8) if wide else (2 * bytes_, 4)
        bases = [mpz(base) % self.modulus]
        for _ in range(digits - 1):
            bases.append(gmpy2.powmod(bases[-1], 1 << size, self.modulus))
        self._rows: list[list[mpz]] = spread(lambda share: [self._row(b, 1 << size) for b in share], bases)

    def _row(self, base: mpz, length: int) -> list[mpz]:
        row = [mpz(1), base]
        while len(row) < length:
            row.append(row[-1] * base % self.modulus)
        return row

    def power(self, exponent: bytes) -> mpz:
        """Return base^exponent; the exponent is little-endian, `bytes` long."""
        digits: Sequence[int] = exponent
        if not self.wide:
            digits = [d for byte in exponent for d in (byte & 15, byte >> 4)]
        modulus, result = self.modulus, mpz(1)
        for row, digit in zip(self._rows, digits, strict=True):
            if digit:
                result = result * row[digit] % modulus
        return result


class Randomiser(NamedTuple):
    """A randomiser modulo n^2, and the little-endian exponent of the base that gives it. Both are secret."""

    value: mpz
    exponent: bytes


@dataclass
class Randomisers:
    """The source of randomisers for one public key; each is given out once.

    public: the key. exponent_bits: None for DJN's half of the modulus' length (for a foreign key |n| +
    128); fewer, but at least 256, only by explicit choice: that rests on discrete logarithms with short
    exponents being hard (`assumption`). secret: for whoever holds the key, halves the cost by the Chinese
    remainder theorem.
    """

    public: PublicKey
    exponent_bits: int | None = None
    secret: SecretKey | None = field(default=None, repr=False)
    _tables: list[FixedBase] = field(default_factory=list, repr=False)
    _ready: list[Randomiser] = field(default_factory=list, repr=False)
    _made: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        full = self.full_bits(self.public)
        if self.exponent_bits is None:
            self.exponent_bits = full
        if not LEAST_SHORT_EXPONENT <= self.exponent_bits <= full:
            raise Misuse(
                f"expected exponents of {LEAST_SHORT_EXPONENT} to {full} bits, got {self.exponent_bits}"
            )
        if self.exponent_bits < full and self.public.h is None:
            raise Misuse(
                "expected full-length exponents for a key made elsewhere: its factors' conditions are unknown"
            )
        self.exponent_bits += -self.exponent_bits % 8
        self.n2 = mpz(self.public.n) ** 2

    @staticmethod
    def full_bits(public: PublicKey) -> int:
        """Length of an exponent that needs no assumption beyond DJN's: ceil(|n| / 2), for foreign keys |n|
        + 128.
        """
        return public.bits + FOREIGN_EXTRA if public.h is None else (public.bits + 1) // 2

    @property
    def assumption(self) -> str:
        """What the secrecy of ciphertexts rests on, with its source."""
        if self.public.h is None:
            return (
                "decisional composite residuosity (Paillier, EUROCRYPT '99) in the subgroup of a random base; "
                f"exponents {FOREIGN_EXTRA} bits longer than the modulus; "
                "the key was made elsewhere, its factors are unchecked"
            )
        text = (
            "decisional composite residuosity (Paillier, EUROCRYPT '99; "
            "Damgard, Jurik and Nielsen 2010, section 4.2)"
        )
        if self.exponent_bits is not None and self.exponent_bits < self.full_bits(self.public):
            text += (
                f"; and discrete logarithms with exponents of {self.exponent_bits} bits are hard in that group "
                "(short-exponent assumption, van Oorschot and Wiener, EUROCRYPT '96), chosen explicitly"
            )
        return text

    def prepare(self, count: int) -> None:
        """Make `count` randomisers ahead, from the operating system's generator; `take` uses them first."""
        self._ready += self._make(count, SystemRandom())

    def take(self, count: int, random: SecureRandom) -> list[Randomiser]:
        """Return `count` fresh randomisers: prepared ones first, if `random` is the system's, and new ones."""
        ready: list[Randomiser] = []
        if type(random) is SystemRandom:
            ready, self._ready = self._ready[:count], self._ready[count:]
        return ready + self._make(count - len(ready), random)

    @property
    def prepared(self) -> int:
        """How many randomisers lie ready."""
        return len(self._ready)

    def _make(self, count: int, random: SecureRandom) -> list[Randomiser]:
        if count <= 0:
            return []
        tables = self._tables_for(count)
        size = tables[0].bytes
        data = random.bytes(count * size)
        exponents = [data[i : i + size] for i in range(0, len(data), size)]
        return spread(
            lambda share: [Randomiser(self._join(*(t.power(e) for t in tables)), e) for e in share], exponents
        )

    def _tables_for(self, count: int) -> list[FixedBase]:
        self._made += count
        wide = self._made >= _FEW
        if not self._tables or (wide and not self._tables[0].wide):
            assert self.exponent_bits is not None
            base, bytes_ = self._base(), self.exponent_bits // 8
            factors = () if self.secret is None else (self.secret.p, self.secret.q)
            moduli = [mpz(f) ** 2 for f in factors] or [self.n2]
            self._tables = [FixedBase(base, modulus, bytes_, wide) for modulus in moduli]
            self._crt = gmpy2.invert(moduli[0], moduli[1]) if factors else None
        return self._tables

    def _base(self) -> mpz:
        """Return h^n modulo n^2; for a foreign key, x^n for a random x of our own (nobody else's choice can
        be trusted).
        """
        n = mpz(self.public.n)
        h = mpz(self.public.h or 0)
        while gmpy2.gcd(h, n) != 1:
            h = mpz(below(SystemRandom(), int(n)))
        return gmpy2.powmod(h, n, self.n2)

    def _join(self, at_p: mpz, at_q: mpz = None) -> mpz:
        """Chinese remainder modulo p^2 and q^2; without the factors there is one power, modulo n^2."""
        if at_q is None:
            return at_p
        p2, q2 = self._tables[0].modulus, self._tables[1].modulus
        return at_p + p2 * ((at_q - at_p) * self._crt % q2)
