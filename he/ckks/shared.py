"""A client's states where all clients share the key. What does not belong here: what the server does, the
key's file.

Every client could open anything, so honest ones open only what most of them agreed to: without that, a
server that asks one client for the sum of all and another for the sum of all but one learns the difference.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self

from he.ckks.check import check_value
from he.ckks.ciphertexts import encrypt_seeded
from he.ckks.client import Own
from he.ckks.digits import spread
from he.ckks.messages import AGREE, INPUT, OPEN, Agreed, Ask, Input, Settings, Survivors, ToOpen
from he.ckks.opener import check_sums, open_checked
from he.ckks.parameters import CKKSParameters
from he.ckks.seal import ring
from he.sealing import derive, seal
from protocols.codec import Record
from protocols.errors import PolicyRefusal, ProtocolViolation
from protocols.kernel import SERVER, Left, Message, State, Step, client, expect, message
from protocols.randomness import SecureRandom
from protocols.session import Session


@dataclass(frozen=True)
class Shared(Record):
    """What every client derives from the shared key for one session; nobody else can. Secret."""

    root: bytes = field(repr=False)

    @classmethod
    def of(cls, key: bytes, session: Session) -> Self:
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

    def agreement(self, index: int, survivors: Survivors) -> bytes:
        """Return what shows the other clients that client `index` agreed to these survivors (HMAC-SHA256)."""
        return hmac.digest(derive(self.root, b"", f"agree {index}"), survivors.encode(), "sha256")


@dataclass(frozen=True)
class Member(Record):
    """Who takes part: the session, its place in it, what it shares, and the fewest contributions that it
    opens.
    """

    session: Session
    index: int
    shared: Shared
    least: int

    def expect(self, message: Message, stage: str) -> None:
        expect(message, self.session.context, stage, "server", client(self.index))

    def reply(self, stage: str, body: Record) -> tuple[Message, ...]:
        return (message(self.session.context, stage, client(self.index), SERVER, body.encode()),)


@dataclass(frozen=True, eq=False)
class SharedReady(State):
    """Has its vector and the key, waits to be asked; then encrypts under the secret key and sends."""

    TAG: ClassVar[int | None] = 18

    own: Own
    member: Member

    def receive(self, message: Message, random: SecureRandom) -> Step:
        own, shared = self.own, self.member.shared
        self.member.expect(message, INPUT)
        Ask.decode(message.body)
        coefficients = spread(own.vector, own.parameters, random)
        check = check_value(shared.check_key, coefficients, own.parameters.checks).tobytes()
        box = seal(shared.box_key, check, own.session.context, str(own.party), random)
        upload = encrypt_seeded(coefficients, own.parameters, shared.secret(own.parameters))
        return Step(SharedSent(self.member), self.member.reply(INPUT, Input(upload, box)), marks=own.spent)


@dataclass(frozen=True)
class SharedSent(State):
    """Its input has left; agrees to one list of survivors, whichever comes first."""

    TAG: ClassVar[int | None] = 19

    member: Member

    def receive(self, message: Message, random: SecureRandom) -> Step:
        me = self.member
        me.expect(message, AGREE)
        survivors = Survivors.decode(message.body)
        if list(survivors.clients) != sorted(set(survivors.clients)) or me.index not in survivors.clients:
            raise ProtocolViolation("expected ascending survivors, this client among them", "server")
        if len(survivors.clients) < me.least:
            raise PolicyRefusal(
                f"contributions: at least {me.least} are demanded before a sum is opened, {len(survivors.clients)} came"
            )
        mac = me.shared.agreement(me.index, survivors)
        return Step(
            SharedOpening(me, survivors),
            me.reply(AGREE, Agreed(mac)),
            marks=(f"agreed/{me.session.context.hex()}",),
        )


@dataclass(frozen=True)
class SharedOpening(State):
    """Has agreed; opens the sum of the survivors it agreed to, once, if most clients agreed to them too."""

    TAG: ClassVar[int | None] = 20

    member: Member
    survivors: Survivors

    def receive(self, message: Message, random: SecureRandom) -> Step:
        me, session = self.member, self.member.session
        me.expect(message, OPEN)
        request = ToOpen.decode(message.body)
        self._majority(request.agreed)
        if tuple(sorted(request.boxes)) != self.survivors.clients:
            raise ProtocolViolation("expected the boxes of the survivors that were agreed to", "server")
        keys = dict.fromkeys(range(session.clients), me.shared.box_key)
        expected = check_sums(request.boxes, keys, session, me.least)
        secret = me.shared.secret(Settings.decode(session.parameters).ckks)
        opened = open_checked(
            request.total, len(request.boxes), expected, me.shared.check_key, secret, session
        )
        return Step(Left(), me.reply(OPEN, opened), marks=(f"answered/{session.context.hex()}",))

    def _majority(self, agreed: Mapping[int, bytes]) -> None:
        """Two lists never both have more than half of the roster behind them."""
        for index, mac in agreed.items():
            known = 0 <= index < self.member.session.clients
            if not known or not hmac.compare_digest(mac, self.member.shared.agreement(index, self.survivors)):
                raise ProtocolViolation(f"client {index} did not agree to these survivors", "server")
        if 2 * len(agreed) <= self.member.session.clients:
            raise ProtocolViolation(
                "expected more than half of the clients to agree to the survivors", "server"
            )
