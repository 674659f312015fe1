"""Randomness for audits: repeatable, and it remembers what it gave, so that an audit can look for it elsewhere."""

import contextlib
import hashlib
import os
import random as _random
import sys
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch


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


@contextlib.contextmanager
def supplied(source: Any) -> Iterator[None]:
    """Give `source.bytes` in the place of the operating system's randomness: os.urandom and what draws from it
    (`secrets`, random.SystemRandom, uuid). A library's own source, such as OpenSSL's, stays what it is.
    """
    original = os.urandom

    def drawn(count: int) -> bytes:
        made: bytes = source.bytes(count)
        return made

    with contextlib.ExitStack() as stack:
        for module in list(sys.modules.values()):
            for name, value in list(getattr(module, "__dict__", {}).items()):
                if value is original and module is not sys.modules.get("posix"):
                    stack.enter_context(patch.object(module, name, drawn))
        stack.enter_context(patch.object(_random, "_urandom", drawn))
        yield
