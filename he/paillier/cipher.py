"""Encryption, addition and decryption of vectors of Paillier plaintexts, and their bytes. What does not
belong here: slots, keys.

Plaintexts are integers modulo n, given by representatives in (-n/2, n/2). A vector of ciphertexts is one
byte string of full-width big-endian integers modulo n^2, so that its length is known before anything is
read.
"""

from collections.abc import Iterable, Sequence

import gmpy2
from gmpy2 import mpz

from he.paillier.keys import PublicKey, SecretKey
from he.paillier.randomisers import Randomiser, Randomisers
from he.paillier.workers import spread
from protocols.errors import WireError
from protocols.randomness import SecureRandom


def encrypt(plaintexts: Sequence[int], source: Randomisers, random: SecureRandom) -> bytes:
    """Return the ciphertexts (1 + m n) r modulo n^2, each with a randomiser of its own; any integers are
    taken modulo n.
    """
    return encrypt_knowing(plaintexts, source, random)[0]


def encrypt_knowing(
    plaintexts: Sequence[int], source: Randomisers, random: SecureRandom
) -> tuple[bytes, list[bytes]]:
    """Return the ciphertexts and the randomisers' exponents, secret, which a proof of knowledge takes."""
    n, n2, size = mpz(source.public.n), source.n2, source.public.ciphertext_bytes
    randomisers = source.take(len(plaintexts), random)

    def blind(share: Sequence[tuple[int, Randomiser]]) -> list[bytes]:
        return [((1 + n * (m % n)) * r.value % n2).to_bytes(size, "big") for m, r in share]

    parts: list[bytes] = spread(blind, list(zip(plaintexts, randomisers, strict=True)), least=64)
    return b"".join(parts), [r.exponent for r in randomisers]


def parse(data: bytes, count: int, public: PublicKey) -> list[mpz]:
    """Return `count` ciphertexts under `public`.

    Raises WireError for another length (truncated, over-long, of a key of another size) and for numbers
    that are no ciphertext under this key: not below n^2, or not prime to n.
    """
    return _units(data, count, public.ciphertext_bytes, public, ("ciphertext", "n^2", mpz(public.n) ** 2))


def _units(data: bytes, count: int, size: int, public: PublicKey, what: tuple[str, str, mpz]) -> list[mpz]:
    """Return `count` numbers prime to n. what: they are, with the name and value of their limit."""
    (name, below, limit), n, product = what, mpz(public.n), mpz(1)
    if len(data) != count * size:
        raise WireError(f"expected {count} {name}s of {size} bytes under this key, got {len(data)} bytes")
    numbers = [mpz.from_bytes(data[i : i + size], "big") for i in range(0, len(data), size)]
    for value in numbers:
        if value >= limit:
            raise WireError(f"a {name} is not below {below}: it was made under another key")
        product = product * value % n
    if gmpy2.gcd(product, n) != 1:
        raise WireError(f"a {name} is not prime to the modulus: no honest party sends that")
    return numbers


def serialise(ciphertexts: Sequence[mpz], public: PublicKey) -> bytes:
    """Return the bytes of `parse`."""
    return b"".join(c.to_bytes(public.ciphertext_bytes, "big") for c in ciphertexts)


def parse_residues(data: bytes, count: int, public: PublicKey) -> list[mpz]:
    """Return `count` units modulo n, of which `serialise_residues` made the bytes. Raises WireError for anything
    else.
    """
    return _units(data, count, public.residue_bytes, public, ("residue", "the modulus", mpz(public.n)))


def serialise_residues(values: Sequence[mpz], public: PublicKey) -> bytes:
    """Return the values modulo n in full width, end to end."""
    return b"".join(v.to_bytes(public.residue_bytes, "big") for v in values)


def add(left: Sequence[mpz], right: Sequence[mpz], public: PublicKey) -> list[mpz]:
    """Return ciphertexts of the sums of plaintexts, pairwise."""
    n2 = mpz(public.n) ** 2
    pairs = list(zip(left, right, strict=True))
    return spread(lambda share: [a * b % n2 for a, b in share], pairs, least=256)


def add_all(vectors: Iterable[Sequence[mpz]], public: PublicKey) -> list[mpz]:
    """Return ciphertexts of the sums of several vectors of plaintexts, at least one."""
    first, *others = vectors
    total = list(first)
    for vector in others:
        total = add(total, vector, public)
    return total


def centre(value: mpz, n: mpz) -> int:
    """Return the representative in (-n/2, n/2) of a residue modulo odd n."""
    return int(value - n if value > n // 2 else value)


class CrtDecryption:
    """Decryption by the Chinese remainder theorem, for whoever holds the factors (Paillier, EUROCRYPT '99,
    section 7).
    """

    def __init__(self, secret: SecretKey) -> None:
        self._n = mpz(secret.public.n)
        self._p, self._q = mpz(secret.p), mpz(secret.q)
        self._crt = gmpy2.invert(self._p, self._q)
        self._scale = {f: gmpy2.invert(self._log(1 + self._n, f), f) for f in (self._p, self._q)}

    def __repr__(self) -> str:
        return "CrtDecryption(secret)"

    def decrypt(self, ciphertexts: Sequence[mpz]) -> list[int]:
        """Return the plaintexts in (-n/2, n/2)."""
        return spread(self._decrypt_share, ciphertexts)

    def _decrypt_share(self, share: Sequence[mpz]) -> list[int]:
        return [
            self._join(*(self._log(c, f) * self._scale[f] % f for f in (self._p, self._q))) for c in share
        ]

    @staticmethod
    def _log(c: mpz, f: mpz) -> mpz:
        """Return L(c^(f-1) modulo f^2) with L(x) = (x - 1) / f."""
        f2 = f * f
        return (gmpy2.powmod(c % f2, f - 1, f2) - 1) // f

    def _join(self, at_p: mpz, at_q: mpz) -> int:
        value = at_p + self._p * ((at_q - at_p) * self._crt % self._q)
        return centre(value, self._n)
