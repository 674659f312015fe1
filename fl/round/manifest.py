"""Inputs that started from different models: what every client of the sum is shown of all of them.

Without a manifest the session's digest would have to leave the model out, and a server could show one client a model
of its own. The manifest names every version with its digest and age, and says who started where. All clients agree on
it. Before it trains, each client checks that its own base is the one that the manifest names, that enough clients
share every version, whoever leaves, that all versions are links of the run's one chain, and that factors follow age by
one public rule. What does not belong here: buffers, when a sum is begun.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from fl.round.chain import Chain
from protocols.codec import Record
from protocols.errors import Misuse, SecAggError, refuse

LEAST_ALIKE = 2
"""The fewest clients of each version in a total, unless a run demands more: its version would tell a lone one."""


@dataclass(frozen=True)
class Version(Record):
    """A model that clients started from. digest: its own. age: rounds that closed since it was the newest, >= 0."""

    digest: bytes
    age: int = 0

    @property
    def factor(self) -> float:
        """What a difference to this version counts: 1 / sqrt(1 + age) (Nguyen et al., AISTATS 2022, section 3)."""
        return 1 / math.sqrt(1 + self.age)


@dataclass(frozen=True)
class Manifest(Record):
    """Who started where. versions: by name, each model once. started: client -> version. alike: the fewest clients of
    every version in any total, >= 1. chain: the run's models so far; a version's name is its number there. A chain
    without links says nothing about earlier models. Raises Misuse for a client without a version, a model that is
    listed twice, an age below 0, and versions that are none of the chain's.
    """

    versions: dict[str, Version]
    started: dict[str, str]
    alike: int = LEAST_ALIKE
    chain: Chain = field(default_factory=Chain)

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.started.values()) - self.versions.keys()):
            raise Misuse(f"expected versions among {sorted(self.versions)}, got {unknown[0]!r}")
        models = {version.digest for version in self.versions.values()}
        if not self.chain.digests and len(models) < len(self.versions):  # a chain may come back to a model
            raise Misuse("expected every model under one name: each has one age, and one factor")
        if any(version.age < 0 for version in self.versions.values()):
            raise Misuse("expected ages from 0")
        links = {
            str(n): Version(digest, self.chain.newest - n) for n, digest in enumerate(self.chain.digests)
        }
        if links and (strange := sorted(n for n, v in self.versions.items() if links.get(n) != v)):
            raise Misuse(f"version {strange[0]!r} is no link of the chain of {len(links)} models")

    def digest(self) -> bytes:
        """SHA-256 over all of it (32 bytes): in place of one model's digest."""
        return hashlib.sha256(b"secagg manifest v3\0" + self.encode()).digest()

    def require(self, clients: Collection[str], number: int) -> None:
        """Raises Misuse unless it is of these clients and all versions are of a round before `number`."""
        if self.started.keys() != set(clients):
            raise Misuse(f"expected a manifest of {list(clients)}, got one of {sorted(self.started)}")
        for name, version in self.versions.items():
            if version.age >= number:
                raise Misuse(
                    f"version {name!r}: expected an age below {number}, the round's number, got {version.age}"
                )

    @property
    def least(self) -> int:
        """The fewest clients in a total in which `alike` of every version are left, whoever leaves."""
        fewest = min(Counter(self.started.values()).values(), default=self.alike)
        return len(self.started) - max(0, fewest - self.alike)

    def require_alike(self, alike: int = LEAST_ALIKE, error: type[SecAggError] = Misuse) -> None:
        """Raises `error` for a manifest that promises fewer than `alike` clients of every version, and for a version
        that fewer than it promises started from: a model made for a few would single them out.
        """
        starters = Counter(self.started.values())
        demanded = max(self.alike, alike)
        if few := sorted(name for name in self.versions if starters[name] < demanded):
            raise error(
                f"version {few[0]!r}: {starters[few[0]]} clients started from it, at least {demanded} must: let so "
                "many clients of a sum start from every version"
            )
        if self.alike < alike:
            raise error(
                f"the manifest keeps {self.alike} clients of a version in a total, at least {alike} must be: a model "
                "made for fewer would single them out"
            )

    def version(self, client: str) -> Version:
        """Return the version that a client started from. Raises Misuse for one that is none of them."""
        if client not in self.started:
            raise Misuse(f"expected one of the clients {sorted(self.started)}, got {client!r}")
        return self.versions[self.started[client]]

    def require_base(self, client: str, base: bytes) -> None:
        """Raises ProtocolViolation unless a client started from the model that is named for it."""
        if self.version(client).digest != base:
            raise refuse(
                f"the model that {client!r} was given is not the version {self.started[client]!r} of the manifest"
            )
