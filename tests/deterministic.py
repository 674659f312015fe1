"""A repeatable source of bytes for tests. It lives here only: production constructors refuse it."""

import hashlib


class DeterministicRandom:
    """SHAKE-256 of a seed, as a stream; equal seeds give equal bytes."""

    def __init__(self, seed: int) -> None:
        self._seed = seed.to_bytes(32, "big", signed=True)
        self._count = 0

    def bytes(self, count: int) -> bytes:
        self._count += 1
        return hashlib.shake_256(self._seed + self._count.to_bytes(8, "big")).digest(count)
