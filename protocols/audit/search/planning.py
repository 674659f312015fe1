"""Plans attacks on a rule: as it is, and with each of its checks weakened in turn. Nothing is played here.

A check that a plan goes without may still be there in the code: `playing` finds out.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from protocols.audit.search.encoding import Cells, Encoding
from protocols.audit.search.goals import add_goal
from protocols.opening import Attack, Check, Rule

VIEWS = 2


@dataclass(frozen=True)
class Weaker:
    """A rule that demands less than another. story: what it goes without, "" for the rule itself. beside: votes are
    got in another session, too.
    """

    story: str
    rule: Rule
    beside: bool = False


def weaker(rule: Rule) -> Iterator[Weaker]:
    """The rule itself, then each check in turn weakened: by one, among neighbours alone, and left out."""
    yield Weaker("", rule)
    for at, check in enumerate(rule.checks):
        if check.kind == "bound":
            yield Weaker(f"{check.name}: left out", _unbound(rule), beside=True)
            continue
        for story, instead in _weakened(check, rule):
            checks = (*rule.checks[:at], *instead, *rule.checks[at + 1 :])
            yield Weaker(f"{check.name}: {story}", replace(rule, checks=checks))


def _unbound(rule: Rule) -> Rule:
    """A client may vote once in each of two sessions; everybody is told the whole list in both."""
    kept = [c for c in rule.checks if c.kind != "bound" and (c.kind, c.at) != ("once", ("vote",))]
    whole = Check("everybody dealt", ("input",), "least", "list", "all", rule.clients)
    return replace(rule, checks=(*kept, whole))


def _weakened(check: Check, rule: Rule) -> Iterator[tuple[str, tuple[Check, ...]]]:
    if check.kind == "least" and check.among != "windows" and check.count > 1:
        yield "one fewer", (replace(check, count=check.count - 1),)
    if check.kind == "least" and check.among == "all" and check.of == "votes":
        yield "neighbours' alone", (replace(check, among="neighbours", count=rule.threshold),)
    if check.kind == "within" and check.among == "all":
        yield "of its neighbours alone", (replace(check, among="neighbours"),)
    yield "left out", ()


def corrupt_set(rule: Rule) -> frozenset[int]:
    """Choose corrupt clients that the rule says it withstands: as many as it says, or as fit, those first who hold the
    most clients' shares.
    """
    held = Counter(i for group in rule.shares for i in group)
    order = sorted(np.random.default_rng(0).permutation(rule.clients).tolist(), key=lambda i: -held[i])
    chosen = set(order[: rule.corrupt])
    if excess(rule, chosen) > 0:
        chosen = set()
        for i in order:
            if len(chosen) < rule.corrupt and excess(rule, chosen | {i}) <= 0:
                chosen.add(i)
    return frozenset(chosen)


def excess(rule: Rule, corrupt: set[int]) -> int:
    """How many too many of these clients stand in one place: among somebody's holders, or in a window."""
    honest = [group for i, group in enumerate(rule.shares) if i not in corrupt]
    places = ((honest, rule.near), (rule.windows, rule.in_window))
    return max(len(place & corrupt) - most for group, most in places for place in group or [frozenset()])


def arcs(rule: Rule, count: int) -> Cells:
    """Cut the clients, as they stand on their circle, into `count` cells of about one size."""
    order, n = rule.order or tuple(range(rule.clients)), rule.clients
    return [order[k * n // count : (k + 1) * n // count] for k in range(count)]


def honest(rule: Rule, corrupt: frozenset[int]) -> Attack:
    """A server that lies in nothing: it has what the corrupt clients know, and what comes out for everybody."""
    everybody = frozenset(range(rule.clients))
    answers = dict.fromkeys(everybody, (0,))
    voters = dict.fromkeys(rule.voters or everybody, (0,)) if rule.voted else {}
    lists = dict(enumerate(rule.neighbours))
    return Attack(
        lists, (everybody,), (everybody,), voters, answers, everybody, dict.fromkeys(everybody, 0), corrupt
    )


def plan(
    rule: Rule, corrupt: frozenset[int], seconds: float, cells: Cells | None = None, views: int = VIEWS
) -> Attack | None:
    """Return an attack that gets past every check of the rule, or None where there is none in these cells.

    Raises Undecided.
    """
    honest = [i for i in range(rule.clients) if i not in corrupt]
    cells = (
        [[i] for i in honest] if cells is None else [[i for i in cell if i not in corrupt] for cell in cells]
    )
    e = Encoding(rule, corrupt, [cell for cell in cells if cell], views)
    for check in rule.checks:
        e.demand(check)
    most = max(1, rule.least - len(corrupt) - 1)
    target = add_goal(e, most)
    values = e.program.solve(seconds)
    if values is None:
        return None

    def chosen(variables: Sequence[int]) -> frozenset[int]:
        return frozenset(i for x, cell in zip(variables, e.cells, strict=True) if values[x] for i in cell)

    def by_client(table: list[list[int]]) -> dict[int, tuple[int, ...]]:
        made = {i: tuple(v for v in e.views if values[table[v][c]]) for i, c in e.home.items()}
        return {**{i: vs for i, vs in made.items() if vs}, **{i: tuple(e.views) for i in corrupt}}

    lists = {
        i: frozenset(j for j in rule.neighbours[i] if j in corrupt or values[e.listed[c, e.home[j]]])
        for i, c in e.home.items()
        if values[e.sent[c]]
    }
    lists |= {i: rule.neighbours[i] for i in corrupt}
    signs = {i: v for i, c in e.home.items() for v in reversed(e.views) if values[e.agrees[v][c]]}
    shown = tuple(chosen(e.view[v]) | corrupt for v in e.views)
    named = tuple(chosen(e.named[v]) | corrupt for v in e.views)
    return Attack(lists, shown, named, by_client(e.vote), by_client(e.open), chosen(target), signs, corrupt)
