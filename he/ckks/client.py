"""A client's states where a key holder opens. What does not belong here: what others do, keys that clients
share.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from he.ckks.check import KEY_BYTES, check_value
from he.ckks.ciphertexts import encrypt
from he.ckks.context import Context
from he.ckks.digits import spread
from he.ckks.messages import (
    HOLDER,
    HOLDER_PURPOSE,
    INPUT,
    JOIN,
    JOIN_PURPOSE,
    Ask,
    ClientKeys,
    Input,
    Join,
    Settings,
)  # fmt: skip
from he.ckks.parameters import CKKSParameters
from he.ckks.residues import Words
from he.delivery import PURPOSE, Receiving
from he.sealing import agree, public_key, seal, unseal
from protocols.codec import Record
from protocols.errors import ProtocolViolation
from protocols.identity import Identity, verify
from protocols.kernel import SERVER, Left, Message, Party, State, Step, client, expect, message
from protocols.randomness import SecureRandom
from protocols.session import Session


@dataclass(frozen=True, eq=False)
class Own(Record):
    """What a client brings: who it is, its input and what the input was made from."""

    session: Session
    index: int
    vector: NDArray[np.int64] = field(repr=False)
    update: bytes

    @property
    def party(self) -> Party:
        return client(self.index)

    @property
    def parameters(self) -> CKKSParameters:
        return Settings.decode(self.session.parameters).ckks

    def reply(self, stage: str, body: Record) -> tuple[Message, ...]:
        return (message(self.session.context, stage, self.party, SERVER, body.encode()),)

    @property
    def spent(self) -> tuple[str, ...]:
        return (f"spent/{self.update.hex()}",)


@dataclass(frozen=True, eq=False)
class Ready(State):
    """Has its vector and a fresh key, waits to be asked to join. holder: the holder's signing key, or
    empty. least: fewest clients in a sum that it takes.
    """

    TAG: ClassVar[int | None] = 16

    own: Own
    private: bytes = field(repr=False)
    join: Join
    holder: bytes
    least: int

    @classmethod
    def of(
        cls, own: Own, identity: Identity | None, holder: bytes, least: int, random: SecureRandom
    ) -> "Ready":
        private = random.bytes(32)
        key = public_key(private)
        signature = b""
        if identity is not None:
            signature = identity.sign(JOIN_PURPOSE, Join.signed(own.session.context, own.index, key))
        return cls(own, private, Join(key, signature), holder, least)

    def receive(self, message: Message, random: SecureRandom) -> Step:
        expect(message, self.own.session.context, JOIN, "server", self.own.party)
        Ask.decode(message.body)
        return Step(Joining(self.own, self.private, self.holder, self.least), self.own.reply(JOIN, self.join))


@dataclass(frozen=True, eq=False)
class Joining(State):
    """Has joined, waits for the holder's keys; then encrypts, sends and is done, or waits for the sum if it is to be
    given it. least: fewest clients in a sum that it takes.
    """

    TAG: ClassVar[int | None] = 17

    own: Own
    private: bytes = field(repr=False)
    holder: bytes
    least: int

    def receive(self, message: Message, random: SecureRandom) -> Step:
        own, context = self.own, self.own.session.context
        expect(message, context, INPUT, "server", own.party)
        keys = ClientKeys.decode(message.body)
        check_key, public = self._opened(keys)
        coefficients = spread(own.vector, own.parameters, random)
        check = check_value(check_key, coefficients, own.parameters.checks).tobytes()
        back = agree(self.private, keys.published.key, context, "to holder", HOLDER)
        box = seal(back, check, context, str(own.party), random)
        answer = Input(encrypt(coefficients, own.parameters, public), box)
        return Step(self._after(keys.published.key), own.reply(INPUT, answer), marks=own.spent)

    def _after(self, holder: bytes) -> State:
        """Return the state after the input has left: done, but for a client that is to be given the sum."""
        own, session = self.own, self.own.session
        settings = Settings.decode(session.parameters)
        if session.roster[own.index] not in settings.recipients:
            return Left()
        key = agree(self.private, holder, session.context, PURPOSE, HOLDER)
        return Receiving(session, own.index, key, max(self.least, settings.least, session.min_survivors))

    def _opened(self, keys: ClientKeys) -> tuple[bytes, Words]:
        """Return the session's check key and the public key. Raises PeerError unless both are the holder's."""
        own, published, context = self.own, keys.published, self.own.session.context
        if self.holder:
            verify(self.holder, HOLDER_PURPOSE, published.signed(context), published.signature)
        plain = unseal(
            agree(self.private, published.key, context, "to client", HOLDER), keys.box, context, HOLDER
        )
        check_key, digest = plain[:KEY_BYTES], plain[KEY_BYTES:]
        if len(check_key) != KEY_BYTES or digest != published.digest:
            raise ProtocolViolation("the context is not the one that the holder vouches for", "server")
        made = Context.load(published.context, "client", HOLDER)
        if made.parameters != own.parameters:
            raise ProtocolViolation("the holder's context has other parameters than the session", HOLDER)
        return check_key, made.public_key()
