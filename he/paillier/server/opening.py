"""Server, second state (KeyHolder, SharedByClients): waits for the opened sum."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

from he.paillier.holders.key_holder import KEY_HOLDER
from he.paillier.messages import OPEN, Opened, decode
from protocols.errors import Aborted, ProtocolViolation, TooFewSurvivors
from protocols.kernel import SERVER, Message, Party, State, Step, client, expect
from protocols.randomness import SecureRandom
from protocols.session import Session
from protocols.summation import Total


@dataclass
class Opening(State):
    """by_clients: every survivor is asked (SharedByClients) and more than half of the answers must agree;
    else the holder alone.
    """

    TAG: ClassVar[int | None] = 33

    session: Session
    survivors: tuple[int, ...]
    by_clients: bool
    answers: dict[int, bytes] = field(repr=False)

    def receive(self, message: Message, random: SecureRandom) -> Step:
        expect(message, self.session.context, OPEN, "client" if self.by_clients else "key-holder", SERVER)
        who = str(message.sender)
        if message.sender not in self.waiting_for():
            raise ProtocolViolation(f"{who} was not asked to open this sum, or has answered already", who)
        decode(Opened, message.body, who).checked(self.session, who)
        self.answers[message.sender.number] = message.body
        return Step(self)

    def waiting_for(self) -> Iterable[Party]:
        asked = [client(i) for i in self.survivors] if self.by_clients else [KEY_HOLDER]
        return [party for party in asked if party.number not in self.answers]

    def close(self, random: SecureRandom) -> Step:
        if not self.answers:
            asked = "survivors" if self.by_clients else "key holder"
            raise TooFewSurvivors(f"expected the {asked} to open the sum, nobody did")
        body, votes = Counter(self.answers.values()).most_common(1)[0]
        if 2 * votes <= len(self.answers):
            raise Aborted(
                "the clients who opened the sum disagree about it, and no majority tells who is wrong"
            )
        blamed = tuple(str(client(i)) for i, other in sorted(self.answers.items()) if other != body)
        return Step(Total(Opened.decode(body).total, self.survivors, blamed))
