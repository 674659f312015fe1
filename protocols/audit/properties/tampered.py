"""What is checked of black boxes whose adapters let messages be changed: servers that lie, vectors that are kept.

What does not belong here: what needs no tampering (`black`, `given`), and searches (`search.outside`).
"""

import contextlib
import functools
import pickle
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from protocols.audit.heeding import UNHEARD, Lied
from protocols.audit.prop import Finding, NotChecked
from protocols.audit.properties.opened import one_secret_of_each, promised, vectors
from protocols.audit.reading import SAMPLES, elements_of, modulus_of, rings, stripped_of
from protocols.audit.repeatable import ReplayRandom
from protocols.audit.statistics import Design, chi_square_uniform
from protocols.audit.subject import Drop, Played
from protocols.kernel import SERVER, Message, Party, client

RESIDUAL = Design(SAMPLES, tests=200)
REPEATED = 29
"""The sessions that are compared draw the same randomness."""
REPEATS, STRANGERS = " with one named twice", " with a stranger among them"
KEPT_BACK = "the server keeps its vector, says that it never came, and takes the masks of the others off"
_HINT = "\n  where what it sends is a refusal, let the adapter say so: refusal="


def requests_of(subject: Any, played: Played) -> list[Message]:
    """What the server sent to clients at the stage of the input and later."""
    late = subject.stages[subject.stages.index(subject.counting) :]
    return [
        m for m in played.messages if m.sender == SERVER and m.recipient.role == "client" and m.stage in late
    ]


class Noting:
    """Base of tampers that note what one client answers at one stage, and all that it sends from then on: refusals are
    no answers.
    """

    def __init__(self, subject: Any, who: Party, stage: str) -> None:
        self.subject, self.who, self.stage = subject, who, stage
        self.answers: list[bytes] = []
        self.later: list[tuple[str, bytes]] = []

    def noted(self, sent: Message) -> Message:
        if sent.sender == self.who and not self.subject.refuses(sent):
            self.answers += [bytes(sent.body)] if sent.stage == self.stage else []
            self.later += [(sent.stage, bytes(sent.body))] if sent.stage != self.stage else []
        return sent


class Handed(Noting):
    """A tamper that hands one request's client these bodies in its place, one by one (None: what is meant for it).
    same: whether the first was meant for it anyway.
    """

    def __init__(self, subject: Any, request: Message, *bodies: bytes | None) -> None:
        super().__init__(subject, request.recipient, request.stage)
        self.bodies, self.same = bodies, False

    def __call__(self, sent: Message) -> Any:
        if (sent.stage, sent.sender, sent.recipient) != (self.stage, SERVER, self.who):
            return self.noted(sent)
        self.same = bytes(sent.body) == self.bodies[0]
        return [sent if body is None else replace(sent, body=body) for body in self.bodies]


class Swapping(Noting):
    """A tamper that hands client 0 and another one each other's requests."""

    def __init__(self, subject: Any, request: Message, other: int) -> None:
        super().__init__(subject, client(0), request.stage)
        self.places = (0, other)
        self.bodies: set[bytes] = set()

    @property
    def same(self) -> bool:
        return len(self.bodies) < 2

    def __call__(self, sent: Message) -> Message:
        if (sent.stage, sent.sender) != (self.stage, SERVER) or sent.recipient.number not in self.places:
            return self.noted(sent)
        self.bodies.add(bytes(sent.body))
        return replace(sent, recipient_index=sum(self.places) - sent.recipient.number)


def _play(subject: Any, tamper: Any, gone: Drop | None = None) -> Played:
    """A session that draws what the others here draw, where parties let it: some remember what they saw."""
    rng = ReplayRandom(REPEATED) if subject.cached("repeats", lambda: _repeats(subject)) else None
    played: Played = subject.play(vectors(subject), gone or {}, tamper=tamper, rng=rng)
    return played


def _repeats(subject: Any) -> bool:
    totals = [subject.play(vectors(subject), {}, rng=ReplayRandom(REPEATED)).total for _ in range(2)]
    return all(total is not None for total in totals)


def told(subject: Any) -> Lied:
    """Sessions of lies about requests, beside one without."""
    return Lied(subject, functools.partial(_play, subject))


def _tell(lied: Lied, request: Message, lie: Any, which: str = "the", instead: bool = True) -> None:
    """Tell a lie about a request. One that nobody answers at its stage may leave no trace.

    instead: whether the lie comes in the request's place: its client then answers otherwise, there or later. A swap
    shows there: what others were handed shows later.
    """
    stage, who = request.stage, request.recipient
    answered = any((m.stage, m.sender) == (stage, who) for m in lied.honest.messages)
    stages = lied.box.stages[lied.box.stages.index(stage) :]
    at = ([stage] if isinstance(lie, Swapping) else stages, who) if instead else None
    lied.tell(f"{which} request to {who} at {stage}", lie, answered, at)


def _takes(lied: Lied, request: Message, *lies: Handed | Swapping) -> bool:
    """Whether a client takes what it is handed in the place of a request: it answers, and not as it answers what is
    meant for it (with the same randomness), or as it goes on depends on which of these lies it was.
    """
    for lie in lies:
        _tell(lied, request, lie)
    if not lies[0].answers or lies[0].same:
        return False
    subject, meant = lied.box, Handed(lied.box, request, None)
    _play(subject, meant)
    return any(lie.answers != meant.answers or lie.later != lies[0].later for lie in lies)


def mixed_sessions(subject: Any, data: Any) -> None:
    """Requests of other sessions between the same clients, each in turn, get no answer that depends on them."""
    others = [requests_of(subject, subject.play(vectors(subject), {}, tamper=None)) for _ in range(2)]
    lied = told(subject)
    for request in _ends_of_stages(requests_of(subject, lied.honest)):
        where = (request.stage, request.recipient)
        foreign = [bytes(m.body) for sent in others for m in sent if (m.stage, m.recipient) == where]
        if _takes(lied, request, *(Handed(subject, request, body) for body in foreign)):
            raise Finding(
                f"a request of another session is answered\n  {request.recipient} at {request.stage}{_HINT}"
            )
    lied.require_heard()


def swapped_recipients(subject: Any, data: Any) -> None:
    """Client 0 is handed what was meant for another, of this session."""
    lied, others = told(subject), range(1, min(3, subject.clients[1]))
    requests = requests_of(subject, lied.honest)
    for request in requests:  # half a swap at a time: of a swap that arrives by half, nothing follows
        if request.recipient.number <= len(others):
            to = 0 if request.recipient.number else 1
            _tell(lied, request, functools.partial(_moved, request, to), "the recipient of the")
    lied.require_heard()
    for request in requests:
        swaps = [Swapping(subject, request, other) for other in others]
        if request.recipient == client(0) and swaps and _takes(lied, request, *swaps):
            raise Finding(
                f"client 0 answers a request meant for client {others[0]}\n  at {request.stage}{_HINT}"
            )
    lied.require_heard()


def _moved(request: Message, to: int, sent: Message) -> Message:
    """A request goes to another client than it is meant for."""
    meant = (sent.stage, sent.sender, sent.recipient) == (request.stage, SERVER, request.recipient)
    return replace(sent, recipient_index=to) if meant else sent


def one_answer(subject: Any, data: Any) -> None:
    """A request that arrives twice, or another one after it, is answered once, or with the same bytes."""
    alike = set[str]()
    left = functools.cache(lambda stage, who: requests_of(subject, _play(subject, None, {stage: {who}})))
    lied = told(subject)
    for request in _ends_of_stages(requests_of(subject, lied.honest)):
        others = _others(subject, request, left)
        alike |= set() if others else {request.stage}
        for body in (None, *others):
            if body is not None:
                _tell(lied, request, Handed(subject, request, body), "another")
            handed = Handed(subject, request, None, body)
            _tell(lied, request, handed, "a second", instead=False)
            if len(set(handed.answers)) > 1:
                what = "the same request" if body is None else "a second, different request"
                raise Finding(
                    f"{request.recipient} answers {what} again, with something else\n  at {request.stage}{_HINT}"
                )
    lied.require_heard()
    if alike:
        subject.examined["one-answer-per-session"] = (
            f"at {', '.join(sorted(alike))} the second request was the first one again: none is known that differs"
        )


def _others(subject: Any, request: Message, left: Callable[[str, int], list[Message]]) -> set[bytes]:
    """Other bodies of a request in the same session: when another client left before, and as `views` words that."""
    n, me, meant = subject.clients[1], request.recipient.number, bytes(request.body)
    gone = max((i for i in range(n) if i != me), default=me)
    where = (request.stage, request.recipient)
    before = subject.stages[: subject.stages.index(request.stage)]
    found = {bytes(m.body) for stage in before for m in left(stage, gone) if (m.stage, m.recipient) == where}
    if "views" in subject.given:
        found |= {worded(subject, request, frozenset(range(n)) - {gone}) or meant}
    return found - {meant}


def forged_views(subject: Any, data: Any) -> None:
    """Requests that name fewer survivors than a total is promised for, or make up their number with names that come
    twice, or that are nobody's.
    """
    n, asked = subject.clients[1], set[str]()
    least, lied = promised(subject, n), told(subject)
    for request in _ends_of_stages(requests_of(subject, lied.honest)):
        me = request.recipient.number
        few = [me, *(i for i in range(n) if i != me)][: least - 1]
        plain = worded(subject, request, frozenset(few))
        if plain is None:
            continue
        for story, places in (
            ("", frozenset(few)),
            (REPEATS, (*few, *few[:1])),
            (STRANGERS, frozenset([*few, n])),
        ):
            body = plain if not story else _worded_oddly(subject, request, places)
            if body is None or (story and body == plain):
                continue
            asked.add(story)
            if _takes(lied, request, Handed(subject, request, body)):
                raise Finding(
                    f"a forged request is answered: {len(few)} survivors{story}, where {least} are promised\n"
                    f"  {request.recipient} at {request.stage}{_HINT}"
                )
    if not asked:
        raise NotChecked("`views` words no request of this session: None came for each of them")
    lied.require_heard()
    if missing := [story.strip() for story in (REPEATS, STRANGERS) if story not in asked]:
        subject.examined["forged-requests-refused"] = (
            f"`views` does not word a view {', nor one '.join(missing)}"
        )


def require_views_heard(subject: Any) -> None:
    """Raise NotChecked where a view of few, alone or after what is meant, leaves no trace."""
    lied = told(subject)
    few = frozenset(range(promised(subject, subject.clients[1]) - 1))
    for request in _ends_of_stages(requests_of(subject, lied.honest)):
        if (body := worded(subject, request, few)) is not None:
            _tell(lied, request, Handed(subject, request, body))
            for bodies in ((None, body), (body, None)):
                _tell(lied, request, Handed(subject, request, *bodies), "a second", instead=False)
    lied.require_heard()


def _worded_oddly(subject: Any, request: Message, places: Any) -> bytes | None:
    """As `worded`, None where an adapter cannot word such places."""
    with contextlib.suppress(Exception):
        return worded(subject, request, places)
    return None


def worded(subject: Any, request: Message, stayed: Collection[int]) -> bytes | None:
    """The body of a request as it would be if just these clients had stayed; None where it names nobody."""
    seen = (str(request.sender), str(request.recipient), bytes(request.body))
    told = subject.pieces.views(request.stage, seen, stayed)
    return None if told is None else told[2]


def _ends_of_stages(requests: list[Message]) -> Iterator[Message]:
    """The first request and the last of each stage."""
    for stage in dict.fromkeys(m.stage for m in requests):
        mine = [m for m in requests if m.stage == stage]
        yield from {m.recipient: m for m in (mine[0], mine[-1])}.values()


def kept_vectors(subject: Any, data: Any) -> None:
    """The server keeps a client's vector and says that it never came: all vectors less the total are not that input."""
    if subject.hooks.stripped is not None and "modulus" in subject.given:
        _stripped_stay_hidden(subject)
    if {"shares", "tolerated"} <= subject.given:
        subject.examined["masked-after-unmasking"] = one_secret_of_each(subject)
    if not {"elements", "modulus", "tamper"} <= subject.given:
        return
    n = subject.clients[1]
    came_out = 0
    for ring, victim in ((ring, victim) for ring in rings(subject) for victim in range(n)):
        played = subject.play([np.zeros(SAMPLES, np.int64)] * n, {}, tamper=Keeping(subject, victim), **ring)
        if played.total is None:
            continue
        came_out += 1
        masked, modulus = elements_of(subject, played), modulus_of(subject, played)
        everything = sum((v.astype(object) for v in masked.values()), np.zeros(len(masked[victim]), object))
        still_hidden({victim: (everything % modulus).astype(np.uint64)}, modulus, KEPT_BACK, RESIDUAL)
    if not came_out and promised(subject, n) < n:
        raise NotChecked("no total came out when a vector was kept back, whoever's it was")


class Keeping:
    """A server that says that a client's input never came."""

    def __init__(self, subject: Any, victim: int) -> None:
        self.stage, self.victim = subject.counting, client(victim)

    def __call__(self, sent: Message) -> Message | None:
        return None if (sent.stage, sent.sender) == (self.stage, self.victim) else sent


def still_hidden(left: Any, modulus: int, story: str, design: Design) -> None:
    """Raises Finding where what is left of a client's vector, by client, is not uniform."""
    for who, values in left.items():
        p = chi_square_uniform(values, modulus)
        if p < design.level:
            raise Finding(
                f"once the server removed what it can, client {who}'s vector is in the open (p = {p:.2g})\n"
                f"  {story}; all inputs were zero; left of its vector: {np.asarray(values[:8]).tolist()}..."
            )


def _stripped_stay_hidden(subject: Any) -> None:
    for ring in rings(subject):
        played = subject.play([np.zeros(SAMPLES, np.int64)] * subject.clients[1], {}, **ring)
        still_hidden(stripped_of(subject, played), modulus_of(subject, played), KEPT_BACK, RESIDUAL)


def unpickled(subject: Any, bomb: object, gone_off: Any) -> None:
    """Every kind of message is replaced by a pickle that tells when it is loaded."""
    lied, pickled = told(subject), pickle.dumps(bomb)
    kinds = {f"a {m.sender.role} at {m.stage}": m for m in lied.honest.messages}
    for who, kind in kinds.items():

        def plant(sent: Message, body: bytes | None, kind: Message = kind) -> Message | None:
            if (sent.stage, sent.sender.role) != (kind.stage, kind.sender.role):
                return sent
            return None if body is None else replace(sent, body=body)

        lied.tell(who, functools.partial(plant, body=pickled))
        if gone_off():
            raise Finding(f"a message of {who} is unpickled: whoever sends it runs any code")
        lied.tell(f"empty ones of {who}", functools.partial(plant, body=b""))
        lied.tell(f"kept-back ones of {who}", functools.partial(plant, body=None))
    silent = set(lied.silent())

    def arrives(who: str, kind: Message) -> bool:
        """Whether lies arrive there, though a pickle changes nothing: nobody reads what stands there."""
        unread = f"empty ones of {who}" in silent and not (kind.sender == SERVER and kind.body)
        return unread and f"kept-back ones of {who}" not in silent

    if lost := [who for who, kind in kinds.items() if who in silent and not arrives(who, kind)]:
        raise NotChecked(f"messages of {', '.join(lost)}: {UNHEARD}")
    if unseen := [who for who in kinds if who in silent]:
        subject.examined["nothing-is-unpickled"] = f"nobody reads what messages of {', '.join(unseen)} say"
