"""The server's states: it adds ciphertexts as they come, and has their sum opened by a key holder or by the clients
that share a key. It holds no secret. What does not belong here: decryptors, how a key holder's keys reach clients.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from he.roles.messages import (
    AGREE,
    HOLDER,
    INPUT,
    OPEN,
    EncryptedInput,
    Listed,
    OpenedTotal,
    OpenRequest,
    decode,
    unpack_total,
)
from he.roles.parameters import least_survivors, recipients_in
from he.roles.recipients import deliver, expect_boxes
from he.roles.scheme import Accumulator
from protocols.agreement import Vote, certify, quorum
from protocols.codec import Record
from protocols.errors import Aborted, ProtocolViolation, TooFewSurvivors
from protocols.kernel import SERVER, Message, Party, State, Step, client, expect, message
from protocols.randomness import SecureRandom
from protocols.session import Session


def requests(session: Session, stage: str, bodies: Mapping[Party, Record]) -> tuple[Message, ...]:
    """Return a stage's requests, one per party; what goes to everybody is encoded once."""
    encoded: dict[int, bytes] = {}
    for body in bodies.values():
        if id(body) not in encoded:
            encoded[id(body)] = body.encode()
    return tuple(
        message(session.context, stage, SERVER, to, encoded[id(body)]) for to, body in bodies.items()
    )


def answering(
    session: Session, sent: Message, stage: str, role: str, asked: Collection[int], answered: Collection[int]
) -> int:
    """Return the sender's number. Raises ProtocolViolation unless it was asked and answers for the first time."""
    expect(sent, session.context, stage, role, SERVER)
    number, who = sent.sender.number, str(sent.sender)
    if number not in asked or number in answered:
        raise ProtocolViolation(f"{who} was not asked at stage {stage!r}, or has answered already", who)
    return number


def survivors_of(session: Session, arrived: Collection[int]) -> tuple[int, ...]:
    """Return the survivors, ascending. Raises TooFewSurvivors."""
    if len(arrived) < (least := least_survivors(session)):
        raise TooFewSurvivors(
            f"expected the inputs of at least {least} clients, {len(arrived)} of {session.clients} came"
        )
    return tuple(sorted(arrived))


@dataclass
class AddsCiphertexts(State):
    """Memory of one vector, however many clients. asked: clients with a contribution to send. opener: the role that
    opens. tickets: of those whose contribution is in the sum.
    """

    TAG: ClassVar[int | None] = 32

    session: Session
    asked: tuple[int, ...]
    opener: str
    accumulator: Accumulator
    tickets: dict[int, bytes] = field(default_factory=dict)

    def receive(self, sent: Message, random: SecureRandom) -> Step:
        index = answering(self.session, sent, INPUT, "client", self.asked, self.tickets)
        contribution = decode(EncryptedInput, sent.body, str(sent.sender))
        self.accumulator.add(self.session, index, contribution)
        self.tickets[index] = contribution.ticket
        return Step(self)

    def waiting_for(self) -> list[Party]:
        return [client(i) for i in self.asked if i not in self.tickets]

    def close(self, random: SecureRandom) -> Step:
        survivors = survivors_of(self.session, self.tickets)
        request = OpenRequest(self.accumulator.finish(), self.tickets)
        if self.opener == HOLDER:
            return has_asked_to_open(self.session, request, survivors, HOLDER, (0,))
        listed = Listed.of(self.tickets)
        asks = requests(self.session, AGREE, {client(i): listed for i in survivors})
        return Step(GathersClientVotes(self.session, survivors, {}, request), asks)


@dataclass(frozen=True)
class GathersVotes(State):
    """Collects votes for one list of contributions, without which nobody opens it. votes: signatures, by voter."""

    session: Session
    asked: tuple[int, ...]
    votes: dict[int, bytes]

    role: ClassVar[str]

    def receive(self, sent: Message, random: SecureRandom) -> Step:
        number = answering(self.session, sent, AGREE, self.role, self.asked, self.votes)
        signature = decode(Vote, sent.body, str(sent.sender)).signature
        self.check_signature(number, signature)
        self.votes[number] = signature
        return Step(self)

    def check_signature(self, number: int, signature: bytes) -> None:
        """Raises PeerError naming the voter for a vote that nobody would accept, where the server can tell."""

    def waiting_for(self) -> list[Party]:
        return [Party(self.role, i) for i in self.asked if i not in self.votes]


@dataclass(frozen=True)
class GathersClientVotes(GathersVotes):
    """Of clients that share the key: any of them alone could open all, so none is counted as corrupt."""

    TAG: ClassVar[int | None] = 36
    role: ClassVar[str] = "client"

    request: OpenRequest

    def close(self, random: SecureRandom) -> Step:
        found = certify(self.votes, quorum(self.session.clients, 0))
        request, voters = replace(self.request, certificate=found), tuple(sorted(self.votes))
        return has_asked_to_open(self.session, request, self.asked, "client", voters)


def has_asked_to_open(
    session: Session, request: OpenRequest, survivors: tuple[int, ...], role: str, openers: tuple[int, ...]
) -> Step:
    """Ask `openers`, by number, to open the sum of `survivors`."""
    asks = requests(session, OPEN, {Party(role, number): request for number in openers})
    return Step(AwaitsOpened(session, survivors, role, openers), asks)


@dataclass(frozen=True)
class AwaitsOpened(State):
    """Where several open, more than half of their answers must be equal; the others are blamed.

    answers: digest of each opener's total (empty: it refused). totals: by digest, packed. boxes: what the key holder
    sealed to named clients.
    """

    TAG: ClassVar[int | None] = 33

    session: Session
    survivors: tuple[int, ...]
    role: str
    openers: tuple[int, ...]
    answers: dict[int, bytes] = field(default_factory=dict)
    totals: dict[bytes, bytes] = field(default_factory=dict)
    refusal: str = ""
    boxes: dict[int, bytes] = field(default_factory=dict)

    def receive(self, sent: Message, random: SecureRandom) -> Step:
        number = answering(self.session, sent, OPEN, self.role, self.openers, self.answers)
        who = str(sent.sender)
        answer = decode(OpenedTotal, sent.body, who)
        try:
            answer.checked(self.session, who)
        except Aborted as refused:
            self.answers[number] = b""
            return Step(replace(self, refusal=refused.reason))
        expect_boxes(answer.boxes, recipients_in(self.session, self.survivors), who)
        self.answers[number] = hashlib.sha256(answer.total).digest()
        self.totals.setdefault(self.answers[number], answer.total)
        return Step(replace(self, boxes=answer.boxes))

    def waiting_for(self) -> list[Party]:
        return [Party(self.role, i) for i in self.openers if i not in self.answers]

    def close(self, random: SecureRandom) -> Step:
        given = {number: digest for number, digest in self.answers.items() if digest}
        if not given:
            raise (
                Aborted(self.refusal)
                if self.refusal
                else TooFewSurvivors(f"expected a {self.role.replace('-', ' ')} to open the sum, nobody did")
            )
        digest, votes = Counter(given.values()).most_common(1)[0]
        if 2 * votes <= len(given):
            raise Aborted("those who opened the sum disagree about it, and no majority tells who is wrong")
        blamed = tuple(str(Party(self.role, i)) for i, other in sorted(given.items()) if other != digest)
        total = unpack_total(self.totals[digest], self.session, self.role)
        return deliver(self.session, total, self.survivors, blamed, self.boxes)
