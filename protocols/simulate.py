"""Runs any Protocol in one process. What does not belong here: protocol logic; the roles are the real ones,
message by message.

Parties may leave before any stage; an observer sees every message, a tamperer may change, drop, repeat or
forge it; seconds and bytes (as encoded) are counted per stage and role. A client whose step raises is gone
from there on, with its reason in `Outcome.refusals`; what the server refuses in a message counts as that
party's silence.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.driver import Driver
from protocols.errors import REFUSALS, Aborted, Misuse, PeerError, SecAggError, require
from protocols.kernel import SERVER, Finished, Message, Party, State, Step, client
from protocols.policy import Policy
from protocols.protocol import NO_MODEL, Protocol, Stage
from protocols.randomness import SecureRandom, SystemRandom
from protocols.runtime import recall, remember
from protocols.session import INT64_MAX, Session
from protocols.statement import Protection, played_here
from protocols.store import Store
from protocols.summation import SecureSum, Total

Observe = Callable[[Message], None]
Tamper = Callable[[Message], Message | Iterable[Message] | None]
Table = dict[str, dict[str, float]]


@dataclass
class Outcome:
    """What a simulated session gave; `simulate` makes it.

    The result:

    - final: the server's last state, which holds the result; `total` reads a sum from it.
    - survivors: the clients in the sum, by the caller's names in roster order; empty for a protocol of another
      result.
    - received: the results of clients that the configuration names to be given one, by the caller's names.

    How it went:

    - session: the session that was played.
    - protection: what its sum protected, as a statement has it.
    - blamed: parties that were seen to misbehave, or pairs one of which did ("client 3 or client 0 (why)").
    - refusals: party -> the error for which it stopped.
    - seconds: stage -> role -> seconds of computing.
    - bytes: stage -> role -> bytes sent, by all parties of the role together.

        outcome: Outcome = simulate(SecAgg(), {"a": [1, 2], "b": [3, 4], "c": [5, 6]})
        outcome.total, outcome.survivors   # array([ 9, 12]), ('a', 'b', 'c')
        outcome.seconds_of("client"), outcome.bytes_of("server")
    """

    final: Finished
    survivors: tuple[Any, ...]
    session: Session
    protection: Protection
    blamed: tuple[str, ...] = ()
    seconds: Table = field(default_factory=dict)
    bytes: dict[str, dict[str, int]] = field(default_factory=dict)
    refusals: dict[Hashable, SecAggError] = field(default_factory=dict)
    received: dict[Hashable, State] = field(default_factory=dict)

    @property
    def total(self) -> NDArray[np.int64]:
        """The sum over the survivors, int64 [dimension]. Raises Misuse if the protocol's result is no sum."""
        if not isinstance(self.final, Total):
            raise Misuse(f"the result is a {type(self.final).__name__} and no sum: read Outcome.final")
        return self.final.total

    def seconds_of(self, role: str) -> float:
        """All seconds of a role, over all stages."""
        return sum(by_role.get(role, 0.0) for by_role in self.seconds.values())

    def bytes_of(self, role: str) -> int:
        """All bytes a role sent, over all stages."""
        return sum(by_role.get(role, 0) for by_role in self.bytes.values())


def simulate(
    protocol: Protocol[Any],
    vectors: Mapping[Any, Any] | Sequence[Any] | NDArray[np.int64],
    drop: Mapping[str, Collection[Any]] | None = None,
    rng: SecureRandom | None = None,
    observe: Observe | None = None,
    tamper: Tamper | None = None,
    *,
    bound: int | None = None,
    modulus: int = 0,
    round: int = 1,
    model: bytes = NO_MODEL,
    models: Mapping[Any, bytes] | None = None,
    policy: Policy | None = None,
    stores: Mapping[Any, Store] | None = None,
    updates: Mapping[Any, bytes] | None = None,
    session: Session | None = None,
    min_survivors: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> Outcome:
    """Run one session in this process and return its outcome.

    What is summed:

    - protocol: any `Protocol`.
    - vectors: the clients' int64 vectors of one length, by name (str or int) or in order (names 0, 1, ...). A
      function of no argument in place of a vector is called when its client needs the vector, so that one vector at
      a time is in memory. Such a call needs `session`, as does a protocol that is no sum, whose inputs may be of
      any type.

    The session:

    - bound: public bound on every |coordinate|, >= 0 (default: None, the least 2^k - 1 over the given vectors; only
      a simulation may look).
    - modulus: 0 (default) for a sum over Z, else M for a sum in Z_M.
    - round: counts from 1 (default: 1).
    - model: 32 bytes that name what all clients were shown (default: zeros).
    - models: by client, what single clients were shown instead (default: None).
    - min_survivors: fewest clients in a total, >= 1 (default: 1).
    - session: a session that was made before, in place of these options (default: None).

    The parties:

    - policy: what every client insists on (default: None, the protocol's).
    - stores: a party's store by client name, "server" or helper name, whose memory and marks outlast the call
      (default: None).
    - updates: by client, bytes that name the update behind its vector (default: None).
    - rng: the randomness of all parties; the session is then marked simulated (default: None, the system's).

    What happens to them, and what is seen:

    - drop: stage name -> the clients, or helpers such as "decryptor 1", that vanish before they answer it (default:
      None).
    - tamper: given each message, returns what arrives in its place: a message, several, or None (default: None).
    - observe: called with every message (default: None).
    - clock: returns seconds (default: `time.perf_counter`; on a busy machine take `time.process_time`).

    Raises TooFewSurvivors or another Aborted if the session ends without a total, Misuse for a wrong call,
    PolicyRefusal if every client refuses the session.

        vectors = {"a": [1, 2], "b": [3, 4], "c": [5, 6], "d": [7, 8]}
        outcome = simulate(SecAgg(dropout=0.3), vectors, drop={"masked-input": ["d"]})
        outcome.total, outcome.survivors   # array([ 9, 12]), ('a', 'b', 'c')
    """
    named, source = _named(vectors, isinstance(protocol, SecureSum)), _source(rng)
    if session is None:
        held = recall(stores[str(SERVER)], protocol) if stores and str(SERVER) in stores else None
        session = _new_session(protocol, named, bound)(
            random=source,
            modulus=modulus,
            round=round,
            model=model,
            simulated=type(source) is not SystemRandom,
            min_survivors=min_survivors,
            memory=held,
        )
    given = replace(policy or protocol.default_policy, allow_simulated=True)  # that is what `simulate` is for
    run = _Simulation(
        protocol, session, named, given, drop or {}, source, observe, tamper, stores or {}, clock
    )
    run.enter(models or {}, updates or {})
    return run.play()


def _named(vectors: Any, of_a_sum: bool) -> dict[Hashable, Any]:
    items = dict(vectors) if isinstance(vectors, Mapping) else dict(enumerate(vectors))
    require(items, "at least one client's vector", "none")
    if not of_a_sum or any(callable(v) for v in items.values()):
        return items
    named = {name: np.asarray(v) for name, v in items.items()}
    if len({v.shape for v in named.values()}) != 1 or next(iter(named.values())).ndim != 1:
        raise Misuse(
            f"expected vectors of one length, got shapes {sorted({v.shape for v in named.values()})}"
        )
    return named


def _least_bound(vectors: Iterable[NDArray[np.int64]]) -> int:
    largest = max((max(abs(int(v.min())), abs(int(v.max()))) for v in vectors if v.size), default=0)
    return min((1 << largest.bit_length()) - 1, INT64_MAX)  # -2^63 is an input in a ring


def _source(rng: SecureRandom | None) -> SecureRandom:
    """Return the randomness of a simulation. Raises Misuse for a generator of numbers."""
    statistical = type(rng).__module__.partition(".")[0] in ("numpy", "random", "torch")  # have bytes() too
    if rng is not None and (statistical or not callable(getattr(rng, "bytes", None))):
        raise Misuse(f"rng: expected None or a SecureRandom, with bytes(count); got {type(rng).__name__}")
    return rng or SystemRandom()


def _new_session(
    protocol: Protocol[Any], vectors: Mapping[Hashable, Any], bound: int | None
) -> Callable[..., Session]:
    """Return `protocol.session` with what the vectors say. Raises Misuse if they say nothing."""
    if not isinstance(protocol, SecureSum) or any(callable(v) for v in vectors.values()):
        raise Misuse("expected session=...: the inputs given do not say what session it is")
    names, dimension = [str(name) for name in vectors], len(next(iter(vectors.values())))
    return partial(
        protocol.session, names, dimension, _least_bound(vectors.values()) if bound is None else bound
    )


@dataclass
class _Simulation:
    """The mutable middle of one simulation."""

    protocol: Protocol[Any]
    session: Session
    vectors: dict[Hashable, Any]
    policy: Policy
    drop: Mapping[str, Collection[Hashable]]
    random: SecureRandom
    observe: Observe | None
    tamper: Tamper | None
    stores: Mapping[Hashable, Store]
    clock: Callable[[], float]
    states: dict[Party, State] = field(default_factory=dict)
    gone: set[Party] = field(default_factory=set)
    late: dict[Party, Callable[..., Step]] = field(default_factory=dict)
    refusals: dict[Hashable, SecAggError] = field(default_factory=dict)
    seconds: defaultdict[str, defaultdict[str, float]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(float))
    )
    sizes: defaultdict[str, defaultdict[str, int]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(int))
    )

    # -- before the first stage --

    def __post_init__(self) -> None:
        self.stages = self.protocol.stages(self.session)
        self.counting = next((stage.name for stage in self.stages if stage.counts), self.stages[0].name)
        self.helpers = self.protocol.helpers(self.session)
        self.labels: dict[Party, Hashable] = {client(i): name for i, name in enumerate(self.vectors)}
        self.labels |= {party: str(party) for party in (*self.helpers, SERVER)}
        self.leaving = self._leaving()

    def _leaving(self) -> dict[str, set[Party]]:
        by_label: dict[Hashable, Party] = {label: party for party, label in self.labels.items()}
        by_label |= {str(label): party for label, party in list(by_label.items())}
        names = [stage.name for stage in self.stages]
        leaving: defaultdict[str, set[Party]] = defaultdict(set)
        for stage, who in self.drop.items():
            key = str(stage).replace("_", "-").replace(" ", "-")
            if key not in names:
                raise Misuse(f"drop: {self.protocol.tag} has no stage {stage!r}; its stages are {names}")
            if unknown := [label for label in who if label not in by_label]:
                raise Misuse(f"drop: unknown parties {unknown} at stage {stage!r}")
            leaving[key].update(by_label[label] for label in who)
        return leaving

    def enter(self, models: Mapping[Hashable, bytes], updates: Mapping[Hashable, bytes]) -> None:
        """Create every party but the server; a client whose input is a function, when it is asked for the input."""
        first = self.stages[0].name
        supplied = self.protocol.takes_input_late and first != self.counting
        for index, (name, given) in enumerate(self.vectors.items()):
            party, update = client(index), updates.get(name)
            session = replace(self.session, model=models[name]) if name in models else self.session
            make = self._maker(self.protocol.client, party, session, index, update=update)
            if callable(given) and supplied:
                self._timed(party, first, partial(make, None))
                self.late[party] = partial(self._supply, session, party, update)
            elif callable(given) and first == self.counting:
                self.late[party] = make
            elif callable(given):
                self._begin(party, first, make)
            else:
                self._timed(party, first, partial(make, given))
        for party in self.helpers:
            self._timed(party, first, self._maker(self.protocol.helper, party, self.session, party))
        if self.refusals and not self.late and not any(p.role == "client" for p in self.states):
            raise next(iter(self.refusals.values()))

    def _maker(
        self, start: Callable[..., Step], party: Party, *given: object, **named: object
    ) -> Callable[..., Step]:
        """Return `start` with what every party starts with."""
        return partial(
            start, *given, random=self.random, policy=self.policy, memory=self._memory(party), **named
        )

    def _supply(self, session: Session, party: Party, update: bytes | None, vector: Any) -> Step:
        return Step(self.protocol.supply(session, self.states[party], vector, update))

    # -- stages --

    def play(self) -> Outcome:
        self.driver = Driver(
            self.protocol, self.session, self.random, partial(self._run, SERVER), self._server_refused
        )
        try:
            final = self.driver.run(self._carry, self._memory(SERVER))
        except Aborted as error:
            error.refusals = {str(who): f"{type(why).__name__}: {why}" for who, why in self.refusals.items()}
            for who, why in self.refusals.items():
                error.add_note(f"{who}: {why}")
            raise
        in_sum, blamed = (final.survivors, final.blamed) if isinstance(final, Total) else ((), ())
        return Outcome(
            final=final,
            survivors=tuple(self.labels[client(i)] for i in in_sum),
            session=self.session,
            protection=played_here(self.protocol.protection(self.session)),
            blamed=blamed,
            seconds={stage: dict(roles) for stage, roles in self.seconds.items()},
            bytes={stage: dict(roles) for stage, roles in self.sizes.items()},
            refusals=self.refusals,
            received={
                self.labels[party]: state
                for party, state in self.states.items()
                if self.protocol.result(state) is not None
            },
        )

    def _carry(self, stage: Stage, requests: tuple[Message, ...]) -> None:
        self.gone |= self.leaving.get(stage.name, set())
        for request in requests:
            self._deliver(request)

    def _server_refused(self, party: Party, error: PeerError) -> None:
        self.refusals.setdefault(f"server about {self.labels.get(party, party)}", error)

    def _deliver(self, request: Message) -> None:
        """Carry one request to its party and the answers back at once: no stage's answers are held
        together.
        """
        for delivered in self._on_wire(request):
            party = delivered.recipient
            asked = party not in self.gone and delivered.stage == self.counting
            if asked and (make := self.late.pop(party, None)):
                self._begin(party, delivered.stage, make)
            if party in self.gone or party not in self.states or party == SERVER:
                continue
            receive = partial(self.states[party].receive, delivered, self.random)
            for answer in self._timed(party, delivered.stage, receive):
                for arrived in self._on_wire(answer):
                    self.driver.take(arrived)

    def _begin(self, party: Party, stage: str, make: Callable[..., Step]) -> None:
        """Have a client's input made, outside the clock: it may train, or refuse."""
        try:
            vector = self.vectors[self.labels[party]]()
        except REFUSALS as error:
            self._refuse(party, error)
        else:
            self._timed(party, stage, partial(make, vector))

    def _refuse(self, party: Party, error: SecAggError) -> None:
        self.refusals.setdefault(self.labels[party], error)
        self.gone.add(party)

    def _on_wire(self, sent: Message) -> list[Message]:
        self.sizes[sent.stage][sent.sender.role] += sent.size
        if self.observe:
            self.observe(sent)
        if self.tamper is None:
            return [sent]
        result = self.tamper(sent)
        return [] if result is None else [result] if isinstance(result, Message) else list(result)

    def _timed(self, party: Party, stage: str, call: Callable[[], Step]) -> tuple[Message, ...]:
        """Run one step of a party that may refuse: then it is gone, and its reason is kept."""
        try:
            step = self._run(party, stage, call)
        except REFUSALS as error:
            self._refuse(party, error)
            return ()
        self.states[party] = step.state
        return step.send

    def _run(self, party: Party, stage: str, call: Callable[[], Step]) -> Step:
        began = self.clock()
        try:
            step = call()
        finally:
            self.seconds[stage][party.role] += self.clock() - began
        store = self.stores.get(self.labels.get(party))
        if store is not None and (step.marks or step.memory is not None):
            with store.transaction() as transaction:
                remember(transaction, self.protocol, step)
        return step

    def _memory(self, party: Party) -> bytes | None:
        store = self.stores.get(self.labels[party])
        return None if store is None else recall(store, self.protocol)
