"""Randomness for audits: repeatable, and it remembers what it gave, so that an audit can look for it elsewhere."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from typing import Any

from protocols.audit.standing_in import Same, standing_in


class ReplayRandom:
    """SHAKE-256 of a seed as a stream. Equal seeds give equal bytes. `given` holds every draw of 16 bytes or more."""

    def __init__(self, seed: int) -> None:
        self._seed = hashlib.sha256(str(seed).encode()).digest()
        self._count = 0
        self.given: list[bytes] = []

    def __repr__(self) -> str:
        return f"ReplayRandom({self._count} draws)"

    def bytes(self, count: int) -> bytes:
        self._count += 1
        drawn = hashlib.shake_256(self._seed + self._count.to_bytes(8, "big")).digest(count)
        if count >= 16:
            self.given.append(drawn)
        return drawn


_ORIGINAL = os.urandom
_SOURCES: list[Any] = []
"""What is supplied now, the innermost last."""


def _drawn(count: int) -> bytes:
    source = _SOURCES[-1] if _SOURCES else None
    made: bytes = _ORIGINAL(count) if source is None else source.bytes(count)
    return made


@contextlib.contextmanager
def supplied(source: Any) -> Iterator[None]:
    """Give `source.bytes` in the place of the operating system's randomness: os.urandom and what draws from it
    (`secrets`, random.SystemRandom, uuid). A library's own source, such as OpenSSL's, stays what it is.

    None: the operating system's own again. Around many calls it saves each of them the search for who holds os.urandom.
    """
    outer = len(_SOURCES)
    with (
        contextlib.nullcontext()
        if outer
        else standing_in({Same(_ORIGINAL): _drawn}, ("posix", __name__).__contains__)
    ):
        try:
            _SOURCES.append(source)
            yield
        finally:
            del _SOURCES[outer:]
