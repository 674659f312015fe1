"""Primes that SEAL can transform with: the largest of a given size that is 1 modulo 2N. Nothing else
belongs here.

Every party derives the parameters for itself, the server included, which needs no SEAL for it.
"""

from functools import lru_cache

_WITNESSES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)


def is_prime(n: int) -> bool:
    """Miller-Rabin with the bases that decide every n < 3.3e24 (Sorenson and Webster 2015)."""
    if n < 2 or any(n % p == 0 for p in _WITNESSES):
        return n in _WITNESSES
    twos = ((n - 1) & (1 - n)).bit_length() - 1
    odd = (n - 1) >> twos
    return all(_passes(n, pow(a, odd, n), twos) for a in _WITNESSES)


def _passes(n: int, x: int, twos: int) -> bool:
    if x in (1, n - 1):
        return True
    for _ in range(twos - 1):
        x = x * x % n
        if x == n - 1:
            return True
    return False


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
