"""What an adversary that plans finds: run on demand, for they take a minute and more (`secagg audit NAME --search`)."""

from collections.abc import Iterator
from typing import Any

from protocols.audit.prop import NotChecked, Property
from protocols.audit.search import schedules
from protocols.audit.search.views import search
from protocols.kernel import Party


def _arrangements(subject: Any) -> Iterator[tuple[Any, int, int]]:
    """Protocol, clients, least survivors."""
    complete, sparse = subject.searched
    yield subject.protocol, complete, 1
    if subject.hooks.sparse is not None:
        yield subject.hooks.sparse(), sparse, 1


def views(subject: Any, data: Any) -> None:
    """Plans for lists, views, votes and answers; each is played against the real states."""
    told = [search(subject, protocol, clients, least) for protocol, clients, least in _arrangements(subject)]
    subject.examined["no-split-opens-few"] = " ".join(told)
    left = [one for one in told if " 0 undecided" not in one]
    if left:
        raise NotChecked(f"the solver ran out of time: {' '.join(left)}")


def totals(subject: Any, data: Any) -> None:
    """A server that forks, with as many corrupt parties as the protocol says it withstands."""
    session = subject.session_of(schedules.CLIENTS, 1, 1, min_survivors=schedules.LEAST)
    hook = subject.hooks.corrupt
    roles = dict(hook(session)) if hook else {}
    corrupt = frozenset(Party(role, number) for role, count in roles.items() for number in range(count))
    subject.examined["no-schedule-tells-two-sums"] = schedules.search(subject, corrupt)


PROPERTIES = (
    Property(
        "no-split-opens-few",
        "No lists, views, votes and answers, each shown to whom it suits, open a sum over fewer honest clients than "
        "the session promises; not if any one check is left out of the plan, for then the real states refuse.",
        "active server: split views, per-recipient lists",
        "semi-malicious",
        "white",
        views,
        search=True,
    ),
    Property(
        "no-schedule-tells-two-sums",
        "A server that goes back to states it was in, with other answers or those of a session beside this one, gets "
        "no total over too few honest clients, no two totals that differ by few, and no second answer of a party.",
        "active server: forks, replays, retries, differencing",
        "semi-honest",
        "white",
        totals,
        search=True,
    ),
)
