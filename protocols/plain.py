"""PlainSum: the reference. Clients send their vectors in clear; it protects nothing and says so."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from protocols.codec import Record, tags
from protocols.errors import Misuse, PeerError, PolicyRefusal, TooFewSurvivors
from protocols.kernel import Left, Message, State, Step, client, spending
from protocols.policy import Demands, Policy
from protocols.protocol import ClientStart, Stage
from protocols.randomness import SecureRandom
from protocols.roles import Ask, Asked, Asking, requests
from protocols.session import Session
from protocols.statement import Protection
from protocols.summation import IntVector, SecureSum, Total, add_into, centred

INPUT = "input"


@dataclass(frozen=True)
class PlainParameters(Record):
    """PlainSum has none."""


@dataclass(frozen=True, eq=False)
class PlainInput(Record):
    """Client to server: the vector in clear, int32 where the session's bound allows, else int64."""

    vector: NDArray[np.int64] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Waiting(Asking):
    """Server: adds vectors as they arrive. O(dimension) memory."""

    TAG = 16
    STAGE = INPUT

    session: Session
    total: NDArray[np.uint64]
    answers: dict[int, bool]

    def receive(self, message: Message, random: SecureRandom) -> Step:
        index, given = self.take(PlainInput, message)
        try:
            vector = SecureSum.checked_input(self.session, given.vector)
        except (Misuse, PolicyRefusal) as error:
            raise PeerError(str(error), str(message.sender)) from None
        add_into(self.total, vector, int(self.session.modulus))
        self.answers[index] = True
        return Step(self)

    def close(self, random: SecureRandom) -> Step:
        if len(self.answers) < self.session.min_survivors:
            raise TooFewSurvivors(
                f"expected at least {self.session.min_survivors} clients to send their input, {len(self.answers)} did"
            )
        modulus = int(self.session.modulus) or 1 << 64
        return Step(Total(centred(self.total, modulus), tuple(sorted(self.answers))))


@dataclass(frozen=True, eq=False)
class Ready(Asked):
    """Client: has its vector, waits to be asked."""

    TAG = 17
    STAGE = INPUT

    session: Session
    index: int
    vector: NDArray[np.int64] = field(repr=False)
    update: bytes

    def receive(self, request: Message, random: SecureRandom) -> Step:
        self.take(Ask, request)
        fits = not self.session.modulus and self.session.bound < 1 << 31
        sent = PlainInput(self.vector.astype(np.int32) if fits else self.vector)
        return Step(Left(), self.answer(sent), marks=(spending(self.update),))


class PlainSum(SecureSum):
    """The sum in clear: it protects nothing. Every other secure sum must equal it, and a stack without a secure sum
    ends in it.

        simulate(PlainSum(), {"a": [1, 2], "b": [3, 4]}).total   # array([4, 6])
    """

    name = "none"
    default_policy = Policy(min_cohort=1, min_survivors=1)
    server_sees_vectors = True

    @property
    def kinds(self) -> Mapping[int, type[State]]:
        return tags(Waiting, Ready)

    def parameters(self, clients: int, dimension: int, bound: int, modulus: int) -> PlainParameters:
        return PlainParameters()

    def stages(self, session: Session) -> tuple[Stage, ...]:
        return (Stage(INPUT, counts=True),)

    def demands(self, session: Session) -> Demands:
        return Demands(session.clients, session.min_survivors, 64, "none", simulated=session.simulated)

    def protection(self, session: Session) -> Protection:
        return Protection(
            mechanism="plain sum, no protection",
            threat="none",
            hidden="nothing",
            learns={"server": "every client's update", "clients": "what the server publishes"},
            assumptions=(),
            collusion="the server alone reads every update",
            limits=("every update is sent in clear to the server",),
        )

    def _server(self, session: Session, random: SecureRandom, memory: bytes | None) -> Step:
        asks = requests(session, INPUT, dict.fromkeys(map(client, range(session.clients)), Ask()))
        return Step(Waiting(session, np.zeros(session.dimension, np.uint64), {}), asks)

    def _client(self, start: ClientStart[IntVector]) -> Step:
        return Step(Ready(start.session, start.index, start.vector, start.update))
