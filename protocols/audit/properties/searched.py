"""What an adversary that plans finds: run on demand, for they take a minute and more (`secagg audit NAME --search`)."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

from protocols.audit.prop import promised
from protocols.audit.search import offers, outside, schedules
from protocols.audit.search.forks import CLIENTS, LEAST
from protocols.audit.search.playing import rounds, set_up, sit_down
from protocols.audit.search.two_views import Arrangement, ViewSearch, opening_of
from protocols.kernel import Party

TRIES = 1_000
"""Sessions that a server makes to choose a graph among."""


def _arrangements(subject: Any) -> Iterator[Arrangement]:
    """As the protocol comes and with its sparse graph, and on a set-up; a total of few promised, and of nearly all."""
    sizes, sparse = subject.searched, subject.hooks.sparse
    later = (False, True) if _has_rounds(subject) else (False,)
    if sparse is not None:
        yield from (Arrangement(sparse(n), n, 1, arcs) for n, arcs in sizes.ring)
    for n in sizes.complete:
        for least, after in product((1, n - 1), later):
            yield Arrangement(subject.protocol, n, least, n, after)
    if sparse is not None:
        yield from (Arrangement(sparse(n), n, 1, n, after) for n, after in product(sizes.sparse, later))


def _has_rounds(subject: Any) -> bool:
    """Whether later sessions build on an earlier one."""
    table = sit_down(subject.protocol, subject.session_of(5, 1, 1), [np.zeros(1, np.int64)] * 5)
    set_up(table)
    return rounds(subject.protocol, table)


def _outside(subject: Any, data: Any) -> None:
    subject.examined["no-split-opens-few"] = outside.search(subject)


@promised(
    "semi-malicious",
    "active server: split views, per-recipient lists",
    pieces=("tamper views shares tolerated",),
    outside=_outside,
    search=True,
)
def no_split_opens_few(subject: Any, data: Any) -> None:
    """No lists, views, votes and answers, each shown to whom it suits, open a sum over fewer honest clients than the
    session promises; not if any one check is left out of the plan, for then the real states refuse.

    Plans for lists, views, votes and answers; each is played against the real states.
    """
    opening_of(subject.protocol)
    searches = [ViewSearch(subject, one) for one in _arrangements(subject)]
    for one in searches:
        one.look(subject.searched.glance)
    told = []
    for one in searches:
        seconds = subject.searched.seconds / (1 if one.what.to_the_end else 10)
        one.look(seconds)
        told.append(one.told(seconds))
    subject.examined["no-split-opens-few"] = " ".join(dict.fromkeys(told))


@promised("semi-malicious", "parameter downgrade, ground randomness", search=True)
def no_offer_opens_few(subject: Any, data: Any) -> None:
    """A session whose public facts fall short of a client's wishes is refused, or opens no sum over fewer honest
    clients than were wished for.

    Sessions that no client wished for, and graphs that a server chose.
    """
    opening_of(subject.protocol)
    beacon, n = subject.hooks.beacon, subject.searched.drawn
    drawn = [Arrangement(beacon(n), n, 1, n)] if beacon is not None else []
    told = [offers.search(subject, one, TRIES) for one in drawn]
    seconds = subject.searched.seconds
    told += [offers.search(subject, one, seconds=seconds) for one in _arrangements(subject) if one.to_the_end]
    subject.examined["no-offer-opens-few"] = " ".join(dict.fromkeys(told))


@promised("semi-honest", "active server: forks, replays, retries, differencing", search=True)
def no_schedule_tells_two_sums(subject: Any, data: Any) -> None:
    """A server that goes back to states it was in, with other answers or those of a session beside this one, gets no
    total over too few honest clients, no two totals that differ by few, and no second answer of a party.

    A server that forks, with as many corrupt parties as the protocol says it withstands.
    """
    session = subject.session_of(CLIENTS, 1, 1, min_survivors=LEAST)
    hook = subject.hooks.corrupt
    roles = dict(hook(session)) if hook else {}
    corrupt = frozenset(Party(role, number) for role, count in roles.items() for number in range(count))
    subject.examined["no-schedule-tells-two-sums"] = schedules.search(subject, corrupt)
