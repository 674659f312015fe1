"""The key holder's states: makes the session's keys, opens its one sum, forgets. It never sees a single
client's ciphertext.

A fresh key for every session: what is asked, answered or refused in one session tells nothing about another.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

from he.ckks.check import KEY_BYTES
from he.ckks.context import Context
from he.ckks.messages import (
    HOLDER,
    HOLDER_PURPOSE,
    JOIN_PURPOSE,
    KEY,
    OPEN,
    HolderKeys,
    Join,
    Joined,
    Opened,
    Published,
    Settings,
    ToOpen,
)  # fmt: skip
from he.ckks.opener import check_sums, open_checked, taken
from he.delivery import PURPOSE, named, seal_for
from he.sealing import agree, public_key, seal
from protocols.codec import Record
from protocols.errors import PolicyRefusal, ProtocolViolation
from protocols.identity import Identity, verify
from protocols.kernel import SERVER, Left, Message, Party, State, Step, client, expect, message
from protocols.randomness import SecureRandom
from protocols.session import Session

ME = Party(HOLDER)


@dataclass(frozen=True)
class Secrets(Record):
    """What the holder makes for one session: the CKKS keys, a key for boxes, the check key."""

    keys: Context
    private: bytes = field(repr=False)
    check_key: bytes = field(repr=False)

    @classmethod
    def make(cls, session: Session, random: SecureRandom) -> Self:
        keys = Context.make(Settings.decode(session.parameters).ckks)
        return cls(keys, random.bytes(32), random.bytes(KEY_BYTES))

    def published(self, session: Session, identity: Identity | None) -> Published:
        """Return the public part, signed if the holder has an identity."""
        unsigned = Published(self.keys.dump(), public_key(self.private), b"")
        if identity is None:
            return unsigned
        return replace(unsigned, signature=identity.sign(HOLDER_PURPOSE, unsigned.signed(session.context)))


@dataclass(frozen=True)
class Waiting(State):
    """Has the session's keys, waits for the clients'; then gives every client its box.

    signers: the clients' signing keys in roster order, 32 bytes each; empty if nobody signs.
    """

    TAG: ClassVar[int | None] = 24

    session: Session
    least: int
    signers: bytes
    secrets: Secrets
    published: Published

    def receive(self, message: Message, random: SecureRandom) -> Step:
        context = self.session.context
        expect(message, context, KEY, "server", ME)
        clients = self._clients(Joined.decode(message.body))
        plain, boxes = self.secrets.check_key + self.published.digest, {}
        for index, key in clients.items():
            box_key = agree(self.secrets.private, key, context, "to client", str(client(index)))
            boxes[index] = seal(box_key, plain, context, HOLDER, random)
        answer = HolderKeys(self.published, boxes)
        holding = Holding(self.session, self.least, clients, self.secrets)
        return Step(holding, (_answer(self.session, KEY, answer.encode()),))

    def _clients(self, joined: Joined) -> dict[int, bytes]:
        """Return the keys of those who joined. Raises PeerError for one that may not, PolicyRefusal for too
        few.
        """
        for index, join in joined.clients.items():
            if not 0 <= index < self.session.clients:
                raise ProtocolViolation("a client that is not on the roster joined", "server")
            if self.signers:
                signer = self.signers[32 * index : 32 * index + 32]
                verify(
                    signer, JOIN_PURPOSE, Join.signed(self.session.context, index, join.key), join.signature
                )
        keys = {index: join.key for index, join in joined.clients.items()}
        if len(set(keys.values())) != len(keys):
            raise ProtocolViolation("two clients joined with one key", "server")
        if len(keys) < self.least:
            raise PolicyRefusal(
                f"contributions: at least {self.least} are demanded, {len(keys)} clients joined"
            )
        return keys


@dataclass(frozen=True)
class Holding(State):
    """Holds the session's secret keys; opens one sum, at most, and forgets them with the answer."""

    TAG: ClassVar[int | None] = 25

    session: Session
    least: int
    clients: dict[int, bytes]
    secrets: Secrets

    def receive(self, message: Message, random: SecureRandom) -> Step:
        context = self.session.context
        expect(message, context, OPEN, "server", ME)
        request = ToOpen.decode(message.body)
        keys = {
            index: agree(self.secrets.private, key, context, "to holder", str(client(index)))
            for index, key in self.clients.items()
        }
        expected = check_sums(request.boxes, keys, self.session, self.least)
        opened = open_checked(
            request.total,
            len(request.boxes),
            expected,
            self.secrets.check_key,
            self.secrets.keys.secret,
            self.session,
        )
        if not opened.refusal:
            opened = replace(opened, boxes=self._boxes(request, opened, random))
        answer = _answer(self.session, OPEN, opened.encode())
        return Step(Left(), (answer,), marks=(f"answered/{context.hex()}",))

    def _boxes(self, request: ToOpen, opened: Opened, random: SecureRandom) -> dict[int, bytes]:
        """Return the sum, sealed to each named client that is in it, by the key that it joined with."""
        session = self.session
        recipients = Settings.decode(session.parameters).recipients
        keys = {
            i: agree(self.secrets.private, self.clients[i], session.context, PURPOSE, str(client(i)))
            for i in named(session, recipients, request.boxes)
        }
        return seal_for(session, keys, taken(opened, session, HOLDER), request.boxes, random)


def _answer(session: Session, stage: str, body: bytes) -> Message:
    return message(session.context, stage, ME, SERVER, body)
