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
from protocols.errors import SecAggError
from protocols.kernel import Message, Party, State, Step, client
from protocols.policy import Policy
from protocols.randomness import SystemRandom
from protocols.runtime import remember
from protocols.session import Session
from protocols.store import MemoryStore
from protocols.summation import SecureSum


@dataclass
class Table:
    """A session at which real parties sit. lived: the states that each was ever in. refused: who refused at which
    stage, and why. before: their states when clients were about to be asked for their input.
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

    def ask(self, request: Message) -> tuple[Message, ...]:
        """Carry a request to its party; return its answers, () if it refused.

        A party that refuses is asked again in the states it was in before, as after a restored backup: its store's
        marks then have to hold. A corrupt party has no marks.
        """
        party, wire = request.recipient, request.to_wire()
        self.transcript.append(request)
        for state in reversed(self.lived[party]):
            try:
                step = state.receive(Message.from_wire(wire), SystemRandom())
                if party not in self.corrupt:
                    with self.stores[party].transaction() as transaction:
                        remember(transaction, self.protocol, step)
            except SecAggError as error:
                self.refused.setdefault((party, request.stage), str(error))
                continue
            self.lived[party].append(step.state)
            self.transcript.extend(step.send)
            return step.send
        return ()

    def fork(self, corrupt: frozenset[Party]) -> "Table":
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
    stores: Mapping[Party, MemoryStore] | None = None,
    policy: Policy = OPEN,
) -> Table:
    """Return a table with every party in its first state. Raises PolicyRefusal if one does not join."""
    helpers = protocol.helpers(session)
    everyone = [*map(client, range(session.clients)), *helpers]
    table = Table(protocol, session, vectors, stores or {p: MemoryStore() for p in everyone}, corrupt)
    random = SystemRandom()
    for i, vector in enumerate(vectors):
        step = protocol.client(session, i, vector, random=random, policy=policy)
        table.lived[client(i)] = [step.state]
    for helper in helpers:
        table.lived[helper] = [protocol.helper(session, helper, random=random, policy=policy).state]
    return table


def next_session(table: Table) -> Table:
    """Return a session of the same parties, their stores and other inputs, played until all inputs have come."""
    protocol, s = table.protocol, table.session
    session = protocol.session(
        s.roster, s.dimension, s.bound, random=SystemRandom(), simulated=True, min_survivors=s.min_survivors,
        round=s.round + 1,
    )  # fmt: skip
    beside = sit_down(protocol, session, [v // 2 for v in table.vectors], table.corrupt, table.stores)
    for request in set_up(beside):
        beside.ask(request)
    return beside


def set_up(table: Table) -> Sequence[Message]:
    """Play honestly until clients are about to be asked for their input; return those requests, unsent."""
    protocol, random = table.protocol, SystemRandom()
    step: Step = protocol.server(table.session, random=random)
    for stage in protocol.stages(table.session):
        if stage.counts:
            break
        state = step.state
        for request in step.send:
            for answer in table.ask(request):
                state = state.receive(answer, random).state
        step = state.close(random)
    table.before = {party: states[-1] for party, states in table.lived.items()}
    return step.send
