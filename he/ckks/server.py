"""The server's states: relays keys and boxes, adds ciphertexts, asks for the sum to be opened. It holds no
secret key.

What does not belong here: anything that could decrypt.
"""

import hashlib
from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from he.ckks.ciphertexts import Adder
from he.ckks.context import Context
from he.ckks.messages import (
    AGREE,
    HOLDER,
    INPUT,
    JOIN,
    KEY,
    OPEN,
    Agreed,
    ClientKeys,
    HolderKeys,
    Input,
    Join,
    Joined,
    Opened,
    Settings,
    Survivors,
    ToOpen,
)  # fmt: skip
from he.ckks.opener import taken
from he.delivery import expect_boxes, finish, named
from protocols.codec import Record
from protocols.errors import Aborted, ProtocolViolation, TooFewSurvivors, WireError
from protocols.kernel import SERVER, Message, Party, State, Step, client, expect, message
from protocols.randomness import SecureRandom
from protocols.session import Session

R = TypeVar("R", bound=Record)


def settings(session: Session) -> Settings:
    return Settings.decode(session.parameters)


def ask(session: Session, stage: str, bodies: Mapping[Party, Record]) -> tuple[Message, ...]:
    """Return the requests of a stage, one per party."""
    return tuple(message(session.context, stage, SERVER, to, body.encode()) for to, body in bodies.items())


def _sender(
    session: Session, message: Message, stage: str, asked: Container[int], answered: Container[int]
) -> int:
    """Return the sending client's index. Raises ProtocolViolation unless it was asked and answers for the
    first time.
    """
    expect(message, session.context, stage, "client", SERVER)
    index = message.sender.number
    if index not in asked or index in answered:
        raise ProtocolViolation("expected one answer from each client that was asked", str(message.sender))
    return index


def _enough(session: Session, clients: int, what: str) -> None:
    least = max(settings(session).least, session.min_survivors)
    if clients < least:
        raise TooFewSurvivors(f"expected at least {least} clients to {what}, {clients} did")


@dataclass(frozen=True)
class Joins(State):
    """KeyHolder: collects the clients' public keys for boxes."""

    TAG: ClassVar[int | None] = 32

    session: Session
    keys: dict[int, Join]

    def receive(self, message: Message, random: SecureRandom) -> Step:
        index = _sender(self.session, message, JOIN, range(self.session.clients), self.keys)
        self.keys[index] = _decoded(Join, message)
        return Step(self)

    def waiting_for(self) -> list[Party]:
        return [client(i) for i in range(self.session.clients) if i not in self.keys]

    def close(self, random: SecureRandom) -> Step:
        _enough(self.session, len(self.keys), "join")
        return Step(
            Keys(self.session, self.keys, None), ask(self.session, KEY, {Party(HOLDER): Joined(self.keys)})
        )


@dataclass(frozen=True)
class Keys(State):
    """KeyHolder: waits for the holder's keys."""

    TAG: ClassVar[int | None] = 33

    session: Session
    keys: dict[int, Join]
    answer: HolderKeys | None

    def receive(self, message: Message, random: SecureRandom) -> Step:
        expect(message, self.session.context, KEY, HOLDER, SERVER)
        answer = _decoded(HolderKeys, message)
        if self.answer is not None or set(answer.boxes) != set(self.keys):
            raise ProtocolViolation(
                "expected one answer, with a box for every client that joined", str(message.sender)
            )
        Context.load(answer.published.context, "server", str(message.sender))
        return Step(replace(self, answer=answer))

    def waiting_for(self) -> list[Party]:
        return [] if self.answer else [Party(HOLDER)]

    def close(self, random: SecureRandom) -> Step:
        if self.answer is None:
            raise Aborted("the key holder sent no key")
        keys = self.answer
        bodies = {client(i): ClientKeys(keys.published, box) for i, box in keys.boxes.items()}
        return Step(Inputs.empty(self.session, tuple(keys.boxes)), ask(self.session, INPUT, bodies))


@dataclass(frozen=True, eq=False)
class Inputs(State):
    """Adds ciphertexts as they arrive and keeps the boxes."""

    TAG: ClassVar[int | None] = 34

    session: Session
    asked: tuple[int, ...]
    adder: Adder
    boxes: dict[int, bytes]

    @classmethod
    def empty(cls, session: Session, asked: tuple[int, ...]) -> "Inputs":
        return cls(session, asked, Adder.empty(settings(session).ckks), {})

    def receive(self, message: Message, random: SecureRandom) -> Step:
        index = _sender(self.session, message, INPUT, self.asked, self.boxes)
        answer = _decoded(Input, message)
        try:
            self.adder.add(answer.upload)
        except WireError as error:
            raise WireError(str(error), str(message.sender)) from None
        self.boxes[index] = answer.box
        return Step(self)

    def waiting_for(self) -> list[Party]:
        return [client(i) for i in self.asked if i not in self.boxes]

    def close(self, random: SecureRandom) -> Step:
        _enough(self.session, len(self.boxes), "send their input")
        request = ToOpen(self.adder.finish(), self.boxes, {})
        survivors = tuple(sorted(self.boxes))
        if settings(self.session).arrangement == "shared":
            asked = {client(i): Survivors(survivors) for i in survivors}
            return Step(Agreements(self.session, request), ask(self.session, AGREE, asked))
        state = Opening(self.session, survivors, (Party(HOLDER).number,), HOLDER, {}, {})
        return Step(state, ask(self.session, OPEN, {Party(HOLDER): request}))


@dataclass(frozen=True)
class Agreements(State):
    """SharedByClients: collects the survivors' agreement to their list, without which none of them opens."""

    TAG: ClassVar[int | None] = 36

    session: Session
    request: ToOpen

    def receive(self, message: Message, random: SecureRandom) -> Step:
        index = _sender(self.session, message, AGREE, self.request.boxes, self.request.agreed)
        self.request.agreed[index] = _decoded(Agreed, message).mac
        return Step(self)

    def waiting_for(self) -> list[Party]:
        return [client(i) for i in self.request.boxes if i not in self.request.agreed]

    def close(self, random: SecureRandom) -> Step:
        if 2 * len(self.request.agreed) <= self.session.clients:
            raise TooFewSurvivors(
                f"expected more than half of {self.session.clients} clients to agree, {len(self.request.agreed)} did"
            )
        openers = tuple(sorted(self.request.agreed))
        state = Opening(self.session, tuple(sorted(self.request.boxes)), openers, "client", {}, {})
        return Step(state, ask(self.session, OPEN, {client(i): self.request for i in openers}))


@dataclass(frozen=True, eq=False)
class Opening(State):
    """Waits for the exact sum. Where clients open, more than half of the answers must agree; the others are
    blamed.

    answers: opener -> digest of the sum it gave (empty: it refused). totals: the sums, by digest. boxes: what the
    key holder sealed to named clients.
    """

    TAG: ClassVar[int | None] = 35

    session: Session
    survivors: tuple[int, ...]
    openers: tuple[int, ...]
    role: str
    answers: dict[int, bytes]
    totals: dict[bytes, NDArray[np.int64]]
    refusal: str = ""
    boxes: dict[int, bytes] = field(default_factory=dict)

    def receive(self, message: Message, random: SecureRandom) -> Step:
        expect(message, self.session.context, OPEN, self.role, SERVER)
        number, who = message.sender.number, str(message.sender)
        if number not in self.openers or number in self.answers:
            raise ProtocolViolation("expected one answer from each opener", who)
        opened = _decoded(Opened, message)
        if opened.refusal:
            self.answers[number] = b""
            return Step(replace(self, refusal=f"{who} refused to open: {opened.refusal}"))
        values = taken(opened, self.session, who)
        expect_boxes(
            opened.boxes, named(self.session, settings(self.session).recipients, self.survivors), who
        )
        self.answers[number] = hashlib.sha256(values.tobytes()).digest()
        self.totals.setdefault(self.answers[number], values)
        return Step(replace(self, boxes=opened.boxes))

    def waiting_for(self) -> list[Party]:
        return [Party(self.role, i) for i in self.openers if i not in self.answers]

    def close(self, random: SecureRandom) -> Step:
        given = {number: digest for number, digest in self.answers.items() if digest}
        if not given:
            raise Aborted(self.refusal or f"no {self.role} opened the sum")
        digest, votes = Counter(given.values()).most_common(1)[0]
        if 2 * votes <= len(given):
            raise Aborted("the openers disagree about the sum, and none has a majority")
        blamed = tuple(str(Party(self.role, i)) for i, other in given.items() if other != digest)
        return finish(self.session, self.totals[digest], self.survivors, blamed, self.boxes)


def _decoded(kind: type[R], message: Message) -> R:
    """Decode a body; an error names the sender."""
    try:
        return kind.decode(message.body)
    except WireError as error:
        raise WireError(str(error), str(message.sender)) from None
