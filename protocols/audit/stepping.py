"""Sessions driven by hand: states encoded between steps, single parties held back, requests answered twice."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from protocols.audit.subject import OPEN, Vectors, result_of
from protocols.errors import SecAggError
from protocols.kernel import SERVER, Message, Party, State, Step, client
from protocols.protocol import NO_MODEL
from protocols.randomness import SecureRandom, SystemRandom
from protocols.session import Session


class Driving(NamedTuple):
    """What is driven, where it is not the subject's own protocol: a protocol, with a bound that chooses its ring."""

    protocol: Any
    bound: int


@dataclass
class DrivenStage:
    """One stage of a hand-driven session: the requests, and every answer they got."""

    name: str
    requests: list[Message] = field(default_factory=list)
    answers: list[Message] = field(default_factory=list)


@dataclass
class Driven:
    """A hand-driven session. before: party -> its encoded state when each stage's request reached it. memory: what each
    party keeps beyond it.
    """

    session: Session
    stages: list[DrivenStage] = field(default_factory=list)
    before: dict[str, dict[Party, bytes]] = field(default_factory=dict)
    server_before: dict[str, bytes] = field(default_factory=dict)
    last: dict[Party, State] = field(default_factory=dict)
    memory: dict[Party, bytes] = field(default_factory=dict)
    total: NDArray[np.int64] | None = None
    random: SecureRandom = field(default_factory=SystemRandom)

    def kept(self, party: Party, step: Step) -> State:
        """The state after a step; what the party is to remember is noted."""
        if step.memory is not None:
            self.memory[party] = step.memory
        return step.state

    def state_for(self, message: Message) -> bytes:
        """The encoded state that a message of the session reached."""
        at, party = message.stage, message.recipient
        return self.server_before[at] if party == SERVER else self.before[at][party]

    @property
    def messages(self) -> list[Message]:
        return [m for stage in self.stages for m in (*stage.requests, *stage.answers)]


def drive(
    subject: Any,
    vectors: Vectors,
    *,
    random: SecureRandom | None = None,
    encoded: bool = True,
    model: bytes = NO_MODEL,
    gone: Mapping[str, Collection[int]] | None = None,
    round: int = 1,
    earlier: Driven | None = None,
    session: Session | None = None,
) -> Driven:
    """Run a whole session; every state goes through its encoding between two steps when `encoded`.

    gone: stage -> the clients that leave before they answer it. earlier: the session that this one builds on. session:
    the one to run (default: a new one).
    """
    protocol, random = subject.protocol, random or SystemRandom()
    names, kept = [str(i) for i in range(len(vectors))], dict(earlier.memory) if earlier else {}
    session = session or protocol.session(
        names, len(vectors[0]), subject.bound, random=random, simulated=True, model=model, round=round,
        memory=kept.get(SERVER),
    )  # fmt: skip
    driven = Driven(session, random=random, memory=kept)
    parties: dict[Party, State] = {}
    for i, vector in enumerate(vectors):
        known = {"random": random, "policy": OPEN, "memory": kept.get(client(i))}
        parties[client(i)] = driven.kept(client(i), protocol.client(session, i, vector, **known))
    for helper in protocol.helpers(session):
        parties[helper] = protocol.helper(session, helper, random=random, policy=OPEN).state
    step: Step = protocol.server(session, random=random, memory=kept.get(SERVER))
    left: set[Party] = set()
    for stage in protocol.stages(session):
        left |= {client(i) for i in (gone or {}).get(stage.name, ())}
        step = _stage(subject, driven, stage.name, step, parties, encoded, left)
    driven.last = parties | {SERVER: step.state}
    driven.total = result_of(step.state)
    return driven


def _stage(
    subject: Any,
    driven: Driven,
    name: str,
    step: Step,
    parties: dict[Party, State],
    encoded: bool,
    left: Collection[Party],
) -> Step:
    protocol, random = subject.protocol, driven.random
    stage = DrivenStage(name, list(step.send))
    driven.stages.append(stage)
    driven.before[name] = {}
    state = step.state
    driven.server_before[name] = protocol.encode_state(state)
    for request in step.send:
        who = request.recipient
        saved = protocol.encode_state(parties[who])
        driven.before[name][who] = saved
        if who in left:
            continue
        taken = protocol.decode_state(saved) if encoded else parties[who]
        answered = taken.receive(Message.from_wire(request.to_wire()), random)
        parties[who] = driven.kept(who, answered)
        for answer in answered.send:
            stage.answers.append(answer)
            current = protocol.decode_state(protocol.encode_state(state)) if encoded else state
            state = current.receive(Message.from_wire(answer.to_wire()), random).state
    closed: Step = state.close(random)
    driven.kept(SERVER, closed)
    return closed


def answers(subject: Any, saved: bytes, request: Message) -> bool:
    """Whether a party in an encoded state answers a request."""
    step, _ = answer_to(subject, saved, request)
    return step is not None and bool(step.send)


def answer_to(subject: Any, saved: bytes, request: Message) -> tuple[Step | None, SecAggError | None]:
    """What a party in an encoded state does with a request: (its step, None) or (None, its refusal)."""
    try:
        return subject.protocol.decode_state(saved).receive(request, SystemRandom()), None
    except SecAggError as error:
        return None, error
