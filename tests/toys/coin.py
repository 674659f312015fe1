"""A joint coin by commit and reveal (Blum 1983): a protocol whose result is 32 bytes and no sum.

Every client commits to 32 random bytes, then opens them; the coin is the hash of all that were opened.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from protocols.codec import BigInt, Record, tags
from protocols.errors import Misuse, ProtocolViolation, TooFewSurvivors
from protocols.kernel import SERVER, Finished, Left, Message, Party, State, Step, client, expect, message
from protocols.policy import Demands
from protocols.protocol import ClientStart, Protocol, Stage
from protocols.randomness import SecureRandom
from protocols.session import Session
from protocols.statement import Protection

COMMIT, REVEAL = "commit", "reveal"


@dataclass(frozen=True)
class Ask(Record):
    """Server to client: your commitment; or, once all commitments are in, what you committed to."""


@dataclass(frozen=True)
class Bytes(Record):
    """Client to server: a commitment (32 bytes), or the value behind it."""

    value: bytes


@dataclass(frozen=True)
class Coin(Finished):
    """The result: 32 bytes that no single party chose."""

    TAG: ClassVar[int | None] = 16

    value: bytes


def commitment(session: Session, index: int, value: bytes) -> bytes:
    return hashlib.sha256(b"toy coin\0" + session.context + index.to_bytes(4, "big") + value).digest()


@dataclass(frozen=True)
class Committing(State):
    """Client: waits to be asked for its commitment, then for the value."""

    TAG: ClassVar[int | None] = 17

    session: Session
    index: int
    value: bytes = field(repr=False)
    committed: bool = False

    def receive(self, request: Message, random: SecureRandom) -> Step:
        me, stage = client(self.index), REVEAL if self.committed else COMMIT
        expect(request, self.session.context, stage, "server", me)
        sent = self.value if self.committed else commitment(self.session, self.index, self.value)
        answer = message(self.session.context, stage, me, SERVER, Bytes(sent).encode())
        after = Left() if self.committed else replace(self, committed=True)
        return Step(after, (answer,))


@dataclass(frozen=True)
class Collecting(State):
    """Server: commitments first, then the values that match them."""

    TAG: ClassVar[int | None] = 18

    session: Session
    commitments: dict[int, bytes]
    values: dict[int, bytes]
    revealing: bool = False

    def receive(self, answer: Message, random: SecureRandom) -> Step:
        expect(answer, self.session.context, REVEAL if self.revealing else COMMIT, "client", SERVER)
        index, value = answer.sender.number, Bytes.decode(answer.body).value
        into = self.values if self.revealing else self.commitments
        if index in into or index >= self.session.clients:
            raise ProtocolViolation("expected one answer from a client of the roster", str(answer.sender))
        if self.revealing and commitment(self.session, index, value) != self.commitments.get(index):
            raise ProtocolViolation("the value is not the one committed to", str(answer.sender))
        into[index] = value
        return Step(self)

    def close(self, random: SecureRandom) -> Step:
        came = self.values if self.revealing else self.commitments
        if len(came) < max(self.session.min_survivors, 2):
            raise TooFewSurvivors(f"expected two clients or more, got {len(came)}")
        if self.revealing:
            joined = b"".join(self.values[i] for i in sorted(self.values))
            return Step(Coin(hashlib.sha256(joined).digest()))
        state = Collecting(self.session, self.commitments, {}, True)
        return Step(state, tuple(ask(self.session, REVEAL, i) for i in sorted(self.commitments)))

    def waiting_for(self) -> list[Party]:
        came = self.values if self.revealing else self.commitments
        return [client(i) for i in range(self.session.clients) if i not in came]


def ask(session: Session, stage: str, index: int) -> Message:
    return message(session.context, stage, SERVER, client(index), Ask().encode())


class JointCoin(Protocol[bytes]):
    """Clients bring 32 bytes each; the server ends with a `Coin`."""

    name = "toy-coin"

    def stages(self, session: Session) -> tuple[Stage, ...]:
        return Stage(COMMIT), Stage(REVEAL, counts=True)

    def demands(self, session: Session) -> Demands:
        return Demands(session.clients, session.min_survivors, 64, "none", simulated=session.simulated)

    def protection(self, session: Session) -> Protection:
        return Protection(
            mechanism="commit and reveal",
            threat="none",
            hidden="nothing once all is opened",
            learns={"server": "every value"},
            assumptions=("SHA-256 binds",),
            collusion="whoever sees the others' values may leave before opening its own",
            limits=("the last to open may withhold",),
        )

    def open(
        self, roster: list[str], random: SecureRandom, model: bytes = bytes(32), simulated: bool = False
    ) -> Session:
        nonce = random.bytes(16)
        return Session(
            self.tag, b"", tuple(roster), 1, 0, BigInt(0), 1, model, nonce, simulated, min_survivors=2
        )

    @staticmethod
    def checked_input(session: Session, vector: Any) -> bytes:
        if not isinstance(vector, bytes) or len(vector) != 32:
            raise Misuse("expected 32 bytes")
        return vector

    @staticmethod
    def input_bytes(vector: bytes) -> bytes:
        return vector

    def _server(self, session: Session, random: SecureRandom, memory: bytes | None) -> Step:
        asks = tuple(ask(session, COMMIT, i) for i in range(session.clients))
        return Step(Collecting(session, {}, {}), asks)

    def _client(self, start: ClientStart[bytes]) -> Step:
        return Step(Committing(start.session, start.index, start.vector))

    @property
    def kinds(self) -> Mapping[int, type[State]]:
        return tags(Coin, Committing, Collecting)
