"""A client's states in a CKKS sum. What does not belong here: what the server or the holder does."""

import hashlib
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from he.ckks.check import KEY_BYTES, check_value
from he.ckks.ciphertexts import encrypt, encrypt_seeded
from he.ckks.digits import spread
from he.ckks.messages import INPUT, JOIN, OPEN, Ask, ClientKeys, Input, Join, Settings, ToOpen, unpack_public
from he.ckks.opener import check_sums, open_checked
from he.ckks.parameters import CKKSParameters
from he.ckks.seal import ring
from he.sealing import agree, derive, public_key, seal, unseal
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
        if len(check_key) != KEY_BYTES or digest != hashlib.sha256(keys.public).digest():
            raise ProtocolViolation("the public key is not the one that the holder vouches for", "server")
        public = unpack_public(keys.public, own.parameters)
        coefficients = spread(own.vector, own.parameters, random)
        back = agree(self.private, keys.key, context, "to holder", "key-holder")
        box = seal(
            back,
            check_value(check_key, coefficients, own.parameters.checks).tobytes(),
            context,
            str(own.party),
            random,
        )
        answer = Input(encrypt(coefficients, own.parameters, public), box)
        return Step(Left(), own.reply(INPUT, answer), marks=own.spent)


@dataclass(frozen=True)
class Shared(Record):
    """What every client derives from the shared key for one session; nobody else can. Secret."""

    root: bytes = field(repr=False)

    @classmethod
    def of(cls, key: bytes, session: Session) -> "Shared":
        return cls(derive(key, session.context, "session"))

    @property
    def check_key(self) -> bytes:
        return derive(self.root, b"", "check")

    @property
    def box_key(self) -> bytes:
        return derive(self.root, b"", "boxes")

    def secret(self, parameters: CKKSParameters) -> bytes:
        """Return the session's CKKS secret key, the same for every client."""
        seed = derive(self.root, b"", "ckks", 64)
        return ring(parameters.degree, parameters.modulus).secret_from_seed(seed)


@dataclass(frozen=True, eq=False)
class SharedReady(State):
    """SharedByClients: has its vector and the key, waits to be asked; then encrypts under the secret key
    and sends.
    """

    TAG: ClassVar[int | None] = 18

    own: Own
    shared: Shared
    least: int

    def receive(self, message: Message, random: SecureRandom) -> Step:
        own, context = self.own, self.own.session.context
        expect(message, context, INPUT, "server", own.party)
        Ask.decode(message.body)
        coefficients = spread(own.vector, own.parameters, random)
        check = check_value(self.shared.check_key, coefficients, own.parameters.checks).tobytes()
        box = seal(self.shared.box_key, check, context, str(own.party), random)
        upload = encrypt_seeded(coefficients, own.parameters, self.shared.secret(own.parameters))
        after = SharedOpening(own.session, own.index, self.shared, self.least)
        return Step(after, own.reply(INPUT, Input(upload, box)), marks=own.spent)


@dataclass(frozen=True)
class SharedOpening(State):
    """SharedByClients: its input has left; opens the sum once, if it is one."""

    TAG: ClassVar[int | None] = 19

    session: Session
    index: int
    shared: Shared
    least: int

    def receive(self, message: Message, random: SecureRandom) -> Step:
        context, me = self.session.context, client(self.index)
        expect(message, context, OPEN, "server", me)
        request = ToOpen.decode(message.body)
        keys = dict.fromkeys(range(self.session.clients), self.shared.box_key)
        expected = check_sums(request.boxes, keys, self.session, self.least)
        secret = self.shared.secret(Settings.decode(self.session.parameters).ckks)
        opened = open_checked(
            request.total, len(request.boxes), expected, self.shared.check_key, secret, self.session
        )
        return Step(Left(), (_message(context, me, opened),), marks=(f"answered/{context.hex()}",))


def _message(context: bytes, me: Party, body: Record) -> Message:
    return message(context, OPEN, me, SERVER, body.encode())
