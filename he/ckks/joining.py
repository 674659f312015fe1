"""A client's states before its ciphertexts, where a key holder opens: it joins, and is given the session's keys. What
does not belong here: what others do, what follows the ciphertexts (`he.roles.client`).
"""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from he.ckks.check import KEY_BYTES, check_value
from he.ckks.ciphertexts import encrypt
from he.ckks.context import Context
from he.ckks.digits import spread
from he.ckks.messages import HOLDER_PURPOSE, JOIN, JOIN_PURPOSE, ClientKeys, Join
from he.ckks.parameters import scheme
from he.residues import Words
from he.roles.client import after_input
from he.roles.messages import HOLDER, INPUT, Ask, EncryptedInput, decode
from he.roles.recipients import PURPOSE
from he.sealing import agree, public_key, seal, unseal
from protocols.codec import Record
from protocols.errors import ProtocolViolation
from protocols.identity import Identity, verify
from protocols.kernel import SERVER, Message, Party, State, Step, client, expect, message
from protocols.randomness import SecureRandom
from protocols.session import Session


@dataclass(frozen=True, eq=False)
class OwnInput(Record):
    """What a client brings: who it is, its input and what the input was made from; its key for this session's boxes;
    the holder's signing key, or empty; the fewest clients in a total that it takes.
    """

    session: Session
    index: int
    vector: NDArray[np.int64] = field(repr=False)
    update: bytes
    private: bytes = field(repr=False)
    holder: bytes
    least: int

    @property
    def party(self) -> Party:
        return client(self.index)

    def reply(self, stage: str, body: Record) -> tuple[Message, ...]:
        return (message(self.session.context, stage, self.party, SERVER, body.encode()),)

    def joined(self, identity: Identity | None) -> Join:
        """Return what this client joins with, signed if it has an identity."""
        key = public_key(self.private)
        signed = Join.signed(self.session.context, self.index, key)
        return Join(key, identity.sign(JOIN_PURPOSE, signed) if identity else b"")


@dataclass(frozen=True, eq=False)
class MayJoin(State):
    """Waits to be asked to join."""

    TAG: ClassVar[int | None] = 19

    own: OwnInput
    join: Join

    def receive(self, request: Message, random: SecureRandom) -> Step:
        expect(request, self.own.session.context, JOIN, "server", self.own.party)
        decode(Ask, request.body, "server")
        return Step(HasJoined(self.own), self.own.reply(JOIN, self.join))


@dataclass(frozen=True, eq=False)
class HasJoined(State):
    """Waits for the holder's keys; then encrypts and sends."""

    TAG: ClassVar[int | None] = 20

    own: OwnInput

    def receive(self, request: Message, random: SecureRandom) -> Step:
        own, session = self.own, self.own.session
        expect(request, session.context, INPUT, "server", own.party)
        keys = decode(ClientKeys, request.body, "server")
        check_key, public = self._opened(keys)
        parameters = scheme(session)
        coefficients = spread(own.vector, parameters, random)
        check = check_value(check_key, coefficients, parameters.checks).tobytes()
        box = seal(self._agreed(keys, "to holder"), check, session.context, str(own.party), random)
        answer = EncryptedInput(encrypt(coefficients, parameters, public).encode(), box)
        after = after_input(session, own.index, own.least, self._agreed(keys, PURPOSE))
        return Step(after, own.reply(INPUT, answer), marks=(f"spent/{own.update.hex()}",))

    def _agreed(self, keys: ClientKeys, purpose: str) -> bytes:
        return agree(self.own.private, keys.published.key, self.own.session.context, purpose, HOLDER)

    def _opened(self, keys: ClientKeys) -> tuple[bytes, Words]:
        """Return the session's check key and the public key. Raises PeerError unless both are the holder's."""
        own, published, context = self.own, keys.published, self.own.session.context
        if own.holder:
            verify(own.holder, HOLDER_PURPOSE, published.signed(context), published.signature)
        plain = unseal(self._agreed(keys, "to client"), keys.box, context, HOLDER)
        check_key, digest = plain[:KEY_BYTES], plain[KEY_BYTES:]
        if len(check_key) != KEY_BYTES or digest != published.digest:
            raise ProtocolViolation("the context is not the one that the holder vouches for", "server")
        made = Context.load(published.context, "client", HOLDER)
        if made.parameters != scheme(own.session):
            raise ProtocolViolation("the holder's context has other parameters than the session", HOLDER)
        return check_key, made.public_key()
