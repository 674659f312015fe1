"""Inputs that started from different models: what every client of the sum is shown of all of them.

Without it a digest could only leave the model out, and a server could show a model of its own to one client. The
manifest names every version with its digest and says who started where, so that all clients agree on it, and each
checks that its own base is the one that it names. What does not belong here: buffers, when a sum is begun.
"""

import hashlib
from dataclasses import dataclass

from protocols.codec import Record
from protocols.errors import Misuse, ProtocolViolation


@dataclass(frozen=True)
class Manifest(Record):
    """Who started where. versions: name -> the model's digest. started: client -> version. staleness: client -> a
    public factor in (0, 1] on its difference (Nguyen et al., AISTATS 2022, section 3: 1 / sqrt(1 + age)).
    """

    versions: dict[str, bytes]
    started: dict[str, str]
    staleness: dict[str, float]

    def __post_init__(self) -> None:
        if self.started.keys() != self.staleness.keys():
            raise Misuse("expected a version and a factor for the same clients")
        if unknown := sorted(set(self.started.values()) - self.versions.keys()):
            raise Misuse(f"expected versions among {sorted(self.versions)}, got {unknown[0]!r}")
        if not all(0 < factor <= 1 for factor in self.staleness.values()):
            raise Misuse("expected factors in (0, 1]")

    def digest(self) -> bytes:
        """SHA-256 over all of it (32 bytes): in place of one model's digest."""
        return hashlib.sha256(b"secagg manifest v1\0" + self.encode()).digest()

    def factor(self, client: str, base: bytes) -> float:
        """Return a client's factor. Raises ProtocolViolation unless it started from the model that is named for it."""
        if self.versions[self.started[client]] != base:
            raise ProtocolViolation(
                f"the model that {client!r} was given is not the version {self.started[client]!r} of the manifest",
                "server",
            )
        return self.staleness[client]
