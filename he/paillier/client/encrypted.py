"""Client, first state: its input is encrypted, it waits to be asked. The input itself is not kept."""

from dataclasses import dataclass, field
from typing import ClassVar

from he.delivery import Receiving
from he.paillier.client.sent import Sent
from he.paillier.keyring import HolderKey
from he.paillier.messages import INPUT, Ask, Contribution
from protocols.kernel import SERVER, Left, Message, State, Step, client, expect, message
from protocols.randomness import SecureRandom
from protocols.session import Session


@dataclass(frozen=True)
class Encrypted(State):
    """Sends the contribution once; then it has left, or, where clients open (SharedByClients), waits to
    open, or, where the key holder is to give it the sum, for that.

    key: the shared key, None where somebody else opens. signers: the clients' keys, 32 bytes each, or
    empty. least: fewest contributions that this client opens, or takes a sum of. box_key: for the sum that the
    key holder gives it, empty if it gives it none.
    """

    TAG: ClassVar[int | None] = 16

    session: Session
    index: int
    contribution: Contribution
    update: bytes
    key: HolderKey | None = field(default=None, repr=False)
    signers: bytes = b""
    least: int = 1
    box_key: bytes = field(default=b"", repr=False)

    def receive(self, request: Message, random: SecureRandom) -> Step:
        me = client(self.index)
        expect(request, self.session.context, INPUT, "server", me)
        Ask.decode(request.body)
        answer = message(self.session.context, INPUT, me, SERVER, self.contribution.encode())
        after: State = Left()
        if self.key is not None:
            after = Sent(self.session, self.index, self.key, self.signers, self.least)
        elif self.box_key:
            after = Receiving(self.session, self.index, self.box_key, self.least)
        return Step(after, (answer,), marks=(f"spent/{self.update.hex()}",))
