"""A session: one secure sum, its public configuration and the context hash that binds everything to it.

What does not belong here: secrets, states. The context enters every mask seed, key derivation and associated
data. Each client computes it for itself from what it saw, so that clients who were sent different models,
rosters or configurations never unmask together (model inconsistency: Pasquini et al., CCS 2022).
"""

import functools
import hashlib
from dataclasses import dataclass

from protocols.codec import BigInt, Record
from protocols.errors import CapacityError, Misuse

DOMAIN = b"secagg session v1\0"
INT64_MAX = (1 << 63) - 1


@dataclass(frozen=True)
class Session(Record):
    """The public facts of one secure sum.

    protocol: name and version ("secagg+/2"). parameters: the protocol's own parameter record, encoded.
    roster: the clients' names in the order of their indices, distinct. dimension: coordinates, >= 1.
    bound: every client's every coordinate lies in [-bound, bound], >= 0. modulus: 0 for a sum over Z, else M
    >= 2: the sum is taken in Z_M and given by representatives in [-M/2, M/2). round: counts from 1. model:
    SHA-256 of the exact broadcast model and of whatever else every client was shown (32 bytes). nonce: 16
    fresh bytes of the server; a retry is a new session. simulated: randomness other than the operating
    system's may be used; no production party joins such a session.
    min_survivors: a total over fewer clients is never opened; server, clients and holders all enforce it.
    """

    protocol: str
    parameters: bytes
    roster: tuple[str, ...]
    dimension: int
    bound: int
    modulus: BigInt
    round: int
    model: bytes
    nonce: bytes
    simulated: bool
    min_survivors: int = 1

    def __post_init__(self) -> None:
        if not self.roster or len(set(self.roster)) != len(self.roster):
            raise Misuse("expected a roster of distinct names, at least one")
        if self.dimension < 1 or self.bound < 0 or self.round < 0:
            raise Misuse(
                f"expected dimension >= 1, bound >= 0, round >= 0; got {self.dimension}, {self.bound}, {self.round}"
            )
        if self.modulus < 0 or self.modulus == 1 or self.modulus > 1 << 64:
            raise Misuse(f"expected modulus 0 (a sum over Z) or from 2 to 2^64, got {self.modulus}")
        if self.modulus > 1 << 62 and self.modulus & (self.modulus - 1):
            raise Misuse(
                f"expected a modulus of at most 2^62, or a power of two up to 2^64, got {self.modulus}"
            )
        if not 1 <= self.min_survivors <= len(self.roster):
            raise Misuse(
                f"expected min_survivors from 1 to {len(self.roster)} clients, got {self.min_survivors}"
            )
        if len(self.model) != 32 or len(self.nonce) != 16:
            raise Misuse("expected a model digest of 32 bytes and a nonce of 16")
        if not self.modulus and len(self.roster) * self.bound > INT64_MAX:
            raise CapacityError(
                f"{len(self.roster)} clients x bound {self.bound} exceeds 2^63 - 1: "
                "use fewer bits or a smaller weight cap"
            )

    @property
    def clients(self) -> int:
        return len(self.roster)

    @property
    def sum_bound(self) -> int:
        """Largest absolute value of a coordinate of the sum over Z."""
        return self.clients * self.bound

    def ring_bits(self) -> int:
        """Width b of the smallest ring Z_(2^b) that carries the sum: 2^b > 2 x sum_bound over Z; 2^b = M over
        Z_M.

        Raises CapacityError when M is not a power of two: masks sum in Z_(2^b) only.
        """
        if not self.modulus:
            return max(1, (2 * self.sum_bound).bit_length())
        if self.modulus & (self.modulus - 1):
            raise CapacityError(f"expected a power of two as modulus for this protocol, got {self.modulus}")
        return self.modulus.bit_length() - 1

    @functools.cached_property
    def context(self) -> bytes:
        """SHA-256 over the canonical encoding of everything above (32 bytes)."""
        return hashlib.sha256(DOMAIN + self.encode()).digest()
