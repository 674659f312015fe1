"""Client, second state (SharedByClients only): its input has left; it agrees to one list of survivors, the
first it is shown.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from he.paillier.client.may_open import MayOpen
from he.paillier.keyring import HolderKey
from he.paillier.messages import AGREE, Agreed, Survivors, decode, expect_indices
from he.paillier.parameters import least_survivors
from he.paillier.tags import agreement
from protocols.errors import ProtocolViolation
from protocols.kernel import SERVER, Message, State, Step, client, expect, message
from protocols.randomness import SecureRandom
from protocols.session import Session


@dataclass(frozen=True)
class Sent(State):
    """key: the shared key. signers: the clients' keys, 32 bytes each, or empty. least: fewest contributions
    it opens.
    """

    TAG: ClassVar[int | None] = 18

    session: Session
    index: int
    key: HolderKey = field(repr=False)
    signers: bytes
    least: int

    def receive(self, request: Message, random: SecureRandom) -> Step:
        me, context = client(self.index), self.session.context
        expect(request, context, AGREE, "server", me)
        shown = decode(Survivors, request.body, "server")
        expect_indices(shown.clients, max(self.least, least_survivors(self.session)), self.session.clients)
        if list(shown.clients) != sorted(set(shown.clients)) or self.index not in shown.clients:
            raise ProtocolViolation("expected survivors in ascending order, this client among them", "server")
        mac = agreement(self.key.sealing, context, self.index, shown.encode())
        answer = message(context, AGREE, me, SERVER, Agreed(mac).encode())
        after = MayOpen(self.session, self.index, self.key, self.signers, self.least, shown)
        return Step(after, (answer,), marks=(f"agreed/{context.hex()}",))
