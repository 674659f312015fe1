"""The server's states: it adds ciphertexts as they come, and has their sum opened by a key holder or by the clients
that share a key. It holds no secret. What does not belong here: decryptors, how a key holder's keys reach clients.
"""

import hashlib
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from he.roles.messages import AGREE, HOLDER, INPUT, OPEN, EncryptedInput, Listed, OpenedTotal, OpenRequest
from he.roles.recipients import deliver, expect_boxes
from he.roles.scheme import Accumulator, least_survivors, recipients_in
from protocols.agreement import Vote, certify, quorum
from protocols.errors import Aborted, TooFewSurvivors
from protocols.kernel import Message, Party, Step, client
from protocols.randomness import SecureRandom
from protocols.roles import Asking, requests
from protocols.session import Session


def survivors_of(session: Session, arrived: Collection[int]) -> tuple[int, ...]:
    """Return the survivors, ascending. Raises TooFewSurvivors."""
    if len(arrived) < (least := least_survivors(session)):
        raise TooFewSurvivors(
            f"expected the inputs of at least {least} clients, {len(arrived)} of {session.clients} came: min_survivors "
            "says how few are summed, more than half unless chosen"
        )
    return tuple(sorted(arrived))


@dataclass(frozen=True)
class AddsCiphertexts(Asking):
    """Memory of one vector, however many clients. members: clients with a contribution to send. opener: the role that
    opens. answers: tickets of those whose contribution is in the sum.
    """

    TAG = 32
    STAGE = INPUT

    session: Session
    members: tuple[int, ...]
    opener: str
    accumulator: Accumulator
    answers: dict[int, bytes] = field(default_factory=dict)

    def asked(self) -> Collection[int]:
        return self.members

    def receive(self, sent: Message, random: SecureRandom) -> Step:
        index, contribution = self.take(EncryptedInput, sent)
        self.accumulator.add(self.session, index, contribution)
        self.answers[index] = contribution.ticket
        return Step(self)

    def close(self, random: SecureRandom) -> Step:
        survivors = survivors_of(self.session, self.answers)
        request = OpenRequest(self.accumulator.finish(), self.answers)
        if self.opener == HOLDER:
            return AwaitsHolder(self.session, survivors, (0,)).asks(request)
        listed = Listed.of(self.answers)
        asks = requests(self.session, AGREE, {client(i): listed for i in survivors})
        return Step(GathersClientVotes(self.session, survivors, {}, request), asks)


@dataclass(frozen=True)
class GathersVotes(Asking):
    """Collects votes for one list of contributions, without which nobody opens it. answers: signatures, by voter."""

    STAGE = AGREE

    session: Session
    voters: tuple[int, ...]
    answers: dict[int, bytes]

    def asked(self) -> Collection[int]:
        return self.voters

    def receive(self, sent: Message, random: SecureRandom) -> Step:
        number, vote = self.take(Vote, sent)
        self.check_signature(number, vote.signature)
        self.answers[number] = vote.signature
        return Step(self)

    def check_signature(self, number: int, signature: bytes) -> None:
        """Raises PeerError naming the voter for a vote that nobody would accept, where the server can tell."""


@dataclass(frozen=True)
class GathersClientVotes(GathersVotes):
    """Of clients that share the key: any of them alone could open all, so none is counted as corrupt."""

    TAG = 36

    request: OpenRequest

    def close(self, random: SecureRandom) -> Step:
        found = certify(self.answers, quorum(self.session.clients, 0))
        state = AwaitsClients(self.session, self.voters, tuple(sorted(self.answers)))
        return state.asks(replace(self.request, certificate=found))


@dataclass(frozen=True)
class AwaitsOpened(Asking):
    """Where several open, more than half of their answers must be equal; the others are blamed.

    answers: digest of each opener's total (empty: it refused). totals: by digest, packed. boxes: what the key holder
    sealed to named clients.
    """

    STAGE = OPEN

    session: Session
    survivors: tuple[int, ...]
    openers: tuple[int, ...]
    answers: dict[int, bytes] = field(default_factory=dict)
    totals: dict[bytes, bytes] = field(default_factory=dict)
    refusal: str = ""
    boxes: dict[int, bytes] = field(default_factory=dict)

    def asks(self, request: OpenRequest) -> Step:
        """Return this state and the requests to all openers."""
        return Step(self, requests(self.session, OPEN, {Party(self.ROLE, i): request for i in self.openers}))

    def asked(self) -> Collection[int]:
        return self.openers

    def receive(self, sent: Message, random: SecureRandom) -> Step:
        number, answer = self.take(OpenedTotal, sent)
        who = str(sent.sender)
        try:
            answer.checked(self.session, who)
        except Aborted as refused:
            self.answers[number] = b""
            return Step(replace(self, refusal=refused.reason))
        expect_boxes(answer.boxes, recipients_in(self.session, self.survivors), who)
        self.answers[number] = hashlib.sha256(answer.total).digest()
        self.totals.setdefault(self.answers[number], answer.total)
        return Step(replace(self, boxes=answer.boxes))

    def close(self, random: SecureRandom) -> Step:
        given = {number: digest for number, digest in self.answers.items() if digest}
        if not given:
            who = self.ROLE.replace("-", " ")
            nobody = TooFewSurvivors(f"expected a {who} to open the sum, nobody did")
            raise Aborted(self.refusal) if self.refusal else nobody
        digest, votes = Counter(given.values()).most_common(1)[0]
        if 2 * votes <= len(given):
            raise Aborted("those who opened the sum disagree about it, and no majority tells who is wrong")
        blamed = tuple(str(Party(self.ROLE, i)) for i, other in sorted(given.items()) if other != digest)
        total = OpenedTotal(self.totals[digest]).checked(self.session, self.ROLE)
        return deliver(self.session, total, self.survivors, blamed, self.boxes)


@dataclass(frozen=True)
class AwaitsHolder(AwaitsOpened):
    """A key holder opens."""

    TAG = 33
    ROLE = HOLDER


@dataclass(frozen=True)
class AwaitsClients(AwaitsOpened):
    """Clients that share the key open."""

    TAG = 42
