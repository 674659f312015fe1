"""A client's states where a key holder opens. What does not belong here: what others do, keys that clients
share.
"""

import hashlib
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from he.ckks.check import KEY_BYTES, check_value
from he.ckks.ciphertexts import encrypt
from he.ckks.context import Context
from he.ckks.digits import spread
from he.ckks.messages import INPUT, JOIN, Ask, ClientKeys, Input, Join, Settings
from he.ckks.parameters import CKKSParameters
from he.sealing import agree, public_key, seal, unseal
from protocols.codec import Record
from protocols.errors import ProtocolViolation
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
    """KeyHolder: has its vector, waits to be asked to join."""

    TAG: ClassVar[int | None] = 16

    own: Own

    def receive(self, message: Message, random: SecureRandom) -> Step:
        expect(message, self.own.session.context, JOIN, "server", self.own.party)
        Ask.decode(message.body)
        private = random.bytes(32)
        return Step(Joining(self.own, private), self.own.reply(JOIN, Join(public_key(private))))


@dataclass(frozen=True, eq=False)
class Joining(State):
    """KeyHolder: has sent a key for boxes, waits for the holder's keys; then encrypts, sends and is done."""

    TAG: ClassVar[int | None] = 17

    own: Own
    private: bytes = field(repr=False)

    def receive(self, message: Message, random: SecureRandom) -> Step:
        own, context = self.own, self.own.session.context
        expect(message, context, INPUT, "server", own.party)
        keys = ClientKeys.decode(message.body)
        plain = unseal(
            agree(self.private, keys.key, context, "to client", "key-holder"), keys.box, context, "key-holder"
        )
        check_key, digest = plain[:KEY_BYTES], plain[KEY_BYTES:]
        if len(check_key) != KEY_BYTES or digest != hashlib.sha256(keys.context).digest():
            raise ProtocolViolation("the context is not the one that the holder vouches for", "server")
        holder = Context.load(keys.context, "client", "key-holder")
        if holder.parameters != own.parameters:
            raise ProtocolViolation(
                "the holder's context has other parameters than the session", "key-holder"
            )
        coefficients = spread(own.vector, own.parameters, random)
        back = agree(self.private, keys.key, context, "to holder", "key-holder")
        box = seal(
            back,
            check_value(check_key, coefficients, own.parameters.checks).tobytes(),
            context,
            str(own.party),
            random,
        )
        answer = Input(encrypt(coefficients, own.parameters, holder.public_key()), box)
        return Step(Left(), own.reply(INPUT, answer), marks=own.spent)
