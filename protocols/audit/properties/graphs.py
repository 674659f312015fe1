"""Among how many sparse graphs a malicious server can choose. What does not belong here: what that costs (`odds`)."""

from collections.abc import Hashable, Iterator
from typing import Any

import numpy as np

from protocols.audit.prop import Finding, NotChecked, promised
from protocols.audit.subject import OPEN
from protocols.errors import SecAggError
from protocols.opening import Graphs
from protocols.randomness import SystemRandom
from protocols.session import Session

DRAWN, MORE = 12, 8
"""Clients of sessions with a sparse graph; sessions beyond what a plan counts."""


@promised("malicious", "ground randomness, retries without end", most=1)
def graphs_are_as_few_as_planned(subject: Any, data: Any) -> None:
    """A server that picks rounds, orders, parts of the roster and how often it tries gets no more graphs than the plan
    counts.

    One client is offered session after session, in which nothing ever leaves it.
    """
    hooks = subject.hooks
    if hooks.graphs is None or hooks.neighbours is None or (hooks.sparse or hooks.beacon) is None:
        raise NotChecked(
            "the protocol has no hooks `graphs` and `sparse` or `beacon`: its graphs are not seen"
        )
    made = [hooks.sparse and hooks.sparse(DRAWN), hooks.beacon and hooks.beacon(subject.searched.drawn)]
    for protocol, clients in zip(made, (DRAWN, subject.searched.drawn), strict=True):
        if protocol is not None:
            _count(subject, protocol, [str(i) for i in range(clients)])


def _count(subject: Any, protocol: Any, names: list[str]) -> None:
    plan: Graphs = subject.hooks.graphs(_session(protocol, names, 1))
    memory: bytes | None = None
    seen: set[Hashable] = set()
    for order in _orders(names, plan.each + MORE):
        session, memory = _joined(protocol, order, 1, memory)
        if session is not None:
            seen.add(_graph(subject, session) if plan.public else session.context)
        if len(seen) > plan.each:
            raise Finding(
                "the server chooses among more graphs than the plan counts\n"
                f"  client {names[0]} of {len(names)} joins {len(seen)} sessions of one round with a graph each, "
                f"planned: {plan.each}; the last one is of {len(order)} clients"
            )
    late = _joined(protocol, names, plan.rounds + 1, memory)[0] if plan.rounds else None
    if late is not None:
        raise Finding(f"a graph for round {late.round} is joined\n  the plan counts {plan.rounds} rounds")


def _orders(names: list[str], count: int) -> Iterator[list[str]]:
    """The roster, and then in orders of the server's, every third without one of them."""
    rng = np.random.default_rng(0)
    for number in range(count):
        order = [*names] if number % 3 != 2 else names[: -1 - number % 2]
        if number:
            rng.shuffle(order)
        yield order


def _session(protocol: Any, names: list[str], round: int) -> Session:
    made: Session = protocol.session(names, 1, 1, random=SystemRandom(), simulated=True, round=round)
    return made


def _joined(
    protocol: Any, names: list[str], round: int, memory: bytes | None
) -> tuple[Session | None, bytes | None]:
    """The session, if client "0" joins it, and what it keeps."""
    zero, random = np.zeros(1, np.int64), SystemRandom()
    try:
        session = _session(protocol, names, round)
        step = protocol.client(session, names.index("0"), zero, random=random, policy=OPEN, memory=memory)
    except SecAggError:
        return None, memory
    return session, memory if step.memory is None else step.memory


def _graph(subject: Any, session: Session) -> Hashable:
    """Who is whose neighbour, by name."""
    names = session.roster
    around = {i: subject.hooks.neighbours(session, i, ()) for i in range(len(names))}
    return frozenset((names[i], frozenset(names[j] for j in mates)) for i, mates in around.items())
