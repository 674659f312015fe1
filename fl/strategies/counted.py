"""A choice that stays hidden inside sums: clients are counted by what they chose, then send by the choice that was
counted, and only what enough of them chose. All who send were counted, and nobody who was counted is left out: or a
server could ask one client of a choice with others in the place of its fellows. Who was counted each knows of itself
alone, by the server's word. What does not belong here: what is chosen, and what for (`ifca`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocols.errors import PolicyRefusal, refuse
from protocols.layers import RoundFacts, Value
from protocols.party_state import PartyState

COUNTS, CHOICE, ASKED, NONE = "counts", "choice", "asked", -1


@dataclass(frozen=True)
class CountedChoice:
    """name: of the strategy. choices: how many there are. least: fewest clients of a choice that send. Counts are of
    every choice, and of those who have none, last.
    """

    name: str
    choices: int
    least: int

    def of(self, facts: RoundFacts, choose: Callable[[], int | None]) -> int | None:
        """Return a client's choice, as it was counted; None where it has none, or too few others chose it. choose:
        asked in the round that counts alone: a second look at the data may choose otherwise. Raises ProtocolViolation
        for counts that are not of the round's clients, PolicyRefusal where this client or another was not counted.
        """
        state, public = PartyState.of(facts, self.name), facts.public.get(self.name, {})
        if COUNTS not in public:
            chosen = choose()
            asked = np.frombuffer("\0".join(facts.clients).encode(), np.uint8)
            state.keep({CHOICE: np.array(NONE if chosen is None else chosen), ASKED: asked})
            return chosen
        counts, choice = self._possible(public, len(facts.clients)), self._kept(state, facts)
        state.keep({})
        return choice if choice != NONE and counts[choice] >= self.least else None

    def _kept(self, state: PartyState, facts: RoundFacts) -> int:
        kept = state.arrays()
        counted = state.closed == facts.number - 1 and CHOICE in kept
        if not counted or set(facts.clients) - set(bytes(kept[ASKED]).decode().split("\0")):
            raise PolicyRefusal(
                f"{self.name}: this client sends by its choice beside those who were counted with it, and the server "
                "asks it, or others, who were not"
            )
        return int(kept[CHOICE])

    def sending(self, public: Mapping[str, Value], clients: int) -> int:
        """Return the fewest survivors of a round of so many clients with which no choice has fewer than `least`."""
        if COUNTS not in public:
            return self.least
        sizes = [size for size in np.atleast_1d(public[COUNTS])[:-1] if size >= self.least]
        return clients - int(min(sizes, default=clients) - self.least) if sizes else 1

    def _possible(self, public: Mapping[str, Value], clients: int) -> NDArray[np.float64]:
        """Return the counts that the server shows."""
        counts = np.atleast_1d(public[COUNTS])
        whole = counts.shape == (self.choices + 1,) and bool((counts == np.floor(np.abs(counts))).all())
        if not whole or counts.sum() != clients:
            raise refuse(
                f"{self.name}: expected how many of these {clients} clients chose each of {self.choices} models, or "
                "none, and the server shows numbers that cannot be"
            )
        return counts
