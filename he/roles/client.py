"""A client's states, from the ciphertexts on. What does not belong here: encryption, how keys reach a client.

Where clients share the key each of them could open anything, so honest ones open only what a quorum of the roster
agreed to.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from he.roles import voting
from he.roles.messages import AGREE, INPUT, OPEN, Ask, EncryptedInput, Listed, OpenRequest, decode
from he.roles.opening import opened
from he.roles.parameters import expect_clients, recipients_in
from he.roles.recipients import AwaitsTotal
from he.roles.scheme import GroupKey
from protocols.agreement import Vote
from protocols.errors import ProtocolViolation
from protocols.kernel import SERVER, Left, Message, State, Step, client, expect, message
from protocols.randomness import SecureRandom
from protocols.session import Session


@dataclass(frozen=True)
class HasCiphertexts(State):
    """Its input is encrypted and not kept; it waits to be asked, sends once, and what follows is `after_input`."""

    TAG: ClassVar[int | None] = 16

    session: Session
    index: int
    contribution: EncryptedInput
    update: bytes
    least: int
    key: GroupKey | None = field(default=None, repr=False)
    box_key: bytes = field(default=b"", repr=False)

    def receive(self, request: Message, random: SecureRandom) -> Step:
        me = client(self.index)
        expect(request, self.session.context, INPUT, "server", me)
        decode(Ask, request.body, "server")
        answer = message(self.session.context, INPUT, me, SERVER, self.contribution.encode())
        after: State = after_input(self.session, self.index, self.least, self.box_key)
        if self.key is not None:
            own = Listed.of({self.index: self.contribution.ticket})
            after = MayVote(self.session, self.index, self.least, own, self.key)
        return Step(after, (answer,), marks=(f"spent/{self.update.hex()}",))


def after_input(session: Session, index: int, least: int, box_key: bytes) -> State:
    """Return the state of a client that opens nothing: done, but for one that a key holder gives the total.

    least: fewest clients in a total that it takes. box_key: 32 bytes shared with the holder, empty if there is none.
    """
    if not box_key or not recipients_in(session, (index,)):
        return Left()
    return AwaitsTotal(session, index, box_key, least)


@dataclass(frozen=True)
class MayVote(State):
    """Shares the key; votes for one list of contributions, the first it is shown. own: its own contribution."""

    TAG: ClassVar[int | None] = 18

    session: Session
    index: int
    least: int
    own: Listed
    key: GroupKey = field(repr=False)

    def receive(self, request: Message, random: SecureRandom) -> Step:
        me, context = client(self.index), self.session.context
        expect(request, context, AGREE, "server", me)
        listed = decode(Listed, request.body, "server")
        expect_clients(self.session, listed.tickets, self.least)
        if not self.own.tickets.items() <= listed.tickets.items():
            raise ProtocolViolation("expected this client's own contribution in the sum", "server")
        ballot = voting.vote(voting.client_voter(self.key.secret, context, self.index), context, listed)
        answer = message(context, AGREE, me, SERVER, Vote(ballot.signature).encode())
        after = MayOpen(self.session, self.index, self.least, listed, self.key)
        return Step(after, (answer,), marks=(ballot.mark,))


@dataclass(frozen=True)
class MayOpen(State):
    """Shares the key; opens the sum of the contributions it voted for, once."""

    TAG: ClassVar[int | None] = 17

    session: Session
    index: int
    least: int
    listed: Listed
    key: GroupKey = field(repr=False)

    def receive(self, request: Message, random: SecureRandom) -> Step:
        me, session, context = client(self.index), self.session, self.session.context
        expect(request, context, OPEN, "server", me)
        asked = decode(OpenRequest, request.body, "server")
        if Listed.of(asked.tickets) != self.listed:
            raise ProtocolViolation("expected the contributions that this client agreed to", "server")
        keys = {i: voting.client_voter(self.key.secret, context, i).public for i in range(session.clients)}
        voting.expect_agreement(context, self.listed, asked.certificate, keys, 0, "client")
        answer = opened(session, self.key, asked, self.least)
        sent = message(context, OPEN, me, SERVER, answer.encode())
        return Step(Left(), (sent,), marks=(f"answered/{context.hex()}",))
