"""A key holder's state: it opens the sum of one session, once, and answers to those that the configuration names: the
server, and named clients by a sealed box each. What does not belong here: how a scheme's keys are made and shown.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar

from he.roles.messages import HOLDER, OPEN, OpenedTotal, OpenRequest, decode
from he.roles.opening import opened
from he.roles.parameters import recipients_in
from he.roles.recipients import seal_for
from he.roles.scheme import HeldKey
from protocols.kernel import SERVER, Left, Message, Party, State, Step, expect, message
from protocols.randomness import SecureRandom
from protocols.session import Session

KEY_HOLDER = Party(HOLDER)


@dataclass(frozen=True)
class HoldsKey(State):
    """Opens the sum of at least `least` clients, and forgets the session's secrets with the answer."""

    TAG: ClassVar[int | None] = 24

    session: Session
    least: int
    key: HeldKey = field(repr=False)

    def receive(self, request: Message, random: SecureRandom) -> Step:
        context = self.session.context
        expect(request, context, OPEN, "server", KEY_HOLDER)
        asked = decode(OpenRequest, request.body, "server")
        answer = opened(self.session, self.key, asked, self.least)
        if not answer.refusal:
            answer = replace(answer, boxes=self._boxes(asked, answer, random))
        sent = message(context, OPEN, KEY_HOLDER, SERVER, answer.encode())
        return Step(Left(), (sent,), marks=(f"answered/{context.hex()}",))

    def _boxes(self, asked: OpenRequest, answer: OpenedTotal, random: SecureRandom) -> dict[int, bytes]:
        """Return the total, sealed to each named client that is in it."""
        keys = {
            i: self.key.box_key(self.session, i, asked.tickets[i])
            for i in recipients_in(self.session, asked.tickets)
        }
        return seal_for(self.session, keys, answer.total, asked.tickets, random)
