"""Where secrets, masks and noise get their bytes. What does not belong here: distributions, key derivation.

Randomness is an argument of every protocol step. In production it is `SystemRandom`; anything else is
accepted only in a session that is declared simulated, which no production party joins
(`protocols.session.Session.simulated`).
"""

import os
from typing import Protocol, final, runtime_checkable

from protocols.errors import Misuse, require


@runtime_checkable
class SecureRandom(Protocol):
    """A source of independent uniform bytes."""

    def bytes(self, count: int) -> bytes:
        """Return `count` >= 0 fresh uniform bytes."""


@final
class SystemRandom:
    """The operating system's generator (getrandom(2) and its like)."""

    def bytes(self, count: int) -> bytes:
        return os.urandom(count)


def below(random: SecureRandom, limit: int) -> int:
    """Return a uniform integer in [0, limit), by rejection. Raises Misuse for limit < 1."""
    require(limit >= 1, "a limit of at least 1", limit)
    width = (limit - 1).bit_length()
    size, shift = (width + 7) // 8, -width % 8
    while True:
        value = int.from_bytes(random.bytes(size), "big") >> shift
        if value < limit:
            return value


def require_system(random: SecureRandom) -> None:
    """Refuse any source but the operating system's: what a production constructor calls. Raises Misuse."""
    if type(random) is not SystemRandom:
        raise Misuse(
            f"production parties take randomness from SystemRandom only, got {type(random).__name__}; "
            "other sources are for sessions made with simulated=True"
        )
