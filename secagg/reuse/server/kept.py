"""What the server keeps of a client's deposit until the round is over. What does not belong here: opening
it.
"""

from dataclasses import dataclass

from secagg.messages import DIGEST_BYTES
from secagg.server.base import Input


@dataclass(frozen=True, eq=False)
class Kept(Input):
    """A deposit without its vector. rows: how many holders it entrusts shares to."""

    boxes: bytes
    digests: bytes
    pledges: bytes
    rows: int

    @property
    def secrets(self) -> int:
        """Its seed (place 0) and its edges, by ascending neighbour."""
        return len(self.pledges) // 32

    def box(self, row: int) -> bytes:
        """What was sealed for the holder in a row."""
        size = len(self.boxes) // self.rows
        return self.boxes[size * row : size * (row + 1)]

    def digest(self, row: int, place: int) -> bytes:
        """The digest of the share of one secret that was dealt to the holder in a row."""
        start = DIGEST_BYTES * (row * self.secrets + place)
        return self.digests[start : start + DIGEST_BYTES]

    def pledge(self, place: int) -> bytes:
        """The digest of one secret (32 bytes)."""
        return self.pledges[32 * place : 32 * place + 32]
