"""Client, second state (SharedByClients only): it holds the key and may be asked to open the sum, once."""

from dataclasses import dataclass, field
from typing import ClassVar

from he.paillier.holders.opening import open_sum
from he.paillier.keyring import HolderKey
from he.paillier.messages import OPEN, OpenRequest, decode
from he.paillier.tags import seed_in_group
from protocols.kernel import SERVER, Left, Message, State, Step, client, expect, message
from protocols.randomness import SecureRandom
from protocols.session import Session


@dataclass(frozen=True)
class MayOpen(State):
    """Opens the sum of at least `least` clients; the tags come from the secret that the clients share."""

    TAG: ClassVar[int | None] = 17

    session: Session
    index: int
    key: HolderKey = field(repr=False)
    signers: bytes
    least: int

    def receive(self, request: Message, random: SecureRandom) -> Step:
        me, context = client(self.index), self.session.context
        expect(request, context, OPEN, "server", me)
        asked = decode(OpenRequest, request.body, "server")
        seeds = {index: seed_in_group(self.key.sealing, context, index) for index in asked.tickets}
        opened = open_sum(self.session, self.key, asked, seeds, self.signers, self.least)
        answer = message(context, OPEN, me, SERVER, opened.encode())
        return Step(Left(), (answer,), marks=(f"answered/{context.hex()}",))
