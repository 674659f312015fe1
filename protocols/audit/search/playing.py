"""Plays a lying server against the real states. What does not belong here: what it plans, and any protocol.

Honest parties keep a store and are asked as a network would ask them. Corrupt ones are real states too, but the server
may wind them back to any state they were ever in. Set-up is the protocol's own server's; it lies from the first request
for input on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from protocols.audit.subject import OPEN
from protocols.errors import PolicyRefusal, SecAggError
from protocols.kernel import SERVER, Message, Party, State, Step, client
from protocols.policy import Policy
from protocols.randomness import SystemRandom
from protocols.runtime import recall, remember
from protocols.session import Session
from protocols.store import MemoryStore
from protocols.summation import SecureSum


@dataclass
class LiveSession:
    """A session at which real parties sit. lived: the states that each was ever in. refused: who refused at which
    stage, and why. before: their states when clients were about to be asked for their input. memory: what the server
    kept of earlier sessions.
    """

    protocol: SecureSum
    session: Session
    vectors: Sequence[NDArray[np.int64]]
    stores: Mapping[Party, MemoryStore]
    corrupt: frozenset[Party]
    lived: dict[Party, list[State]] = field(default_factory=dict)
    before: dict[Party, State] = field(default_factory=dict)
    transcript: list[Message] = field(default_factory=list)
    refused: dict[tuple[Party, str], str] = field(default_factory=dict)
    memory: bytes | None = None

    def ask(self, request: Message) -> tuple[Message, ...]:
        """Carry a request to its party; return its answers, () if it refused.

        A party that refuses is asked again in the states it was in before, as after a restored backup: its store's
        marks then have to hold. A corrupt party has no marks.
        """
        party, wire = request.recipient, request.to_wire()
        self.transcript.append(request)
        for state in reversed(self.lived[party]):
            try:
                self._still_open(party, state)
                step = state.receive(Message.from_wire(wire), SystemRandom())
                self.keep(party, step)
            except SecAggError as error:
                self.refused.setdefault((party, request.stage), str(error))
                continue
            self.lived[party].append(step.state)
            self.transcript.extend(step.send)
            return step.send
        return ()

    def _still_open(self, party: Party, state: State) -> None:
        """Raises PolicyRefusal for an honest party that keeps no keys for a state any more (`protocols.runtime`)."""
        if party not in self.corrupt and state.over(recall(self.stores[party], self.protocol)):
            raise PolicyRefusal("this session is over: its party moved on in another one")

    def keep(self, party: Party, step: Step) -> None:
        """Keep what a step leaves in its party's store. Raises SpentUpdate for a mark that an honest one has set."""
        with self.stores[party].transaction() as transaction:
            remember(transaction, self.protocol, replace(step, marks=()) if party in self.corrupt else step)

    def fork(self, corrupt: frozenset[Party]) -> "LiveSession":
        """Return the table as it is now, to be played on apart from this one, with these parties corrupt."""
        stores = {party: store.copy() for party, store in self.stores.items()}
        lived = {party: list(states) for party, states in self.lived.items()}
        return replace(
            self, stores=stores, corrupt=corrupt, lived=lived, transcript=list(self.transcript), refused={}
        )


def sit_down(
    protocol: SecureSum,
    session: Session,
    vectors: Sequence[NDArray[np.int64]],
    corrupt: frozenset[Party] = frozenset(),
    before: LiveSession | None = None,
    policy: Policy = OPEN,
) -> LiveSession:
    """Return a table with every party in its first state. before: a table of the same parties, whose stores they keep.

    Raises PolicyRefusal if one does not join.
    """
    helpers = protocol.helpers(session)
    everyone = [SERVER, *map(client, range(session.clients)), *helpers]
    stores = before.stores if before else {p: MemoryStore() for p in everyone}
    table = LiveSession(protocol, session, vectors, stores, corrupt)
    table.memory = recall(stores[SERVER], protocol)
    if before is not None and table.memory is not None:
        table.transcript.extend(before.transcript)
    random = SystemRandom()
    for i, vector in enumerate(vectors):
        kept = recall(stores[client(i)], protocol)
        step = protocol.client(session, i, vector, random=random, policy=policy, memory=kept)
        table.keep(client(i), step)
        table.lived[client(i)] = [step.state]
    for helper in helpers:
        table.lived[helper] = [protocol.helper(session, helper, random=random, policy=policy).state]
    return table


def rounds(protocol: SecureSum, table: LiveSession) -> bool:
    """Whether the server of a table keeps something that later rounds build on."""
    return recall(table.stores[SERVER], protocol) is not None


def next_session(
    table: LiveSession,
    vectors: Sequence[NDArray[np.int64]],
    corrupt: frozenset[Party] = frozenset(),
    another: bool = False,
) -> LiveSession:
    """Return a session of the next round: the same parties, and their stores. another: with a set-up of its own.

    Raises PolicyRefusal.
    """
    protocol, s = table.protocol, table.session
    memory = None if another else recall(table.stores[SERVER], protocol)
    session = protocol.session(
        s.roster, s.dimension, s.bound, random=SystemRandom(), simulated=True, min_survivors=s.min_survivors,
        round=s.round + 1, memory=memory,
    )  # fmt: skip
    return sit_down(protocol, session, vectors, corrupt, table)


def beside(table: LiveSession) -> LiveSession:
    """Return a session beside this one, with other inputs, played until all inputs have come."""
    vectors = [v // 2 for v in table.vectors]
    try:
        other = next_session(table, vectors, table.corrupt)
    except PolicyRefusal:  # not yet on what this one sets up
        other = next_session(table, vectors, table.corrupt, another=True)
    for request in set_up(other):
        other.ask(request)
    return other


def set_up(table: LiveSession, until_input: bool = True) -> Sequence[Message]:
    """Play honestly until clients are about to be asked for their input, and return those requests, unsent; or on to
    the end.
    """
    protocol, random = table.protocol, SystemRandom()
    step: Step = protocol.server(table.session, random=random, memory=table.memory)
    for stage in protocol.stages(table.session):
        table.keep(SERVER, step)
        if stage.counts and not table.before:
            table.before = {party: states[-1] for party, states in table.lived.items()}
            if until_input:
                break
        state = step.state
        for request in step.send:
            for answer in table.ask(request):
                state = state.receive(answer, random).state
        step = state.close(random)
    return step.send
