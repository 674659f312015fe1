"""Client, first state: its input is encrypted, it waits to be asked. The input itself is not kept."""

from dataclasses import dataclass, field
from typing import ClassVar

from he.paillier.client.sent import Sent
from he.paillier.keyring import HolderKey
from he.paillier.messages import INPUT, Ask, Contribution
from protocols.kernel import SERVER, Left, Message, State, Step, client, expect, message
from protocols.randomness import SecureRandom
from protocols.session import Session


@dataclass(frozen=True)
class Encrypted(State):
    """Sends the contribution once; then it has left, or, where clients open (SharedByClients), waits to
    open.

    key: the shared key, None where somebody else opens. signers: the clients' keys, 32 bytes each, or
    empty. least: fewest contributions that this client opens.
    """

    TAG: ClassVar[int | None] = 16

    session: Session
    index: int
    contribution: Contribution
    update: bytes
    key: HolderKey | None = field(default=None, repr=False)
    signers: bytes = b""
    least: int = 1

    def receive(self, request: Message, random: SecureRandom) -> Step:
        me = client(self.index)
        expect(request, self.session.context, INPUT, "server", me)
        Ask.decode(request.body)
        answer = message(self.session.context, INPUT, me, SERVER, self.contribution.encode())
        after: State = Left()
        if self.key is not None:
            after = Sent(self.session, self.index, self.key, self.signers, self.least)
        return Step(after, (answer,), marks=(f"spent/{self.update.hex()}",))
