"""Server, last state (KeyHolder, SharedByClients): waits for the opened sum."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

from he.delivery import expect_boxes, finish, named
from he.paillier.holders.key_holder import KEY_HOLDER
from he.paillier.messages import OPEN, Opened, decode
from he.paillier.parameters import PaillierParameters
from protocols.errors import Aborted, ProtocolViolation, TooFewSurvivors
from protocols.kernel import SERVER, Message, Party, State, Step, client, expect
from protocols.randomness import SecureRandom
from protocols.session import Session


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
            opened = decode(Opened, message.body, who)
            opened.checked(self.session, who)
            expect_boxes(opened.boxes, self._named, who)
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
        opened = Opened.decode(body)
        return finish(self.session, opened.total, self.survivors, blamed, opened.boxes)

    @property
    def _named(self) -> tuple[int, ...]:
        """The clients of the sum that the key holder gives it to."""
        recipients = PaillierParameters.decode(self.session.parameters).recipients
        return named(self.session, recipients, self.survivors)
