"""Key holder, its only state: it opens the sum of one session, once, and answers to the server alone."""

from dataclasses import dataclass, field
from typing import ClassVar

from he.paillier.holders.opening import open_sum
from he.paillier.keyring import HolderKey
from he.paillier.messages import OPEN, OpenRequest, decode
from he.paillier.tags import seed_for_holder
from protocols.kernel import SERVER, Left, Message, Party, State, Step, expect, message
from protocols.randomness import SecureRandom
from protocols.session import Session

KEY_HOLDER = Party("key-holder")


@dataclass(frozen=True)
class HasKey(State):
    """Opens the sum of at least `least` clients."""

    TAG: ClassVar[int | None] = 24

    session: Session
    key: HolderKey = field(repr=False)
    signers: bytes
    least: int

    def receive(self, request: Message, random: SecureRandom) -> Step:
        context = self.session.context
        expect(request, context, OPEN, "server", KEY_HOLDER)
        asked = decode(OpenRequest, request.body, "server")
        seeds = {i: seed_for_holder(self.key.sealing, t.tag, context, i) for i, t in asked.tickets.items()}
        opened = open_sum(self.session, self.key, asked, seeds, self.signers, self.least)
        answer = message(context, OPEN, KEY_HOLDER, SERVER, opened.encode())
        return Step(Left(), (answer,), marks=(f"answered/{context.hex()}",))
