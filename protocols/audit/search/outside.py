"""The search over views of a black box: planned by the same program, played through `tamper`, judged by what is opened.

The adapter says which clients a request names (`views`) and which shares an answer opens (`shares`); how many open a
secret is seen with `opens`, or assumed from `tolerated`. What does not belong here: how plans are made (`planning`),
rules with checks of their own (`two_views`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from protocols.audit.pieces import Seen
from protocols.audit.prop import Finding, NotChecked
from protocols.audit.properties.opened import opened_in, promised, threshold, vectors
from protocols.audit.properties.tampered import require_views_heard, worded
from protocols.audit.search.planning import plan
from protocols.kernel import SERVER, Message
from protocols.opening import Attack, Check, Rule

_WHOLE = "everybody is told the same list of all"
_ONCE = Check("one answer per session", ("open",), "once")
_OWN = Check("itself in the view", ("open",), "own")


def search(subject: Any) -> str:
    """Plan and play, against clients who check more and more; return what was examined, in words. Raises Finding."""
    n = subject.clients[1]
    least, (enough, said) = promised(subject, n), threshold(subject)
    told = []
    few = Check("enough in the view", ("open",), "least", "view", "all", least)
    everybody = frozenset(range(n))
    truth = Attack({}, (everybody,), (), {}, dict.fromkeys(everybody, (0,)), everybody)
    _judged(subject, truth, enough, least)
    for story, checks in (
        ("both views to each client, of few or many", ()),
        ("both, of enough clients", (few,)),
        ("one view to each client", (few, _ONCE)),
        ("one view, with itself in it, to each client", (few, _ONCE, _OWN)),
    ):
        rule = _rule(n, min([least, *enough.values()]), least, checks)
        attack = plan(rule, frozenset(), subject.searched.seconds)
        if attack is None:
            told.append(f"{story}: no plan")
            continue
        _judged(subject, attack, enough, least)
        told.append(f"{story}: refused")
    require_views_heard(subject)
    return f"{n} clients; {said}. {'; '.join(told)}. Not examined: corrupt clients, lists, votes."


def _rule(n: int, threshold: int, least: int, checks: tuple[Check, ...]) -> Rule:
    """Everybody masks with everybody else and holds a share of each; so many open a secret."""
    everybody = frozenset(range(n))
    others = tuple(everybody - {i} for i in range(n))
    whole = Check(_WHOLE, ("input",), "least", "list", "all", n)
    return Rule(n, others, threshold, least, 0, 0, (whole, *checks))


def _judged(subject: Any, attack: Attack, enough: Mapping[str, int], least: int) -> None:
    """Play an attack. Raises Finding where it opens the sum that it is after, or the input of any client."""
    n = subject.clients[1]
    opened = opened_in(subject, _played(subject, attack), enough)
    for group in (attack.target, *(frozenset([i]) for i in range(n))):
        own = frozenset(i for i in group if (i, "own") in opened)
        if own and len(own) < least and all(_alone(i, own, opened, n) for i in own):
            raise Finding("\n".join(_story(attack, own, least, n)))


class Showing:
    """A tamper that shows each client the views that an attack has for it."""

    def __init__(self, subject: Any, attack: Attack) -> None:
        self.subject, self.attack = subject, attack
        self.worded = False
        self.answers: list[Message] = []

    def __call__(self, sent: Message) -> Any:
        if sent.sender != SERVER:
            self.answers += [] if self.subject.refuses(sent) else [sent]
            return sent
        stages = self.subject.stages
        # before, all are told the whole list
        late = stages[stages.index(self.subject.counting) + 1 :] or stages[-1:]
        if sent.stage not in late or worded(self.subject, sent, self.attack.views[0]) is None:
            return sent
        numbers = self.attack.answers.get(sent.recipient.number, ())
        told = [worded(self.subject, sent, self.attack.views[v]) for v in numbers]
        self.worded = True
        return [replace(sent, body=body) for body in told if body is not None]


def _played(subject: Any, attack: Attack) -> list[Seen]:
    showing = Showing(subject, attack)
    subject.play(vectors(subject), {}, tamper=showing)
    if not showing.worded:
        raise NotChecked("`views` words no request of this session: None came for each of them")
    return [(str(m.sender), str(m.recipient), bytes(m.body)) for m in showing.answers]


def _alone(i: int, target: Any, opened: set[tuple[int, str]], n: int) -> bool:
    """Whether all masks of a client with those outside the target are open."""
    return (i, "key") in opened or all((j, "key") in opened for j in range(n) if j not in target)


def _story(attack: Attack, target: Any, least: int, n: int) -> Iterator[str]:
    who = f"client {min(target)}'s input" if len(target) == 1 else f"the sum of clients {sorted(target)}"
    yield f"{who} is open to the server, though {least} of {n} clients were promised"
    yield f"  enough shares of its own mask's secret and of its key's were opened, of clients {sorted(target)}"
    yield from (
        f"  view {v}: clients {sorted(view)} are said to have stayed" for v, view in enumerate(attack.views)
    )
    yield from (
        f"  client {i} opens its shares for the views {sorted(of)}"
        for i, of in sorted(attack.answers.items())
    )
