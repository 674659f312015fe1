"""The search over views of a black box: planned by the same program, played through `tamper`, judged by what is opened.

The adapter says which clients a request names (`views`) and which shares an answer opens (`shares`); how many open a
secret follows from `tolerated`. What does not belong here: how plans are made (`planning`), rules with checks of their
own (`views`).
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from protocols.audit.prop import Finding, NotChecked
from protocols.audit.properties.tampered import promised, vectors, worded
from protocols.audit.search.planning import plan
from protocols.kernel import SERVER, Message
from protocols.opening import Attack, Check, Rule

_WHOLE = "everybody is told the same list of all"
_ONCE = Check("one answer per session", ("open",), "once")


def search(subject: Any) -> str:
    """Plan and play, against clients who check more and more; return what was examined, in words. Raises Finding."""
    n = subject.clients[1]
    least, told = promised(subject, n), []
    enough = Check("enough in the view", ("open",), "least", "view", "all", least)
    for story, checks in (
        ("both views to each client, of few or many", ()),
        ("both, of enough clients", (enough,)),
        ("one view to each client", (enough, _ONCE)),
    ):
        attack = plan(_rule(n, least, checks), frozenset(), subject.searched.seconds)
        if attack is None:
            told.append(f"{story}: no plan")
            continue
        asked = _played(subject, attack)
        opened = set(_opened(subject, asked, least))
        target = frozenset(i for i in attack.target if (i, "own") in opened)
        bare = {i for i in target if _alone(i, target, opened, n)}
        if target and bare == target and len(target) < least:
            raise Finding("\n".join(_story(attack, target, least, n)))
        told.append(f"{story}: refused")
    left = "Not examined: corrupt clients, lists, votes."
    return f"{n} clients, {least} of whom open a secret. {'; '.join(told)}. {left}"


def _rule(n: int, least: int, checks: tuple[Check, ...]) -> Rule:
    """Everybody masks with everybody else and holds a share of each; this many open a secret."""
    everybody = frozenset(range(n))
    others = tuple(everybody - {i} for i in range(n))
    whole = Check(_WHOLE, ("input",), "least", "list", "all", n)
    return Rule(n, others, least, least, 0, 0, (whole, *checks))


class Showing:
    """A tamper that shows each client the views that an attack has for it."""

    def __init__(self, subject: Any, attack: Attack) -> None:
        self.subject, self.attack = subject, attack
        self.worded = False
        self.answers: list[Message] = []

    def __call__(self, sent: Message) -> Any:
        if sent.sender != SERVER:
            self.answers.append(sent)
            return sent
        numbers = self.attack.answers.get(sent.recipient.number, ())
        told = [worded(self.subject, sent, self.attack.views[v]) for v in numbers]
        if None in told:
            return sent
        self.worded = True
        return [replace(sent, body=body) for body in told if body is not None]


def _played(subject: Any, attack: Attack) -> list[Message]:
    showing = Showing(subject, attack)
    subject.play(vectors(subject), {}, tamper=showing)
    if not showing.worded:
        raise NotChecked("`views` words no request of this session: None came for each of them")
    return showing.answers


def _opened(subject: Any, answers: list[Message], least: int) -> Iterator[tuple[int, str]]:
    """(client, which of its secrets) for every secret of which enough clients opened a share."""
    holders: dict[tuple[int, str], set[int]] = {}
    for m in answers:
        for owner, secret, _ in subject.pieces.shares((str(m.sender), str(m.recipient), bytes(m.body))):
            holders.setdefault((int(owner), str(secret)), set()).add(m.sender.number)
    yield from (one for one, by in holders.items() if len(by) >= least)


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
