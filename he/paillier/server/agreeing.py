"""Server, second state (SharedByClients): collects the survivors' agreement to their list, without which
none of them opens.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

from he.paillier.messages import AGREE, OPEN, Agreed, OpenRequest, Ticket, decode
from he.paillier.server.opening import Opening
from protocols.errors import ProtocolViolation, TooFewSurvivors
from protocols.kernel import SERVER, Message, Party, State, Step, client, expect, message
from protocols.randomness import SecureRandom
from protocols.session import Session


@dataclass
class Agreeing(State):
    """sum: the ciphertexts of the sum. tickets: of the survivors. agreed: what shows that they agreed, by client."""

    TAG: ClassVar[int | None] = 36

    session: Session
    sum: bytes = field(repr=False)
    tickets: dict[int, Ticket]
    agreed: dict[int, bytes] = field(default_factory=dict)

    def receive(self, message: Message, random: SecureRandom) -> Step:
        expect(message, self.session.context, AGREE, "client", SERVER)
        who = str(message.sender)
        if message.sender not in self.waiting_for():
            raise ProtocolViolation(f"{who} was not asked to agree, or has answered already", who)
        sent = decode(Agreed, message.body, who)
        if len(sent.mac) != 32:
            raise ProtocolViolation(f"{who}: expected 32 bytes, got {len(sent.mac)}", who)
        self.agreed[message.sender.number] = sent.mac
        return Step(self)

    def waiting_for(self) -> Iterable[Party]:
        return [client(i) for i in sorted(self.tickets) if i not in self.agreed]

    def close(self, random: SecureRandom) -> Step:
        if 2 * len(self.agreed) <= self.session.clients:
            raise TooFewSurvivors(
                f"expected more than half of {self.session.clients} clients to agree who is in the sum, "
                f"{len(self.agreed)} did"
            )
        body = OpenRequest(self.sum, self.tickets, self.agreed).encode()
        openers = sorted(self.agreed)
        asks = tuple(message(self.session.context, OPEN, SERVER, client(i), body) for i in openers)
        return Step(Opening(self.session, tuple(sorted(self.tickets)), tuple(openers), {}), asks)
