"""Second state, where the graph is fixed by commit and reveal: everybody's commitments come, the client's
own part goes.

The client reveals once, to one list of commitments that has its own; so the seed is fixed by values that were
all chosen before its part was known to anybody. The others' commitments are not certified here, but those of its
neighbours are compared later (`sharing`). A server that shows different lists makes clients disagree: the seed they
sign has the list in it.
"""

from dataclasses import dataclass

from protocols.errors import refuse
from protocols.kernel import Message, Step
from protocols.randomness import SecureRandom
from secagg.client.base import expect_threshold
from secagg.client.keys import Holding
from secagg.client.sharing import Sharing
from secagg.commitments import part_commitment
from secagg.messages import REVEAL, Commitments, Reveal, listed


@dataclass(frozen=True, eq=False)
class Revealing(Holding):
    """Waits for the commitments."""

    TAG = 17
    STAGE = REVEAL

    def receive(self, request: Message, random: SecureRandom) -> Step:
        committed = self.take(Commitments, request)
        self._check(committed)
        return Step(Sharing(*self.after("part"), committed), self.answer(Reveal(self.keys.part)))

    def _check(self, committed: Commitments) -> None:
        by_client = listed(committed.clients, committed.commitments)
        if by_client.get(self.index) != part_commitment(self.session.context, self.index, self.keys.part):
            raise refuse("the list of commitments does not have this client's own")
        if max(by_client) >= self.session.clients:
            raise refuse(f"a commitment of client {max(by_client)}, who is not on the roster")
        expect_threshold("commitments", len(by_client) - 1, self.rules)
