"""What is audited, behind one small face. A SecureSum is a white box; black boxes are in `blackbox`."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from protocols.audit.repeatable import ReplayRandom
from protocols.audit_hooks import Hooks
from protocols.errors import Aborted, Misuse, SecAggError
from protocols.kernel import Finished, Message, State
from protocols.policy import THREATS, Policy
from protocols.protocol import Protocol
from protocols.randomness import SystemRandom
from protocols.session import Session
from protocols.simulate import Outcome, simulate
from protocols.store import MemoryStore
from protocols.summation import SecureSum, Total

Vectors = Sequence[NDArray[np.int64]]
Drop = Mapping[str, Collection[int]]
OPEN = Policy(min_cohort=1, min_survivors=1, min_ring_bits=1, allow_simulated=True)


@dataclass
class Played:
    """One session as an audit saw it. total is None where it was aborted; `why` then says the reason, and `notes`
    which parties had refused what. modulus: of the ring that a black box played in (0: it does not say).
    """

    total: NDArray[np.int64] | None
    survivors: tuple[int, ...]
    transcript: list[tuple[str, str, bytes]]
    messages: list[Message] = field(default_factory=list)
    outcome: Outcome | None = None
    why: str = ""
    refusals: dict[Any, SecAggError] = field(default_factory=dict)
    session: Session | None = None
    notes: tuple[str, ...] = ()
    modulus: int = 0


@dataclass(frozen=True)
class Searched:
    """How large the sessions are that an adversary searches, by their clients. complete: to the end, as the protocol
    comes. sparse: to the end, with its sparse graph. ring: with its sparse graph, in so many arcs that decide alike.
    drawn: with the graph of its plan, which public randomness fixes. seconds: for one plan. glance: the same in a first
    look, since most of what is found is found at once.
    """

    complete: tuple[int, ...] = (7, 10)
    sparse: tuple[int, ...] = (9,)
    ring: tuple[tuple[int, int], ...] = ((20, 10),)
    drawn: int = 40
    seconds: float = 20.0
    glance: float = 0.5


class Subject:
    """Base: name, level, declared threat model, the stages clients may leave at, and `play`.

    reference: what a command line calls it, "" where none does. unknown: property -> why it is not known to
    hold even if no example failed. playing: inputs and drop-outs of the session that was played last.
    examined: property -> how far it was looked, in words. searched: how large the searched sessions are. given: the
    pieces that an adapter of a black box gives. hooks: what it tells about itself.
    """

    level: ClassVar[str]

    def __init__(self, name: str, threat: str, stages: tuple[str, ...], counting: str) -> None:
        if threat not in THREATS:
            raise Misuse(f"threat: expected one of {', '.join(THREATS)}; {name} declares {threat!r}")
        self.name, self.threat, self.stages, self.counting = name, threat, stages, counting
        self.reference = ""
        self.unknown: Mapping[str, str] = {}
        self.playing: tuple[Vectors, Drop] | None = None
        self.examined: dict[str, str] = {}
        self.searched = Searched()
        self.given: Collection[str] = ()
        self.hooks = Hooks()
        self._cache: dict[str, Any] = {}

    def play(self, inputs: Vectors, drop: Drop | None = None, **options: Any) -> Played:
        raise Misuse("expected a black or a white box")

    def inapplicable(self, name: str) -> str:
        """Why this kind of protocol has nothing that a property could be checked on; "" where it has."""
        return self.hooks.inapplicable.get(name, "")

    def cached(self, key: str, make: Callable[[], Any]) -> Any:
        """Return what `make` gave the first time: for what many examples share."""
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    def survivors_of(self, clients: int, drop: Drop) -> tuple[int, ...]:
        """Who must be in the total: everybody who did not leave before or at the stage of the input."""
        until = self.stages.index(self.counting) + 1
        gone = {i for stage in self.stages[:until] for i in drop.get(stage, ())}
        return tuple(i for i in range(clients) if i not in gone)


class WhiteBox(Subject):
    """A SecureSum, made by a factory without arguments (a fresh one per audit)."""

    level = "white"

    def __init__(self, factory: Callable[[], Any], name: str = "") -> None:
        self.factory = factory
        self.protocol = factory()
        sample = self.session_of(5, 2, 9)
        stages = self.protocol.stages(sample)
        counting = next(stage.name for stage in stages if stage.counts)
        threat = self.protocol.demands(sample).threat
        names = tuple(stage.name for stage in stages if stage.role == "client")
        super().__init__(name or self.protocol.name, threat, names, counting)
        self.hooks = self.protocol.audit_hooks
        self.bound, self.clients = (1 << 15) - 1, (3, 8)

    def session_of(self, clients: int, dimension: int, bound: int, **options: Any) -> Session:
        names = [str(i) for i in range(clients)]
        made: Session = self.protocol.session(
            names, dimension, bound, random=SystemRandom(), simulated=True, **options
        )
        return made

    def as_bytes(self, vectors: Vectors) -> list[bytes]:
        """Return the inputs that clients bring in place of these vectors; none where they bring the vectors."""
        return []

    def stores(self, clients: int) -> dict[Any, MemoryStore]:
        """A store per party, for sessions that follow one another."""
        helpers = self.protocol.helpers(self.session_of(clients, 1, 1))
        return {name: MemoryStore() for name in (*range(clients), "server", *(str(p) for p in helpers))}

    def play(self, inputs: Vectors, drop: Drop | None = None, **options: Any) -> Played:
        """Run one session; options are those of `protocols.simulate`, besides `seed` for repeatable randomness."""
        self.playing = list(inputs), dict(drop or {})
        messages: list[Message] = []
        seed = options.pop("seed", None)
        rng = options.pop("rng", None) or (SystemRandom() if seed is None else ReplayRandom(seed))
        protocol = options.pop("protocol", None) or self.protocol
        try:
            outcome = simulate(
                protocol, list(inputs), drop, rng, messages.append, **{"policy": OPEN, **options}
            )
        except Aborted as error:
            notes = tuple(getattr(error, "__notes__", ()))
            return Played(None, (), _plain(messages), messages, None, error.reason, notes=notes)
        return Played(
            result_of(outcome.final),
            outcome.survivors,
            _plain(messages),
            messages,
            outcome,
            refusals=outcome.refusals,
            session=outcome.session,
        )


def result_of(final: State) -> NDArray[np.int64] | None:
    """Return the total of a final state, of another result its encoding as numbers, None where it is no final state."""
    if isinstance(final, Total):
        return final.total
    return np.frombuffer(final.encode(), np.uint8).astype(np.int64) if isinstance(final, Finished) else None


def _plain(messages: list[Message]) -> list[tuple[str, str, bytes]]:
    return [(str(m.sender), str(m.recipient), bytes(m.body)) for m in messages]


def subject_of(made: Any, name: str = "") -> Subject:
    """Return the subject for a Subject, a SecureSum, a class of it, or a factory of any of these. Raises Misuse."""
    if isinstance(made, Subject):
        return made
    if isinstance(made, SecureSum):
        return WhiteBox(lambda: made, name)
    if isinstance(made, Protocol):
        raise Misuse(
            f"{made.name}: its result is no sum; give a ProtocolBox, which says what a session and an input of it are"
        )
    if callable(made):
        built = made()
        if isinstance(built, SecureSum):
            return WhiteBox(made, name)
        return subject_of(built, name)
    raise Misuse(
        f"expected a SecureSum, a BlackBox or a WhiteBox, or a function that makes one; got {type(made).__name__}"
    )
