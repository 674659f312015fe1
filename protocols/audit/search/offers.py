"""The search over what a server offers: sessions whose public facts it changed.

A client holds a session to its own wishes. Where every client joins a session that it did not wish for, attacks are
planned for what was joined, and judged by what was wished for. What does not belong here: which fact means what; every
field of the protocol's public parameters is tried, and rounds and orders of the roster by the graphs that they give.
"""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from protocols.audit.prop import NotChecked
from protocols.audit.search.planning import corrupt_set, excess, honest, plan, weaker
from protocols.audit.search.playing import LiveSession, set_up, sit_down
from protocols.audit.search.program import Undecided
from protocols.audit.search.two_views import SECONDS, Arrangement, judge, opening_of, play, prepared
from protocols.errors import SecAggError
from protocols.kernel import client
from protocols.opening import Rule
from protocols.policy import THREATS, Policy
from protocols.randomness import SystemRandom
from protocols.session import Session

WORST = 5
"""Chosen graphs that are played."""


@dataclass
class OfferCounts:
    """How many offers were written down, joined by every client, and what became of those."""

    made: int = 0
    joined: int = 0
    planned: int = 0
    undecided: int = 0
    unknown: list[str] = field(default_factory=list)


def offers(protocol: Any, session: Session) -> Iterator[tuple[str, Session]]:
    """Yield the session with one public fact made less, alone and with the least survivors taken back to one."""
    facts = session.clients, session.dimension, session.bound, int(session.modulus)
    chosen = type(protocol.parameters(*facts)).decode(session.parameters)
    free = replace(session, min_survivors=1)
    yield "min_survivors = 1", free
    for one in fields(chosen):
        for other in _others(getattr(chosen, one.name)):
            try:
                encoded = replace(chosen, **{one.name: other}).encode()
            except SecAggError:  # no such parameters can be written down
                continue
            said = f"{one.name} = {other.hex() if isinstance(other, bytes) else other}"
            yield said, replace(session, parameters=encoded)
            yield f"{said}, min_survivors = 1", replace(free, parameters=encoded)


def _others(value: Any) -> list[Any]:
    """Values in the place of one: smaller counts, the other flag, weaker models, other bytes or none."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return sorted({0, 1, 2, value // 2, value - 1} & set(range(value)))
    if isinstance(value, bytes):
        return [b"", secrets.token_bytes(len(value))] if value else []
    return list(THREATS[: THREATS.index(value)]) if value in THREATS else []


def ground(protocol: Any, session: Session, corrupt: frozenset[int], tries: int) -> list[tuple[str, Session]]:
    """Sessions of these clients, in other rounds, orders and parts of the roster, whose graph suits those who were
    corrupt before it was drawn (by their names), none that the session's numbers withstand.

    Those come first that put the most corrupt clients among somebody's holders: these open a secret without a lie,
    where too many in a window of voters only ease one.
    """
    rng, bad = np.random.default_rng(0), {session.roster[i] for i in corrupt}
    found = []
    for number in range(tries):
        names, round = list(session.roster), 1 + (number if number % 2 else 0)
        if number % 2 == 0:
            rng.shuffle(names)
        if number % 4 == 2:
            names.remove(next(name for name in names if name not in bad))
        try:
            made = protocol.session(
                names, session.dimension, session.bound, random=SystemRandom(), simulated=True, round=round,
                min_survivors=session.min_survivors,
            )  # fmt: skip
            rule = opening_of(protocol).rule(made, ())
        except SecAggError:  # not even a server could make it
            continue
        suits = {i for i, name in enumerate(names) if name in bad}
        if excess(rule, suits) > 0:
            story = f"round {round}, and {len(names)} clients in an order of its own"
            found.append((excess(replace(rule, windows=()), suits), story, made))
    return [(story, made) for _, story, made in sorted(found, key=lambda one: -one[0])[:WORST]]


def search(subject: Any, what: Arrangement, tries: int = 0, seconds: float = SECONDS) -> str:
    """Search one arrangement; return what was examined, in words. Raises Finding, NotChecked.

    tries: sessions that are made to choose among, where the graph should be nobody's choice.
    """
    table, _, wished = prepared(subject, what)
    policy = Policy(min_survivors=what.least, allow_simulated=True, min_threshold_share=0.0)
    tally, corrupt = OfferCounts(), corrupt_set(wished)
    changed = offers(what.protocol, table.session)
    drawn = ground(what.protocol, table.session, corrupt, tries)
    for story, session in drawn if tries else changed:
        tally.made += 1
        joined = _joined(table, session, policy)
        if joined is None:
            continue
        tally.joined += 1
        bad = frozenset(session.roster.index(table.session.roster[i]) for i in corrupt)
        told = f"the server offered {story}, and every client joined"
        try:
            _examine(subject, joined, wished, bad, told, 0.0 if tries else seconds, tally)
        except SecAggError:
            tally.unknown.append(story)
    if tally.undecided:
        raise NotChecked(f"{tally.undecided} plans were left undecided within {seconds:g} s each")
    return f"{what.clients} clients{', a later round' * what.later}, least {wished.least}: {_said(tally, tries)}."


def _said(tally: OfferCounts, tries: int) -> str:
    if tries:
        return (
            f"{tries} rounds, orders and parts of the roster, {tally.made}{' or more' * (tally.made == WORST)} with a "
            f"graph that suits the corrupt, {tally.joined} joined{', and played without a lie' * bool(tally.joined)}"
        )
    left = ["offers that change two parameters at once"]
    if tally.unknown:
        left.append(f"joined sessions that the hook cannot put requests for ({'; '.join(tally.unknown)})")
    return (
        f"{tally.made} changed offers, {tally.joined} joined by all, {tally.planned} plans on those refused by the "
        f"real states. Not examined: {'; '.join(left)}"
    )


def _joined(table: LiveSession, session: Session, policy: Policy) -> LiveSession | None:
    """The table of an offer, if every party joins it."""
    before, place = table.fork(frozenset()), table.session.roster.index
    stores = {client(k): before.stores[client(place(name))] for k, name in enumerate(session.roster)}
    before.stores = {**before.stores, **stores}
    vectors = [table.vectors[place(name)] for name in session.roster]
    try:
        seated = sit_down(table.protocol, session, vectors, before=before, policy=policy)
        return replace(seated, memory=table.memory)
    except SecAggError:
        return None


def _examine(
    subject: Any,
    table: LiveSession,
    wished: Rule,
    corrupt: frozenset[int],
    story: str,
    seconds: float,
    tally: OfferCounts,
) -> None:
    """Lie in nothing, then plan against what was joined (no time: not). Raises Finding for what was not wished for."""
    requests = tuple(set_up(table))
    joined = opening_of(table.protocol).rule(table.session, tuple(table.transcript))
    plain = honest(joined, corrupt)
    judge(subject, play(table, requests, plain), wished, plain, story)
    for one in weaker(replace(joined, least=wished.least)) if seconds else ():
        try:
            attack = plan(one.rule, corrupt, seconds)
        except Undecided:
            tally.undecided += 1
            continue
        if attack is not None:
            judge(subject, play(table, requests, attack), wished, attack, story)
            tally.planned += 1
