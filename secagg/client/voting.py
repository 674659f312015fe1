"""State of a client that votes before it opens: the server shows it who survived, and it signs that once, with the
graph and the dealers that it masked with.

The server may ask it to open though it has not voted: the votes of others may be enough. What does not belong here:
opening.
"""

from dataclasses import dataclass, field

from protocols.agreement import Vote
from protocols.kernel import Message, Step
from protocols.randomness import SecureRandom
from secagg.client.opening import Opening
from secagg.messages import CONFIRM, UNMASK, Survivors


@dataclass(frozen=True, eq=False)
class Voting(Opening):
    """Waits for the survivors, or for the request to unmask. sign: the key that signs."""

    TAG = 20
    STAGE = CONFIRM

    sign: bytes = field(repr=False)

    def receive(self, request: Message, random: SecureRandom) -> Step:
        after = Opening(self.session, self.index, self.shown, self.held)
        if request.stage == UNMASK:
            return after.receive(request, random)
        told = self.take(Survivors, request)
        self.survivors(told.bits)
        ballot = self.shown.vote(self.session, told.bits, self.sign)
        return Step(after, self.answer(Vote(ballot.signature)), marks=(ballot.mark,))
