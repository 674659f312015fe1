"""What the server keeps of a client's deposit until the round is over. What does not belong here: opening
it.
"""

from dataclasses import dataclass

import numpy as np

from protocols.codec import Record
from secagg.messages import DIGEST_BYTES, Indices


@dataclass(frozen=True, eq=False)
class Kept(Record):
    """A deposit without its vector and signature."""

    neighbours: Indices
    holders: Indices
    boxes: bytes
    digests: bytes
    pledges: bytes

    def box(self, holder: int) -> bytes:
        """What was sealed for a holder."""
        size, at = len(self.boxes) // len(self.holders), self.holders.tolist().index(holder)
        return self.boxes[size * at : size * (at + 1)]

    def place(self, peer: int) -> int:
        """The place of an edge among this client's secrets (its own seed is at 0); -1 if it has no such
        edge.
        """
        at = int(np.searchsorted(self.neighbours, peer))
        return 1 + at if at < len(self.neighbours) and self.neighbours[at] == peer else -1

    def digest(self, holder: int, place: int) -> bytes:
        """The digest of the share of one secret that was dealt to a holder; empty if there is none."""
        at = int(np.searchsorted(self.holders, holder))
        if place < 0 or at == len(self.holders) or self.holders[at] != holder:
            return b""
        start = DIGEST_BYTES * (at * (1 + len(self.neighbours)) + place)
        return self.digests[start : start + DIGEST_BYTES]

    def pledge(self, place: int) -> bytes:
        """The digest of one secret (32 bytes)."""
        return self.pledges[32 * place : 32 * place + 32]
