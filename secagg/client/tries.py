"""How many graphs a client lets a server draw before a masked vector leaves.

Where clients commit and reveal, a server that dislikes the graph may abort and ask for another session, or begin many
at once: nothing has left yet, so nothing is spent. Of R graphs it takes the best, which costs log2 R bits of security.
So a client begins at most `MOST_TRIES` such sessions in a row, for which plans allow (`parameters.conditions`); a
masked vector that leaves starts the count anew. It counts when it joins, not when it reveals, so that sessions side by
side count too.
"""

from dataclasses import dataclass

from protocols.codec import Record
from protocols.errors import PolicyRefusal, WireError
from secagg.parameters.conditions import MOST_TRIES


@dataclass(frozen=True)
class Tries(Record):
    """count: sessions begun since a masked vector left. A client keeps this between sessions."""

    count: int = 0

    @classmethod
    def kept(cls, memory: bytes | None) -> "Tries":
        """Return what a client kept; a new count, if it kept nothing, or keys of a set-up."""
        try:
            return cls() if memory is None else cls.decode(memory)
        except WireError:
            return cls()

    def next(self) -> "Tries":
        """Return the count with one session more. Raises PolicyRefusal if it began as many as it may."""
        if self.count >= MOST_TRIES:
            raise PolicyRefusal(
                f"tries: {self.count} sessions in a row drew a graph and were given up before any vector left: this "
                "client draws no other. Once the reason is known, whoever runs it removes the count from its store "
                "(`protocols.runtime.forget`)"
            )
        return Tries(self.count + 1)
