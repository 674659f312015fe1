"""A whole protocol that somebody else wrote, as a SecureSum: every property of the audit is then in sight.

cd examples; secagg audit audit_whole_sum:TheirSum

`pack` and `add` stand for the foreign code. A party is a chain of states, each a Record, so that the audit can stop it,
wind it back and hand it other messages; what the foreign code keeps between two messages belongs into these fields.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from protocols import SecureSum
from protocols.audit_hooks import Hooks
from protocols.codec import Record, tags
from protocols.errors import Misuse, PeerError, PolicyRefusal, TooFewSurvivors
from protocols.kernel import Left, Message, State, Step, client, spending
from protocols.policy import Demands
from protocols.protocol import ClientStart, Stage
from protocols.randomness import SecureRandom
from protocols.roles import Ask, Asked, Asking, requests
from protocols.session import Session
from protocols.statement import Protection
from protocols.summation import Total, centred


def pack(vector: np.ndarray) -> bytes:
    """Theirs: what a client sends."""
    return json.dumps(vector.tolist()).encode()


def add(bodies: list[bytes]) -> list[int]:
    """Theirs: what the server makes of it. Raises ValueError for what is no list of numbers."""
    return [sum(column) for column in zip(*(json.loads(body) for body in bodies), strict=True)]


@dataclass(frozen=True)
class Nothing(Record):
    """Public parameters: none."""


@dataclass(frozen=True)
class Sent(Record):
    """Client to server: what their code made, as it is."""

    packed: bytes = field(repr=False)


@dataclass(frozen=True, eq=False)
class Waiting(Asking):
    """The server: holds what came until nobody else answers. answers: by client, what it sent."""

    TAG: ClassVar[int | None] = 16
    STAGE: ClassVar[str] = "input"

    session: Session
    answers: dict[int, bytes] = field(repr=False)

    def receive(self, message: Message, random: SecureRandom) -> Step:
        index, given = self.take(Sent, message)
        try:  # an exception of theirs is a refusal by name, and the session goes on without that client
            SecureSum.checked_input(self.session, np.array(add([given.packed])))
        except (ValueError, TypeError, OverflowError, RecursionError, Misuse, PolicyRefusal) as error:
            raise PeerError(f"{type(error).__name__} in their code", str(message.sender)) from None
        return Step(Waiting(self.session, {**self.answers, index: given.packed}))

    def close(self, random: SecureRandom) -> Step:
        if len(self.answers) < self.session.min_survivors:
            raise TooFewSurvivors(
                f"expected {self.session.min_survivors} clients, {len(self.answers)} answered"
            )
        total = np.array(add(list(self.answers.values())) or [0] * self.session.dimension, np.int64)
        modulus = int(self.session.modulus) or 1 << 64
        return Step(Total(centred(total.view(np.uint64), modulus), tuple(sorted(self.answers))))


@dataclass(frozen=True, eq=False)
class Ready(Asked):
    """A client that waits to be asked. vector: its input."""

    TAG: ClassVar[int | None] = 17
    STAGE: ClassVar[str] = "input"

    session: Session
    index: int
    vector: np.ndarray[Any, np.dtype[np.int64]] = field(repr=False)
    update: bytes

    def receive(self, request: Message, random: SecureRandom) -> Step:
        self.take(Ask, request)
        return Step(Left(), self.answer(Sent(pack(self.vector))), marks=(spending(self.update),))


class TheirSum(SecureSum):
    """The interface in full: names, stages, what is asked and said, and how each role starts."""

    name = "theirs"

    @property
    def kinds(self) -> Mapping[int, type[State]]:
        return tags(Waiting, Ready)

    @property
    def audit_hooks(self) -> Hooks:
        return Hooks(tolerated=lambda session, gone: len(gone.get("input", ())) < session.clients)

    def parameters(self, clients: int, dimension: int, bound: int, modulus: int) -> Record:
        return Nothing()

    def stages(self, session: Session) -> tuple[Stage, ...]:
        return (Stage("input", counts=True),)

    def demands(self, session: Session) -> Demands:
        return Demands(session.clients, session.min_survivors, 64, "none", simulated=session.simulated)

    def protection(self, session: Session) -> Protection:
        return Protection(
            mechanism="theirs", threat="none", hidden="nothing", learns={"server": "every vector"}, assumptions=(),
            collusion="the server alone reads every vector", limits=("a client may add anything",),
        )  # fmt: skip

    def _server(self, session: Session, random: SecureRandom, memory: bytes | None) -> Step:
        return Step(
            Waiting(session, {}),
            requests(session, "input", dict.fromkeys(map(client, range(session.clients)), Ask())),
        )

    def _client(self, start: ClientStart[Any]) -> Step:
        return Step(Ready(start.session, start.index, start.vector, start.update))
