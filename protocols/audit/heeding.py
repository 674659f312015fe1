"""Whether an adapter delivers what `tamper` gives back: one that does not would pass all properties of a lying server.

A lie that arrives leaves a trace: an answer less or another one, an error, another total. No property lives here.
"""

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from protocols.audit.limit import Hung, OutOfTime
from protocols.audit.prop import Finding, NotChecked
from protocols.audit.subject import Played
from protocols.errors import Misuse
from protocols.kernel import SERVER, Message, Party

UNHEARD = (
    "lies there changed nothing; either the adapter does not deliver what tamper gives back, or who gets it neither "
    "needs it nor shows that it refuses (Wire, refusal=)"
)


Place = tuple[Collection[str], Party] | None


class Lied:
    """Sessions with a lie each, and two without. A lie that leaves no trace may not have arrived.

    play: tamper -> the session with it, with the same randomness each time where parties let it. honest: the first
    session without a lie.
    """

    def __init__(self, box: Any, play: Callable[[Any], Played]) -> None:
        self.box, self._play = box, play
        self.honest = play(_truth)
        self._told: list[tuple[str, Place, Played | None]] = []

    def tell(self, what: str, lie: Any, needed: bool = True, at: Place = None) -> bool:
        """Play a session with a lie, and return whether its total is the sum.

        needed: whether the lie must leave a trace. One whose attribute `same` is true told the truth, and need not.
        at: stages and a party, whose answers there must be less or others; None: any trace will do.
        """
        try:
            played = self._play(lie)
        except OutOfTime:
            raise
        except (Misuse, Finding, Hung):  # it noticed
            played = None
        if needed and not getattr(lie, "same", False):
            self._told.append((what, at, played))
        return played is not None and _right(self.box, played)

    def silent(self) -> list[str]:
        """What was told without a trace. Traces in which two sessions without a lie differ do not count."""
        again = self._play(_truth)

        def left(at: Place, played: Played) -> bool:
            first, second, lied = (self._traces(one, at) for one in (self.honest, again, played))
            return any(a == b != c for a, b, c in zip(first, second, lied, strict=True))

        return [what for what, at, played in self._told if played is not None and not left(at, played)]

    def require_heard(self) -> None:
        """Raise NotChecked unless lies were told, and each left a trace."""
        if not self._told:
            raise NotChecked("no lie could be told: requests are all alike, or nobody answers them")
        if silent := dict.fromkeys(self.silent()):
            raise NotChecked(f"{', '.join(silent)}: {UNHEARD}")

    def _traces(self, played: Played, at: Place) -> list[Any]:
        """What was sent; how long it was; how many answers and refusals there were. Of a whole session also whether
        the total is the sum, or none, and who raised.
        """
        sent = [m for m in played.messages if at is None or (m.stage in at[0] and m.sender == at[1])]
        refused = self.box.pieces.refusal or (lambda body: False)
        traces = [
            [(m.stage, m.sender, m.recipient, bytes(m.body)) for m in sent],
            Counter((m.stage, m.sender, len(m.body)) for m in sent),
            Counter((m.stage, m.sender, bool(refused(bytes(m.body)))) for m in sent),
        ]
        if at is not None:
            return traces
        raised = Counter(note.partition(" raised ")[0] for note in played.notes)
        return [*traces, _right(self.box, played), played.total is None, raised]


def deaf(box: Any) -> str:
    """What a black box's run does in place of heeding `tamper`; "" where it heeds it.

    Raises NotChecked where the total is never the sum, and lies about clients' messages leave no other trace.
    """
    exact, lied = _exact(box), _of_ones(box)
    played = lied.honest
    if played.total is None and not exact:
        return ""  # of no total without any lie, other properties speak
    stages = dict.fromkeys(sent.stage for sent in played.messages)
    if stages and box.counting not in stages:
        return f"run calls tamper at the stages {', '.join(stages)}, and never at {box.counting!r}, that of the input"
    if exact and not _right(box, played):
        return f"run gives no right total when tamper changes nothing {played.why}".rstrip()
    told = Counter(sender for sender, _, _ in played.transcript)
    missed = told - Counter(str(sent.sender) for sent in played.messages)
    for name, count in missed.items():
        if name == str(SERVER) or name.startswith("client "):
            return f"run has an argument tamper, and called it not for {count} of {told[name]} messages of {name}"
    for lie in (_kept_back, _emptied):
        if lied.tell("clients' messages", lie) and exact:
            return "run calls tamper, and delivers the message whatever that gives back"
    if not exact:
        lied.require_heard()
    return ""


def require_exact(box: Any) -> None:
    """Raise NotChecked where the total is not the sum although nobody lies: what a lie does to it cannot be told."""
    if not _exact(box):
        raise NotChecked("the total is not the sum of the inputs although nobody lies: see exact-sum")


def require_answers(box: Any) -> None:
    """Raise NotChecked where the answers of a stage, kept back, leave no trace."""
    lied = _of_ones(box)
    for stage in dict.fromkeys(m.stage for m in lied.honest.messages if m.sender != SERVER):
        lied.tell(f"clients' answers at {stage}", partial(_kept_back, stage=stage))
    lied.require_heard()


def require_together(box: Any, tamper: Any) -> None:
    """Raise NotChecked where the total is wrong as soon as answers arrive together, in the order they were sent."""
    if not _right(box, _ones(box, tamper)):
        raise NotChecked("no right total when two answers arrive together, in the order they were sent")


def _ones(box: Any, tamper: Any) -> Played:
    """A session of so many coordinates that no noise leaves them all as they are."""
    played: Played = box.play([np.ones(64, np.int64)] * box.clients[1], tamper=tamper)
    return played


def _of_ones(box: Any) -> Lied:
    return Lied(box, partial(_ones, box))


def _exact(box: Any) -> bool:
    """Whether the total is always the sum where nobody lies."""
    found: bool = box.cached("exact", lambda: all(_right(box, _ones(box, None)) for _ in range(4)))
    return found


def _right(box: Any, played: Played) -> bool:
    """Whether the total is the sum of what was put in last."""
    return played.total is not None and played.total.tolist() == np.sum(box.playing[0], axis=0).tolist()


def _truth(sent: Message) -> Message:
    return sent


def _kept_back(sent: Message, stage: str = "") -> Message | None:
    """Nothing that clients send arrives. stage: where; "" everywhere."""
    return sent if sent.sender == SERVER or sent.stage != (stage or sent.stage) else None


def _emptied(sent: Message) -> Message:
    return sent if sent.sender == SERVER else replace(sent, body=b"")
