"""A choice that stays hidden inside sums: clients are counted by what they chose, then send by the choice that was
counted, and only what enough of them chose. What does not belong here: what is chosen, and what for (`ifca`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocols.errors import ProtocolViolation
from protocols.layers import RoundFacts, Value
from protocols.party_state import PartyState

COUNTS, CHOICE, NONE = "counts", "choice", -1


@dataclass(frozen=True)
class CountedChoice:
    """name: of the strategy. choices: how many there are. least: fewest clients of a choice that send."""

    name: str
    choices: int
    least: int

    def of(self, facts: RoundFacts, choose: Callable[[], int | None]) -> int | None:
        """Return a client's choice, as it was counted; None where it has none or was not counted, or too few others
        chose it. choose: asked in the round that counts alone: a second look at the data may choose otherwise. Raises
        ProtocolViolation for counts that the round's clients cannot have sent.
        """
        state, public = PartyState.of(facts, self.name), facts.public.get(self.name, {})
        if COUNTS not in public:
            chosen = choose()
            state.keep({CHOICE: np.array(NONE if chosen is None else chosen)})
            return chosen
        counts = self._possible(public, len(facts.clients))
        counted = state.arrays().get(CHOICE) if state.closed == facts.number - 1 else None
        state.keep({})
        choice = NONE if counted is None else int(counted)
        return choice if choice != NONE and counts[choice] >= self.least else None

    def sending(self, public: Mapping[str, Value], clients: int) -> int:
        """Return the fewest survivors of a round of so many clients with which no choice has fewer than `least`."""
        if COUNTS not in public:
            return self.least
        sizes = [size for size in np.atleast_1d(public[COUNTS]) if size >= self.least]
        return clients - int(min(sizes, default=clients) - self.least) if sizes else 1

    def _possible(self, public: Mapping[str, Value], clients: int) -> NDArray[np.float64]:
        """Return the counts that the server shows."""
        counts = np.atleast_1d(public[COUNTS])
        whole = counts.shape == (self.choices,) and bool((counts == np.floor(np.abs(counts))).all())
        if not whole or counts.sum() > clients:
            raise ProtocolViolation(
                f"{self.name}: expected how many of {clients} clients chose each of {self.choices} models, and the "
                "server shows numbers that cannot be",
                "server",
            )
        return counts
