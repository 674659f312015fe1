"""Key holder, its only state: it opens the sum of one session, once, and answers to those that the configuration
names: the server, and named clients by a sealed box each.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar

from he.delivery import PURPOSE, named, seal_for
from he.paillier.holders.opening import open_sum
from he.paillier.keyring import HolderKey
from he.paillier.messages import OPEN, Opened, OpenRequest, decode
from he.paillier.parameters import PaillierParameters
from he.paillier.tags import seed_for_holder
from he.sealing import agree
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
        if not opened.refusal:
            opened = replace(opened, boxes=self._boxes(asked, opened, random))
        answer = message(context, OPEN, KEY_HOLDER, SERVER, opened.encode())
        return Step(Left(), (answer,), marks=(f"answered/{context.hex()}",))

    def _boxes(self, asked: OpenRequest, opened: Opened, random: SecureRandom) -> dict[int, bytes]:
        """Return the sum, sealed to each named client that is in it, by the key that its ticket vouches for."""
        session = self.session
        recipients = PaillierParameters.decode(session.parameters).recipients
        keys = {
            i: agree(self.key.sealing, asked.tickets[i].tag, session.context, PURPOSE, f"client {i}")
            for i in named(session, recipients, asked.tickets)
        }
        return seal_for(session, keys, opened.total, asked.tickets, random)
