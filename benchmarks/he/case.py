"""What every scheme of the suite measures alike: a case, its inputs, and one session run step by step with a clock."""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from he.arrangements import Arrangement, SharedByClients
from he.roles.messages import AGREE
from protocols.kernel import Message, Party, State, Step, client
from protocols.protocol import Stage
from protocols.randomness import SystemRandom
from protocols.summation import SecureSum, Total

T = TypeVar("T")
Vectors = Sequence[NDArray[np.int64]]
RANDOM = SystemRandom()


@dataclass(frozen=True)
class Case:
    """One measurement. bits: of a value, sign included: uniform in [-(2^(bits-1) - 1), 2^(bits-1) - 1]."""

    values: int
    clients: int
    bits: int
    key_bits: int | None
    arrangement: Arrangement
    naive_sample: int
    seed: int

    @property
    def bound(self) -> int:
        return (1 << (self.bits - 1)) - 1

    def vectors(self) -> list[NDArray[np.int64]]:
        """The clients' vectors: benchmark data, drawn from the seed."""
        draw = np.random.default_rng(self.seed).integers
        return [draw(-self.bound, self.bound, self.values, endpoint=True) for _ in range(self.clients)]

    def name(self, scheme: str) -> str:
        """The result's name: one file per case."""
        key = f"-{self.key_bits}" if self.key_bits else ""
        held = "" if scheme == "compare" else f"-{self.arrangement}"
        return f"{scheme}{held}-{self.values}x{self.clients}{key}"

    def arguments(self, scheme: str) -> dict[str, Any]:
        return {
            "scheme": scheme,
            "values": self.values,
            "clients": self.clients,
            "bits": self.bits,
            "key_bits": self.key_bits,
            "arrangement": str(self.arrangement),
        }


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """Return what `work` returns, and its seconds."""
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def median(seconds: Sequence[float]) -> float:
    return float(statistics.median(seconds))


@dataclass
class Clocked:
    """One session, message by message, every step timed.

    client: seconds of each client up to its upload. opener: seconds per step of those who open (holder,
    decryptors; one client where clients open, for one is enough). receive, close: the server's seconds by
    stage. upload: bytes of client 0's counting message. between: called between steps, outside their time: what
    a ratio is formed with is sampled there, so that a drifting machine slows both alike. openings: how often
    an opener's step is taken and timed (its answer is the same).
    """

    protocol: SecureSum
    case: Case
    client: list[float] = field(default_factory=list)
    opener: list[float] = field(default_factory=list)
    receive: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    close: dict[str, float] = field(default_factory=dict)
    upload: int = 0
    between: Callable[[], None] = lambda: None
    openings: int = 1

    def run(self, vectors: Vectors) -> NDArray[np.int64]:
        """Run the session and return the sum."""
        protocol, case = self.protocol, self.case
        names = [str(i) for i in range(case.clients)]
        session = protocol.session(names, case.values, case.bound, random=RANDOM)
        parties: dict[Party, State] = {
            p: protocol.helper(session, p, random=RANDOM).state for p in protocol.helpers(session)
        }
        for i, vector in enumerate(vectors):
            step, seconds = timed(partial(protocol.client, session, i, vector, random=RANDOM))
            parties[client(i)] = step.state
            self.client.append(seconds)
            self.between()
        step = protocol.server(session, random=RANDOM)
        for stage in protocol.stages(session):
            state = self._stage(stage, step, parties)
            step, self.close[stage.name] = timed(partial(state.close, RANDOM))
        assert isinstance(step.state, Total)
        return step.state.total

    def _stage(self, stage: Stage, asked: Step, parties: dict[Party, State]) -> State:
        state, opening = asked.state, self._opened_by_clients(stage)
        for request in asked.send:
            party = request.recipient
            if opening and party != client(0):
                continue
            opens = opening or (stage.role != "client" and stage.name != AGREE)
            for _ in range(self.openings if opens else 1):
                step, seconds = timed(partial(parties[party].receive, request, RANDOM))
                if opens:
                    self.opener.append(seconds)
                    self.between()
                elif stage.role == "client":
                    self.client[party.number] += seconds
            parties[party] = step.state
            for answer in step.send:
                state = self._answer(stage, state, answer)
        return state

    def _answer(self, stage: Stage, state: State, answer: Message) -> State:
        if stage.counts and answer.sender == client(0):
            self.upload = answer.size
        step, seconds = timed(partial(state.receive, answer, RANDOM))
        self.receive[stage.name] += seconds
        return step.state

    def _opened_by_clients(self, stage: Stage) -> bool:
        shared = isinstance(getattr(self.protocol, "arrangement", None), SharedByClients)
        return shared and stage.name == "open"


def is_exact(total: NDArray[np.int64], vectors: Vectors) -> bool:
    """True if `total` is the sum, integer by integer."""
    return bool(np.array_equal(total, np.sum(np.stack(vectors), axis=0)))
