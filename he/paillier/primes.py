"""Primes for Paillier keys. What does not belong here: keys, encryption.

Both kinds are congruent to 3 modulo 4, as Damgard, Jurik and Nielsen ask of the factors of n (Int. J. Inf.
Secur. 9, 2010, section 4.2). Candidates come from the caller's `SecureRandom`; primality is GMP's test
(Baillie-PSW and further Miller-Rabin rounds).
"""

import functools
from typing import Any

import gmpy2
import numpy as np
from numpy.typing import NDArray

from he.paillier.workers import releasing_gil
from protocols.errors import Misuse
from protocols.randomness import SecureRandom

ROUNDS = 40  # beyond Baillie-PSW, for which no composite is known
_SIEVE_LIMIT = 1 << 20
_SIEVE_LENGTH = 1 << 17


def blum_prime(bits: int, random: SecureRandom) -> Any:
    """Return a uniform prime of exactly `bits` bits, the upper two set, congruent to 3 modulo 4."""
    small = gmpy2.primorial(2000)
    with releasing_gil():
        while True:
            candidate = _odd_with_top_bits(bits, random) | 2
            if gmpy2.gcd(candidate, small) == 1 and _fermat(candidate) and gmpy2.is_prime(candidate, ROUNDS):
                return candidate


def safe_prime(bits: int, random: SecureRandom) -> Any:
    """Return a prime p = 2p' + 1 of exactly `bits` >= 64 bits, the upper two set, p' prime: the first after
    random starts.

    For 768 to 1536 bits this takes seconds: a sieve removes candidates whose p or p' has a small factor,
    then one Fermat test each, and GMP's full test on what is left.
    """
    if bits < 64:
        raise Misuse(f"expected a safe prime of at least 64 bits, got {bits}")
    with releasing_gil():
        while True:
            start = _odd_with_top_bits(bits - 1, random)
            start += (5 - start) % 6  # p' = 5 modulo 6, or 3 would divide p' or 2p' + 1
            for step in np.flatnonzero(_sieve(start)):
                half = start + 6 * int(step)
                p = 2 * half + 1
                if _fermat(half) and _fermat(p) and _is_safe(p, half) and p.bit_length() == bits:
                    return p


def is_safe_prime(p: Any) -> bool:
    """True if p and (p - 1) / 2 are prime."""
    return _is_safe(gmpy2.mpz(p), gmpy2.mpz(p) >> 1)


def _is_safe(p: Any, half: Any) -> bool:
    return bool(gmpy2.is_prime(half, ROUNDS) and gmpy2.is_prime(p, ROUNDS))


def _fermat(candidate: Any) -> bool:
    return bool(gmpy2.powmod(2, candidate - 1, candidate) == 1)


def _odd_with_top_bits(bits: int, random: SecureRandom) -> Any:
    value = int.from_bytes(random.bytes((bits + 7) // 8), "big") >> (-bits % 8)
    return gmpy2.mpz(value | 3 << (bits - 2) | 1)


def _sieve(start: Any) -> NDArray[np.bool_]:
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
