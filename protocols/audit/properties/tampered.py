"""What is checked of black boxes whose adapters let messages be changed: servers that lie, vectors that are kept.

What does not belong here: what needs no tampering (`black`, `given`), and searches (`search.outside`).
"""

import contextlib
import pickle
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from protocols.audit.prop import Finding, NotChecked
from protocols.audit.reading import SAMPLES, elements_of, modulus_of, rings
from protocols.audit.statistics import Design, chi_square_uniform
from protocols.audit.subject import Played
from protocols.kernel import SERVER, Message, client

RESIDUAL = Design(SAMPLES, tests=200)


def vectors(subject: Any) -> list[Any]:
    return [np.array([i + 1, -i], np.int64) % (subject.bound + 1) for i in range(subject.clients[1])]


def promised(subject: Any, clients: int) -> int:
    """The fewest clients who must be left at the last stage for a total to be promised."""
    if subject.tolerated is None:
        raise NotChecked(subject.unknown["exact-sum"])
    last = subject.stages[-1]
    kept = [k for k in range(1, clients + 1) if subject.tolerated(clients, {last: set(range(clients - k))})]
    return min(kept, default=clients)


def requests_of(subject: Any, played: Played) -> list[Message]:
    """What the server sent to clients at the stage of the input and later."""
    late = subject.stages[subject.stages.index(subject.counting) :]
    return [
        m for m in played.messages if m.sender == SERVER and m.recipient.role == "client" and m.stage in late
    ]


class Instead:
    """A tamper that puts another body in the place of one request's (None: sends it twice), and notes what its client
    answers. same: whether the request had that body anyway.
    """

    def __init__(self, request: Message, body: bytes | None) -> None:
        self.request, self.body, self.same = request, body, False
        self.answers: list[bytes] = []

    def __call__(self, sent: Message) -> Any:
        if (sent.stage, sent.sender, sent.recipient) == (self.request.stage, SERVER, self.request.recipient):
            self.same = bytes(sent.body) == self.body
            return [sent, sent] if self.body is None else replace(sent, body=self.body)
        if (sent.stage, sent.sender) == (self.request.stage, self.request.recipient):
            self.answers.append(bytes(sent.body))
        return sent


def _play(subject: Any, tamper: Any) -> Played:
    played: Played = subject.play(vectors(subject), {}, tamper=tamper)
    return played


def mixed_sessions(subject: Any, data: Any) -> None:
    """Requests of another session between the same clients, each in turn, get no answer."""
    for foreign in _ends_of_stages(requests_of(subject, _play(subject, None))):
        _unanswered(subject, foreign, bytes(foreign.body), "a request of another session is answered")


def _unanswered(subject: Any, request: Message, body: bytes, story: str) -> None:
    """Raises Finding if a request's recipient answers this body, unless the genuine one had it anyway."""
    instead = Instead(request, body)
    _play(subject, instead)
    if instead.answers and not instead.same:
        raise Finding(f"{story}\n  {request.recipient} at {request.stage}")


def swapped_recipients(subject: Any, data: Any) -> None:
    """Client 0 is handed what was meant for client 1, of this session."""
    for stage in subject.stages[subject.stages.index(subject.counting) :]:
        swapping = Swapping(stage)
        _play(subject, swapping)
        if swapping.answered and len(set(swapping.bodies)) > 1:
            raise Finding(f"client 0 answers a request meant for client 1\n  at {stage}")


class Swapping:
    """A tamper that hands the first two clients each other's requests. answered: whether client 0 answers."""

    def __init__(self, stage: str) -> None:
        self.stage, self.answered = stage, False
        self.bodies: list[bytes] = []

    def __call__(self, sent: Message) -> Message:
        if sent.stage == self.stage and sent.sender == SERVER and sent.recipient.number < 2:
            self.bodies.append(bytes(sent.body))
            return replace(sent, recipient_index=1 - sent.recipient.number)
        self.answered |= (sent.stage, sent.sender) == (self.stage, client(0))
        return sent


def one_answer(subject: Any, data: Any) -> None:
    """A request that arrives twice is answered once, or with the same bytes."""
    for request in _ends_of_stages(requests_of(subject, _play(subject, None))):
        instead = Instead(request, None)
        _play(subject, instead)
        if len(set(instead.answers)) > 1:
            raise Finding(
                f"{request.recipient} answers the same request again, with something else\n  at {request.stage}"
            )


def forged_views(subject: Any, data: Any) -> None:
    """Requests that name fewer survivors than a total is promised for."""
    n, asked = subject.clients[1], 0
    least = promised(subject, n)
    for request in _ends_of_stages(requests_of(subject, _play(subject, None))):
        me = request.recipient.number
        few = frozenset([me, *(i for i in range(n) if i != me)][: least - 1])
        told = worded(subject, request, few)
        if told is not None:
            asked += 1
            story = f"a forged request is answered: {len(few)} survivors, where {least} are promised"
            _unanswered(subject, request, told, story)
    if not asked:
        raise NotChecked("`views` words no request of this session: None came for each of them")


def worded(subject: Any, request: Message, stayed: frozenset[int]) -> bytes | None:
    """The body of a request as it would be if just these clients had stayed; None where it names nobody."""
    seen = (str(request.sender), str(request.recipient), bytes(request.body))
    told = subject.pieces.views(request.stage, seen, stayed)
    return None if told is None else bytes(told[2])


def _ends_of_stages(requests: list[Message]) -> Iterator[Message]:
    """The first request and the last of each stage."""
    for stage in dict.fromkeys(m.stage for m in requests):
        mine = [m for m in requests if m.stage == stage]
        yield from {m.recipient: m for m in (mine[0], mine[-1])}.values()


def kept_vectors(subject: Any, data: Any) -> None:
    """The server keeps a client's vector and says that it never came: all vectors less the total are not that input."""
    if subject.hooks.stripped is not None and "modulus" in subject.given:
        _stripped_stay_hidden(subject)
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
        _hidden((everything % modulus).astype(np.uint64), modulus, victim)
    if not came_out and promised(subject, n) < n:
        raise NotChecked("no total came out when a vector was kept back, whoever's it was")


class Keeping:
    """A server that says that a client's input never came."""

    def __init__(self, subject: Any, victim: int) -> None:
        self.stage, self.victim = subject.counting, client(victim)

    def __call__(self, sent: Message) -> Message | None:
        return None if (sent.stage, sent.sender) == (self.stage, self.victim) else sent


def _hidden(left: Any, modulus: int, victim: int) -> None:
    p = chi_square_uniform(left, modulus)
    if p < RESIDUAL.level:
        raise Finding(
            f"once the server removed what it can, client {victim}'s vector is in the open (p = {p:.2g})\n"
            f"  the server keeps its vector, says that it never came, and takes the masks of the others off; all "
            f"inputs were zero; left of its vector: {left[:8].tolist()}..."
        )


def _stripped_stay_hidden(subject: Any) -> None:
    for ring in rings(subject):
        played = subject.play([np.zeros(SAMPLES, np.int64)] * subject.clients[1], {}, **ring)
        for who, left in subject.hooks.stripped(None, played.messages, {}).items():
            _hidden(left, modulus_of(subject, played), who)


def unpickled(subject: Any, bomb: object, gone_off: Any) -> None:
    """Every kind of message is replaced by a pickle that tells when it is loaded."""
    body = pickle.dumps(bomb)
    for stage in subject.stages:
        for role in ("server", "client"):

            def plant(sent: Message, stage: str = stage, role: str = role) -> Message:
                return replace(sent, body=body) if (sent.stage, sent.sender.role) == (stage, role) else sent

            with contextlib.suppress(Exception):
                _play(subject, plant)
            if gone_off():
                raise Finding(
                    f"a message of a {role} at {stage} is unpickled: whoever sends it runs any code"
                )


def sealed_shares(subject: Any, data: Any) -> None:
    """No share that is opened was in an earlier message."""
    played = subject.play(vectors(subject), {})
    before, seen = b"", 0
    for message in played.transcript:
        for owner, kind, share in subject.pieces.shares(message):
            seen += 1
            if len(share) >= 8 and (bytes(share) in before or bytes(share).hex().encode() in before):
                raise Finding(
                    f"a share that is opened went over the relay in clear before\n  {message[0]} opens a share of "
                    f"client {owner}'s {kind or 'secret'}"
                )
        before += bytes(message[2])
    if not seen:
        raise NotChecked("`shares` read no share out of any message")
