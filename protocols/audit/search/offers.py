"""The search over what a server offers: sessions whose public facts it changed.

A client holds a session to its own wishes. Where every client joins a session that it did not wish for, attacks are
planned for what was joined, and judged by what was wished for. What does not belong here: which fact means what; every
field of the protocol's public parameters is tried, and rounds and orders of the roster by the graphs that they give.
"""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

from protocols.audit.prop import NotChecked
from protocols.audit.search.planning import corrupt_sets, plan, weaker
from protocols.audit.search.playing import Table, set_up, sit_down
from protocols.audit.search.program import Undecided
from protocols.audit.search.views import SECONDS, Arrangement, judge, opening_of, play, prepared
from protocols.errors import SecAggError
from protocols.opening import Rule
from protocols.policy import THREATS, Policy
from protocols.session import Session


@dataclass
class Tally:
    """How many offers were written down, joined by every client, and what became of those."""

    made: int = 0
    joined: int = 0
    planned: int = 0
    undecided: int = 0
    unknown: list[str] = field(default_factory=list)


def offers(protocol: Any, session: Session) -> Iterator[tuple[str, Session]]:
    """Yield the session with one public fact made less, alone and with the least survivors taken back to one."""
    kind: Any = type(
        protocol.parameters(session.clients, session.dimension, session.bound, int(session.modulus))
    )
    chosen = kind.decode(session.parameters)
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


def search(subject: Any, what: Arrangement, seconds: float = SECONDS) -> str:
    """Search one arrangement; return what was examined, in words. Raises Finding, NotChecked."""
    table, _, wished = prepared(subject, what.protocol, what.clients, what.least)
    policy = Policy(min_survivors=what.least, allow_simulated=True, min_threshold_share=0.0)
    tally = Tally()
    for story, session in offers(what.protocol, table.session):
        tally.made += 1
        joined = _joined(table, session, policy)
        if joined is None:
            continue
        tally.joined += 1
        try:
            _examine(
                subject,
                joined,
                wished,
                f"the server offered {story}, and every client joined",
                seconds,
                tally,
            )
        except SecAggError:
            tally.unknown.append(story)
    if tally.undecided:
        raise NotChecked(f"{tally.undecided} plans were left undecided within {seconds:g} s each")
    left = ["offers that change two parameters at once"]
    left += [f"joined sessions that the hook cannot put requests for ({'; '.join(tally.unknown)})"] * bool(
        tally.unknown
    )
    return (
        f"{what.clients} clients, least {wished.least}: {tally.made} changed offers, {tally.joined} joined by all, "
        f"{tally.planned} plans on those refused by the real states. Not examined: {'; '.join(left)}."
    )


def _joined(table: Table, session: Session, policy: Policy) -> Table | None:
    """The table of an offer, if every party joins it and its set-up is gone through."""
    try:
        return sit_down(table.protocol, session, table.vectors, policy=policy)
    except SecAggError:
        return None


def _examine(subject: Any, table: Table, wished: Rule, story: str, seconds: float, tally: Tally) -> None:
    """Plan against what was joined. Raises Finding for what was not wished for."""
    requests = tuple(set_up(table))
    joined = opening_of(table.protocol).rule(table.session, tuple(table.transcript))
    corrupt = next(corrupt_sets(wished, 1))
    for one in weaker(replace(joined, least=wished.least)):
        try:
            attack = plan(one.rule, corrupt, seconds)
        except Undecided:
            tally.undecided += 1
            continue
        if attack is not None:
            judge(subject, play(table, requests, attack), wished, attack, story)
            tally.planned += 1
