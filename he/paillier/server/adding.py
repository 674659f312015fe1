"""Server, first state (KeyHolder, SharedByClients): adds ciphertexts as they come. Memory of one vector,
however many clients.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

from he.paillier.cipher import add, parse, serialise
from he.paillier.holders.key_holder import KEY_HOLDER
from he.paillier.keys import PublicKey
from he.paillier.messages import AGREE, INPUT, OPEN, Contribution, OpenRequest, Survivors, Ticket, decode
from he.paillier.parameters import PaillierParameters
from he.paillier.server.agreeing import Agreeing
from he.paillier.server.opening import Opening
from he.paillier.server.survivors import enough, newcomer
from protocols.errors import ProtocolViolation
from protocols.kernel import SERVER, Message, Party, State, Step, client, expect, message
from protocols.randomness import SecureRandom
from protocols.session import Session


@dataclass
class Adding(State):
    """sum: the ciphertexts of the sum so far (empty: none yet). tickets: what the opener needs from each
    client in it.

    tagged: each ticket must carry a key that tags are agreed with (KeyHolder); else the clients open
    (SharedByClients).
    """

    TAG: ClassVar[int | None] = 32

    session: Session
    public: PublicKey
    signers: bytes
    tagged: bool
    sum: bytes = field(default=b"", repr=False)
    tickets: dict[int, Ticket] = field(default_factory=dict)

    def receive(self, message: Message, random: SecureRandom) -> Step:
        expect(message, self.session.context, INPUT, "client", SERVER)
        index, who = newcomer(message, self.session, self.tickets), str(message.sender)
        sent = decode(Contribution, message.body, who)
        if len(sent.ticket.tag) != 32 * self.tagged:
            raise ProtocolViolation(f"{who}: expected a key of {32 * self.tagged} bytes for its tags", who)
        count = PaillierParameters.decode(self.session.parameters).packing.plaintexts(self.session.dimension)
        vector = sent.checked(self.session, index, self.signers, self.public, count)
        total = add(parse(self.sum, count, self.public), vector, self.public) if self.sum else vector
        self.sum = serialise(total, self.public)
        self.tickets[index] = sent.ticket
        return Step(self)

    def waiting_for(self) -> Iterable[Party]:
        return [client(i) for i in range(self.session.clients) if i not in self.tickets]

    def close(self, random: SecureRandom) -> Step:
        survivors = enough(self.tickets, self.session)
        context = self.session.context
        if self.tagged:
            body = OpenRequest(self.sum, self.tickets).encode()
            return Step(
                Opening(self.session, survivors, None, {}),
                (message(context, OPEN, SERVER, KEY_HOLDER, body),),
            )
        body = Survivors(survivors).encode()
        asks = tuple(message(context, AGREE, SERVER, client(i), body) for i in survivors)
        return Step(Agreeing(self.session, self.sum, self.tickets), asks)
