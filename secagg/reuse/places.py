"""Who shares what with whom in one set-up: it follows from its rules and from who enrolled, for everybody alike.

What does not belong here: keys, shares.
"""

from collections.abc import Collection
from dataclasses import dataclass

from secagg.rules import Rules


@dataclass(frozen=True)
class Places:
    """rules: of the session. enrolled: the clients whose keys the set-up has."""

    rules: Rules
    enrolled: Collection[int]

    def neighbours(self, index: int) -> list[int]:
        """With whom a client shares masks, ascending."""
        return [j for j in self.rules.neighbours(index, self.rules.seed) if j in self.enrolled]

    def holders(self, owner: int) -> list[int]:
        """Who holds shares of a client's secrets, ascending: the committee without itself."""
        return [j for j in sorted(self.rules.holders) if j in self.enrolled and j != owner]

    def peers(self, index: int) -> list[int]:
        """With whom a client exchanges sealed shares, ascending: a holder with everybody."""
        if index in self.rules.holders:
            return [j for j in sorted(self.enrolled) if j != index]
        return self.holders(index)

    def known(self, index: int) -> list[int]:
        """Whose keys a client needs, ascending."""
        return sorted({*self.neighbours(index), *self.peers(index)})
