"""A client's states from the ciphertexts on, and the key holder's. What does not belong here: encryption, how keys
reach a client, decryptors.

Where clients share the key each of them could open anything, so honest ones open only what a quorum of the roster
agreed to. A key holder opens the sum of one session, once, and answers to those that the configuration names: the
server, and named clients by a sealed box each.
"""

from dataclasses import dataclass, field, replace

from he.roles import voting
from he.roles.messages import AGREE, INPUT, KEY_HOLDER, OPEN, EncryptedInput, Listed, OpenRequest
from he.roles.recipients import AwaitsTotal, seal_for
from he.roles.scheme import GroupKey, HeldKey, opened, recipients_in
from protocols.errors import refuse
from protocols.kernel import Left, Message, Party, State, Step, spending
from protocols.randomness import SecureRandom
from protocols.roles import Ask, Asked
from protocols.session import Session


@dataclass(frozen=True)
class HasCiphertexts(Asked):
    """Its input is encrypted and not kept; it waits to be asked, sends once, and what follows is `after_input`."""

    TAG = 16
    STAGE = INPUT

    session: Session
    index: int
    contribution: EncryptedInput
    update: bytes
    key: GroupKey | None = field(default=None, repr=False)
    box_key: bytes = field(default=b"", repr=False)

    def receive(self, request: Message, random: SecureRandom) -> Step:
        self.take(Ask, request)
        after: State = after_input(self.session, self.index, self.box_key)
        if self.key is not None:
            own = Listed.of({self.index: self.contribution.ticket})
            after = MayVote(self.session, self.index, own, self.key)
        return Step(after, self.answer(self.contribution), marks=(spending(self.update),))


def after_input(session: Session, index: int, box_key: bytes) -> State:
    """Return the state of a client that opens nothing: done, but for one that a key holder gives the total.

    box_key: 32 bytes shared with the holder, empty if there is none.
    """
    if not box_key or not recipients_in(session, (index,)):
        return Left()
    return AwaitsTotal(session, index, box_key)


@dataclass(frozen=True)
class MayVote(Asked):
    """Shares the key; votes for one list of contributions, the first it is shown. own: its own contribution."""

    TAG = 18
    STAGE = AGREE

    session: Session
    index: int
    own: Listed
    key: GroupKey = field(repr=False)

    def receive(self, request: Message, random: SecureRandom) -> Step:
        me = voting.client_voter(self.key.secret, self.session.context, self.index)
        listed, send, mark = voting.answered(self, request, me, self.own)
        return Step(MayOpen(self.session, self.index, listed, self.key), send, marks=(mark,))


@dataclass(frozen=True)
class MayOpen(Asked):
    """Shares the key; opens the sum of the contributions it voted for, once."""

    TAG = 17
    STAGE = OPEN

    session: Session
    index: int
    listed: Listed
    key: GroupKey = field(repr=False)

    def receive(self, request: Message, random: SecureRandom) -> Step:
        asked, session, context = self.take(OpenRequest, request), self.session, self.session.context
        if Listed.of(asked.tickets) != self.listed:
            raise refuse("expected the contributions that this client agreed to")
        keys = {i: voting.client_voter(self.key.secret, context, i).public for i in range(session.clients)}
        voting.expect_agreement(context, self.listed, asked.certificate, keys, 0, "client")
        answer = opened(session, self.key, asked)
        return Step(Left(), self.answer(answer), marks=(f"answered/{context.hex()}",))


@dataclass(frozen=True)
class HoldsKey(Asked):
    """The key holder: opens the session's sum, and forgets the session's secrets with the answer."""

    TAG = 24
    STAGE = OPEN

    session: Session
    key: HeldKey = field(repr=False)

    @property
    def party(self) -> Party:
        return KEY_HOLDER

    def receive(self, request: Message, random: SecureRandom) -> Step:
        asked, session = self.take(OpenRequest, request), self.session
        answer = opened(session, self.key, asked)
        if not answer.refusal:
            named = recipients_in(session, asked.tickets)
            keys = {i: self.key.box_key(session, i, asked.tickets[i]) for i in named}
            answer = replace(answer, boxes=seal_for(session, keys, answer.total, asked.tickets, random))
        return Step(Left(), self.answer(answer), marks=(f"answered/{session.context.hex()}",))
