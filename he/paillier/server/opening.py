"""Server, last state (KeyHolder, SharedByClients): waits for the opened sum."""

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
    """openers: the clients that are asked (SharedByClients), of whose answers more than half must agree; None:
    the key holder. answers: the sums, encoded. refusals: why somebody would not open.
    """

    TAG: ClassVar[int | None] = 33

    session: Session
    survivors: tuple[int, ...]
    openers: tuple[int, ...] | None
    answers: dict[int, bytes] = field(repr=False)
    refusals: dict[int, str] = field(default_factory=dict)

    def receive(self, message: Message, random: SecureRandom) -> Step:
        expect(message, self.session.context, OPEN, "client" if self.openers else "key-holder", SERVER)
        who, number = str(message.sender), message.sender.number
        if message.sender not in self.waiting_for():
            raise ProtocolViolation(f"{who} was not asked to open this sum, or has answered already", who)
        try:
            decode(Opened, message.body, who).checked(self.session, who)
        except Aborted as refused:
            self.refusals[number] = refused.reason
            return Step(self)
        self.answers[number] = message.body
        return Step(self)

    def waiting_for(self) -> Iterable[Party]:
        asked = [KEY_HOLDER] if self.openers is None else [client(i) for i in self.openers]
        return [p for p in asked if p.number not in self.answers and p.number not in self.refusals]

    def close(self, random: SecureRandom) -> Step:
        if not self.answers:
            if self.refusals:
                raise Aborted(next(iter(self.refusals.values())))
            asked = "key holder" if self.openers is None else "survivors"
            raise TooFewSurvivors(f"expected the {asked} to open the sum, nobody did")
        body, votes = Counter(self.answers.values()).most_common(1)[0]
        if 2 * votes <= len(self.answers):
            raise Aborted(
                "the clients who opened the sum disagree about it, and no majority tells who is wrong"
            )
        blamed = tuple(str(client(i)) for i, other in sorted(self.answers.items()) if other != body)
        return Step(Total(Opened.decode(body).total, self.survivors, blamed))
