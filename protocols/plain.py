"""PlainSum: the reference. Clients send their vectors in clear; it protects nothing and says so."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from protocols.codec import Record, tags
from protocols.errors import Misuse, PeerError, PolicyRefusal, ProtocolViolation, TooFewSurvivors, WireError
from protocols.kernel import SERVER, Left, Message, Party, State, Step, client, expect, message
from protocols.policy import Demands, Policy
from protocols.protocol import Stage
from protocols.randomness import SecureRandom
from protocols.session import Session
from protocols.statement import Protection
from protocols.summation import IntVector, SecureSum, Total, add_into, centred

INPUT = "input"


@dataclass(frozen=True)
class PlainParameters(Record):
    """PlainSum has none."""


@dataclass(frozen=True)
class Ask(Record):
    """Server to client: send your vector."""


@dataclass(frozen=True, eq=False)
class Input(Record):
    """Client to server: the vector in clear, int32 where the session's bound allows, else int64."""

    vector: NDArray[np.int64] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Waiting(State):
    """Server: adds vectors as they arrive. O(dimension) memory."""

    TAG: ClassVar[int | None] = 16

    session: Session
    total: NDArray[np.uint64]
    arrived: dict[int, bool]

    def receive(self, message: Message, random: SecureRandom) -> Step:
        expect(message, self.session.context, INPUT, "client", SERVER)
        index = message.sender.number
        if index >= self.session.clients or index in self.arrived:
            raise ProtocolViolation("expected one input from a client of the roster", str(message.sender))
        try:
            vector = SecureSum.checked_input(self.session, Input.decode(message.body).vector)
        except WireError as error:
            raise WireError(str(error), str(message.sender)) from None
        except (Misuse, PolicyRefusal) as error:
            raise PeerError(str(error), str(message.sender)) from None
        add_into(self.total, vector, int(self.session.modulus))
        self.arrived[index] = True
        return Step(self)

    def waiting_for(self) -> list[Party]:
        return [client(i) for i in range(self.session.clients) if i not in self.arrived]

    def close(self, random: SecureRandom) -> Step:
        if len(self.arrived) < self.session.min_survivors:
            raise TooFewSurvivors(
                f"expected at least {self.session.min_survivors} clients to send their input, {len(self.arrived)} did"
            )
        modulus = int(self.session.modulus) or 1 << 64
        return Step(Total(centred(self.total, modulus), tuple(sorted(self.arrived))))


@dataclass(frozen=True, eq=False)
class Ready(State):
    """Client: has its vector, waits to be asked."""

    TAG: ClassVar[int | None] = 17

    session: Session
    index: int
    vector: NDArray[np.int64] = field(repr=False)
    update: bytes

    def receive(self, request: Message, random: SecureRandom) -> Step:
        me = client(self.index)
        expect(request, self.session.context, INPUT, "server", me)
        Ask.decode(request.body)
        answer = message(self.session.context, INPUT, me, SERVER, Input(self._narrowed()).encode())
        return Step(Left(), (answer,), marks=(f"spent/{self.update.hex()}",))

    def _narrowed(self) -> NDArray[Any]:
        fits = not self.session.modulus and self.session.bound < 1 << 31
        return self.vector.astype(np.int32) if fits else self.vector


class PlainSum(SecureSum):
    """The sum in clear: the reference that every other backend must equal, and a stack's last layer where
    none was named.
    """

    name = "none"
    default_policy = Policy(min_cohort=1, min_survivors=1)
    server_sees_vectors: ClassVar[bool] = True

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
        asks = tuple(
            message(session.context, INPUT, SERVER, client(i), Ask().encode()) for i in range(session.clients)
        )
        return Step(Waiting(session, np.zeros(session.dimension, np.uint64), {}), asks)

    def _client(
        self,
        session: Session,
        index: int,
        vector: IntVector,
        random: SecureRandom,
        policy: Policy,
        update: bytes,
        memory: bytes | None,
    ) -> Step:
        return Step(Ready(session, index, vector, update))
