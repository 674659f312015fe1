"""Randomness for audits: repeatable, and it remembers what it gave, so that an audit can look for it elsewhere."""

import hashlib


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
