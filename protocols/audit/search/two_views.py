"""The search over lists, views, votes and answers: plans, played. What does not belong here: how plans are made."""

import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from protocols.audit.prop import Finding, NotChecked
from protocols.audit.reading import modulus_of
from protocols.audit.search.planning import Weaker, arcs, corrupt_set, plan, weaker
from protocols.audit.search.playing import LiveSession, beside, next_session, set_up, sit_down
from protocols.audit.search.program import Undecided
from protocols.audit_hooks import SearchHooks
from protocols.kernel import Message, client
from protocols.opening import Attack, Rule
from protocols.randomness import SystemRandom

SECONDS = 20.0
"""For one plan."""
DIMENSION = 3
Ready = tuple[LiveSession, tuple[Message, ...], Rule]


@dataclass
class Tally:
    """What became of the rule and its weaker versions: there is no plan, the real states refused it, undecided."""

    none: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        left = f" ({'; '.join(self.undecided)})" if self.undecided else ""
        return (
            f"{len(self.none)} searched to the end without a plan, {len(self.refused)} plans refused by the real "
            f"states, {len(self.undecided)} undecided{left}"
        )


class Arrangement(NamedTuple):
    """What is searched: a protocol, its number of clients, the least survivors of its sessions, and the cells that
    decide alike (as many as clients: to the end). later: the second round of a set-up.
    """

    protocol: Any
    clients: int
    least: int
    cells: int
    later: bool = False

    @property
    def to_the_end(self) -> bool:
        return self.cells == self.clients


@dataclass
class ViewSearch:
    """One arrangement, searched in looks of growing patience: what one look decided is not planned again."""

    subject: Any
    what: Arrangement
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        self.table, self.requests, self.rule = prepared(self.subject, self.what)
        self.corrupt = corrupt_set(self.rule)
        self.left, self.took = list(weaker(self.rule)), 0.0

    def look(self, seconds: float) -> None:
        """Plan with every rule that is undecided, so long with each. Raises Finding, NotChecked."""
        began = time.perf_counter()
        self.left = [one for one in self.left if not self._settled(one, seconds)]
        self.tally.undecided = [one.story or "the rule as it is" for one in self.left]
        self.took += time.perf_counter() - began

    def told(self, seconds: float) -> str:
        """What was examined, in words; seconds: of the last look. Raises NotChecked where a search to the end is not at
        its end.
        """
        what, rule, tally = self.what, self.rule, self.tally
        if tally.undecided and what.to_the_end:
            raise NotChecked(f"{what.clients} clients, {seconds:g} s for each plan: {tally}")
        coarse = [] if what.to_the_end else [f"what tells the clients of {what.cells} arcs apart"]
        return (
            f"{what.clients} clients{', a later round' * what.later}, {len(self.corrupt)} corrupt, "
            f"{len(rule.neighbours[0])} neighbours, threshold {rule.threshold}, least {rule.least}: {tally}, in "
            f"{self.took:.0f} s. Not examined: {'; '.join((*rule.unexamined, *coarse))}."
        )

    def _settled(self, one: Weaker, limit: float) -> bool:
        """Plan with one weaker rule and play it; False if time ran out. Raises Finding, NotChecked."""
        try:
            attack = plan(one.rule, self.corrupt, limit, arcs(self.rule, self.what.cells))
        except Undecided:
            return False
        if attack is None:
            self.tally.none.append(one.story)
            return True
        played = play(self.table, self.requests, attack, one.beside)
        judge(self.subject, played, self.rule, attack, one.story and f"the plan need not pass {one.story}")
        if not one.story:
            raise NotChecked(f"the hook `opening` allows what the real states refuse: {refusals(played)}")
        self.tally.refused.append(one.story)
        return True


def search(subject: Any, what: Arrangement, seconds: float = SECONDS) -> str:
    """Search one arrangement; return what was examined, in words. Raises Finding, NotChecked.

    seconds: for one plan. What is left undecided is no verdict, where the search is to the end.
    """
    one = ViewSearch(subject, what)
    one.look(seconds)
    return one.told(seconds)


def opening_of(protocol: Any) -> SearchHooks:
    """A protocol's description of itself to a search. Raises NotChecked if it has none."""
    found: SearchHooks | None = protocol.audit_hooks.opening
    if found is None:
        raise NotChecked("the protocol has no hook `opening`: its opening rule is not known")
    return found


def prepared(subject: Any, what: Arrangement) -> Ready:
    """A table whose clients are about to be asked for their input, the requests for it, and the session's rule."""
    hook, bound, protocol = opening_of(what.protocol), subject.bound, what.protocol
    names = [str(i) for i in range(what.clients)]
    given = {"random": SystemRandom(), "simulated": True, "min_survivors": what.least}
    session = protocol.session(names, DIMENSION, bound, **given)
    rng = np.random.default_rng(what.clients)  # a sum of these is not met by chance
    vectors = [rng.integers(-bound, bound, DIMENSION, endpoint=True) for _ in range(what.clients)]
    table = sit_down(protocol, session, [v // 2 for v in vectors] if what.later else vectors)
    if what.later:
        set_up(table, until_input=False)
        table = next_session(table, vectors)
    requests = tuple(set_up(table))
    return table, requests, hook.rule(table.session, tuple(table.transcript))


def play(table: LiveSession, requests: tuple[Message, ...], attack: Attack, two: bool = False) -> LiveSession:
    """Play an attack against the real states, from where the set-up left them. two: with a session beside it."""
    played = table.fork(frozenset(map(client, attack.corrupt)))
    tables = {table.session.context: played}
    if two:
        other = beside(played)
        tables[other.session.context] = other
        attack = replace(attack, beside=other.session.context)
    lies = opening_of(table.protocol).lies(table.session, attack, tuple(played.transcript), requests)
    try:
        request = next(lies)
        while True:
            request = lies.send(tables[request.session].ask(request))
    except StopIteration:
        return played


def judge(subject: Any, played: LiveSession, rule: Rule, attack: Attack, story: str) -> None:
    """Raises Finding where fewer honest clients' exact sum came out than the session promises."""
    promised = max(2, rule.least - len(attack.corrupt))
    for group, value in came_out(subject, played, attack.corrupt):
        if len(group) < promised:
            raise Finding("\n".join(told(played, rule, attack, story, group, value)))


def came_out(
    subject: Any, played: LiveSession, corrupt: Collection[int]
) -> Iterator[tuple[frozenset[int], NDArray[np.int64]]]:
    """The sums that the server, with the corrupt clients, can compute, checked against the inputs."""
    modulus = modulus_of(subject, played)
    insiders = {i: played.before[client(i)] for i in corrupt}
    opened = opening_of(played.protocol).opened(played.session, played.transcript, insiders)
    for group, residues in opened.items():
        exact = np.sum([played.vectors[i] for i in sorted(group)], axis=0)
        if ((residues.astype(object) - exact.astype(object)) % modulus).any():
            raise NotChecked(f"the hook `opening` names a sum that is not that of clients {sorted(group)}")
        yield group, exact


def told(
    played: LiveSession,
    rule: Rule,
    attack: Attack,
    story: str,
    group: frozenset[int],
    value: NDArray[np.int64],
) -> Iterator[str]:
    """A finding as a story: what leaked, and who was told what."""
    who = f"client {min(group)}'s input" if len(group) == 1 else f"the sum of {len(group)} clients"
    yield f"{who} was opened, though {rule.least} of {rule.clients} were promised: {value.tolist()}"
    yield f"  clients {sorted(group)}, exactly; corrupt: {sorted(attack.corrupt)}"
    yield f"  {story or 'the plan passes every check of the protocol'}"
    yield from _shown("is told to mask with", attack.lists)
    for v, view in enumerate(attack.views):
        yield f"  view {v}: clients {sorted(view)} are said to have survived"
    yield from _shown("votes for the views", attack.votes)
    yield from _shown("opens its shares for the views", attack.answers)
    yield from (f"  {party} refused at {stage}: {why}" for (party, stage), why in played.refused.items())


def _shown(what: str, of: Mapping[int, Collection[int]]) -> Iterator[str]:
    yield from (f"  client {i} {what} {sorted(of[i])}" for i in sorted(of))


def refusals(played: LiveSession) -> str:
    """Who refused what, on one line."""
    return "; ".join(f"{party} at {stage}: {why}" for (party, stage), why in played.refused.items())
