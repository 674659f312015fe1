"""The key holder's states: makes the session's keys, opens its one sum, forgets. It never sees a single
client's ciphertext.

A fresh key for every session: what is asked, answered or refused in one session tells nothing about another.
"""

import hashlib
from dataclasses import dataclass, field
from typing import ClassVar

from he.ckks.check import KEY_BYTES
from he.ckks.context import Context
from he.ckks.messages import HOLDER, KEY, OPEN, HolderKeys, Join, Joined, Settings, ToOpen
from he.ckks.opener import check_sums, open_checked
from he.sealing import agree, public_key, seal
from protocols.errors import PolicyRefusal, ProtocolViolation
from protocols.kernel import SERVER, Left, Message, Party, State, Step, client, expect, message
from protocols.randomness import SecureRandom
from protocols.session import Session

ME = Party(HOLDER)


@dataclass(frozen=True)
class Waiting(State):
    """Waits for the clients' keys; then makes the session's keys and gives every client its box."""

    TAG: ClassVar[int | None] = 24

    session: Session
    least: int

    def receive(self, message: Message, random: SecureRandom) -> Step:
        expect(message, self.session.context, KEY, "server", ME)
        clients = self._clients(Joined.decode(message.body))
        context = Context.make(Settings.decode(self.session.parameters).ckks)
        holding = Holding(
            self.session, self.least, clients, context, random.bytes(32), random.bytes(KEY_BYTES)
        )
        public = context.dump()
        keys = HolderKeys(public, public_key(holding.private), holding.boxes(public, random))
        return Step(holding, (_answer(self.session, KEY, keys.encode()),))

    def _clients(self, joined: Joined) -> dict[int, bytes]:
        if any(not 0 <= index < self.session.clients for index in joined.keys):
            raise ProtocolViolation("a client that is not on the roster joined", "server")
        if len(set(joined.keys.values())) != len(joined.keys):
            raise ProtocolViolation("two clients joined with one key", "server")
        if len(joined.keys) < self.least:
            raise PolicyRefusal(
                f"contributions: at least {self.least} are demanded, {len(joined.keys)} clients joined"
            )
        return {index: Join(key).key for index, key in joined.keys.items()}


@dataclass(frozen=True)
class Holding(State):
    """Holds the session's secret key; opens one sum, at most, and forgets the key with the answer."""

    TAG: ClassVar[int | None] = 25

    session: Session
    least: int
    clients: dict[int, bytes]
    keys: Context
    private: bytes = field(repr=False)
    check_key: bytes = field(repr=False)

    def boxes(self, public: bytes, random: SecureRandom) -> dict[int, bytes]:
        """Return for every client its box: the check key and what vouches for the public key."""
        context, plain = self.session.context, self.check_key + hashlib.sha256(public).digest()
        return {
            index: seal(
                agree(self.private, key, context, "to client", str(client(index))),
                plain,
                context,
                HOLDER,
                random,
            )
            for index, key in self.clients.items()
        }

    def receive(self, message: Message, random: SecureRandom) -> Step:
        context = self.session.context
        expect(message, context, OPEN, "server", ME)
        request = ToOpen.decode(message.body)
        keys = {
            index: agree(self.private, key, context, "to holder", str(client(index)))
            for index, key in self.clients.items()
        }
        expected = check_sums(request.boxes, keys, self.session, self.least)
        opened = open_checked(
            request.total, len(request.boxes), expected, self.check_key, self.keys.secret, self.session
        )
        answer = _answer(self.session, OPEN, opened.encode())
        return Step(Left(), (answer,), marks=(f"answered/{context.hex()}",))


def _answer(session: Session, stage: str, body: bytes) -> Message:
    return message(session.context, stage, ME, SERVER, body)
