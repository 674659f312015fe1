"""Against an active client, and against any bytes: typed refusals that name the right party; no crash, hang
or flood.
"""

import contextlib
import pickle
import time
import tracemalloc
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st

from protocols.audit.draws import small_vectors, tell, wrong
from protocols.audit.prop import Finding, NotChecked, promised
from protocols.audit.properties import tampered
from protocols.audit.reading import hook_of
from protocols.audit.stepping import drive
from protocols.errors import PeerError, SecAggError
from protocols.kernel import SERVER, Message, Party, client
from protocols.randomness import SystemRandom
from protocols.runtime import recall

MOST_SECONDS = 10.0


@promised("none", "robust decoding")
def any_bytes_decoded_safely(subject: Any, data: Any) -> None:
    """Any bytes give an answer or a typed error, in bounded time and memory.

    Bytes of any kind as a message body or as a stored state: an answer or a typed error, quickly and in bounded
    memory.
    """
    driven = subject.cached("driven", lambda: drive(subject, small_vectors()))
    messages = driven.messages
    genuine = messages[data.draw(st.integers(0, len(messages) - 1), label="message")]
    body = data.draw(_mutation(bytes(genuine.body)), label="body")
    state = subject.protocol.decode_state(driven.state_for(genuine))
    _bounded(
        lambda: state.receive(replace(genuine, body=body), SystemRandom()),
        f"{genuine.recipient} at {genuine.stage}",
        body,
    )
    _bounded(lambda: subject.protocol.decode_state(body), "the decoder of states", body)
    _bounded(lambda: Message.from_wire(body), "the decoder of frames", body)


def _mutation(genuine: bytes) -> st.SearchStrategy[bytes]:
    n = len(genuine)
    cut = st.integers(0, max(n - 1, 0)).map(lambda k: genuine[:k])
    longer = st.binary(min_size=1, max_size=40).map(lambda tail: genuine + tail)
    flip = st.tuples(st.integers(0, max(n - 1, 0)), st.integers(1, 255)).map(
        lambda t: genuine[: t[0]] + bytes([genuine[t[0]] ^ t[1]]) + genuine[t[0] + 1 :] if n else b"\x01"
    )
    huge = st.integers(0, max(n - 4, 0)).map(lambda k: genuine[:k] + b"\xff" * 4 + genuine[k + 4 :])
    return st.one_of(cut, longer, flip, huge, st.binary(max_size=200))


def _bounded(call: Any, who: str, body: bytes) -> None:
    began = time.perf_counter()
    tracemalloc.start()
    try:
        call()
    except SecAggError:
        pass
    except Exception as error:
        raise Finding(
            f"{who} raises {type(error).__name__} on malformed bytes, not a typed error\n"
            f"  bytes: {body[:64].hex()}\n  {error}"
        ) from error
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    if peak > (1 << 26) + 200 * len(body):
        raise Finding(f"{who} allocates {peak} bytes for a message of {len(body)}")
    if time.perf_counter() - began > MOST_SECONDS:
        raise Finding(f"{who} takes longer than {MOST_SECONDS} s for a message of {len(body)} bytes")


class _Bomb:
    """If anything unpickles this, it calls `_Bomb.went_off`."""

    exploded = False

    def __reduce__(self) -> tuple[Any, ...]:
        return _went_off, ()


def _went_off() -> None:
    _Bomb.exploded = True


def _unpickled_outside(subject: Any, data: Any) -> None:
    _Bomb.exploded = False
    tampered.unpickled(subject, _Bomb(), lambda: _Bomb.exploded)


@promised("none", "deserialisation", most=1, pieces=("tamper",), outside=_unpickled_outside)
def nothing_is_unpickled(subject: Any, data: Any) -> None:
    """No decoder executes what it receives."""
    driven = drive(subject, small_vectors())
    _Bomb.exploded = False
    bomb = pickle.dumps(_Bomb())
    for m in driven.messages:
        state = subject.protocol.decode_state(driven.state_for(m))
        with contextlib.suppress(Exception):  # whatever it raises: only whether the bomb went off is judged
            state.receive(replace(m, body=bomb), SystemRandom())
        with contextlib.suppress(Exception):
            subject.protocol.decode_state(bomb)
    if _Bomb.exploded:
        raise Finding("a decoder unpickled received bytes: whoever sends them runs any code")


@promised("none", "identifiable abort", most=10)
def garbled_answers_are_named(subject: Any, data: Any) -> None:
    """A malformed answer is refused by its sender's name and changes no total.

    A client whose answer is cut short is refused by name, and the others' sum is right or there is none.
    """
    vectors = small_vectors(6)
    stage = data.draw(st.sampled_from(subject.stages), label="stage")
    who = data.draw(st.integers(0, 5), label="client")

    cut_short: list[Message] = []

    def cut(sent: Message) -> Message:
        garbled = sent.recipient == SERVER and sent.stage == stage and sent.sender.number == who
        if not garbled or not sent.body:  # not every client answers every stage, and an answer may be empty
            return sent
        cut_short.append(sent)
        return replace(sent, body=bytes(sent.body[: len(sent.body) // 2]))

    played = subject.play(vectors, {}, tamper=cut)
    blamed = " ".join(_told(played))
    if wrong(played, vectors):
        raise tell(f"a garbled answer of client {who} at {stage} changes the total", vectors, {}, played)
    named = [
        key for key, error in played.refusals.items() if isinstance(error, PeerError) and str(who) in str(key)
    ]
    if cut_short and not named and str(who) not in blamed:
        raise tell(f"client {who} garbles its answer at {stage} and nobody names it", vectors, {}, played)


@promised("semi-malicious", "identifiable abort", most=1)
def cheating_clients_are_named(subject: Any, data: Any) -> None:
    """Wrong shares, keys or openings are found, and the party named is the right one."""
    hook = hook_of(subject, "bad_answers", "no wrong shares or keys of a cheating client are known for it")
    vectors = small_vectors(6)
    driven, kept = drive(subject, vectors), dict[Party, bytes]()
    for number in (1, 2) if SERVER in driven.memory else (1,):
        told = [
            (m.stage, hook(driven.session, m, kept.get(m.sender)))
            for m in driven.messages
            if m.recipient == SERVER
        ]
        for stage, story in sorted({(stage, forged.story) for stage, lies in told for forged in lies}):
            _one_bad_answer(subject, vectors, stage, story, number)
        if number == 1 and SERVER in driven.memory:
            kept, driven = driven.memory, drive(subject, vectors, round=2, earlier=driven)


def _told(played: Any) -> list[str]:
    """All that names somebody."""
    return [*map(str, played.refusals), *(played.outcome.blamed if played.outcome else ()), played.why]


def _one_bad_answer(subject: Any, vectors: Any, stage: str, story: str, number: int) -> None:
    """In this round client 3 cheats. Who may be at fault besides it may be named beside it."""

    def forge(sent: Message) -> Message:
        if sent.recipient != SERVER or sent.stage != stage or sent.sender.number != 3:
            return sent
        forged = subject.hooks.bad_answers(session, sent, kept)
        return next((f.message for f in forged if f.story == story), sent)

    stores, n = subject.stores(len(vectors)), len(vectors)
    updates = [{i: bytes([at, i]) * 16 for i in range(n)} for at in (1, 2)]
    if number == 2:
        subject.play(vectors, {}, stores=stores, updates=updates[0])
    memory, kept = (recall(stores[who], subject.protocol) for who in (str(SERVER), 3))
    session = subject.session_of(n, len(vectors[0]), subject.bound, round=number, memory=memory)
    played = subject.play(
        vectors, {}, tamper=forge, session=session, stores=stores, updates=updates[number - 1]
    )
    cheats = f"client 3 cheats at {stage} ({story})"
    if wrong(played, vectors):
        raise tell(f"{cheats} and the total is wrong", vectors, {}, played)
    alone = " ".join(one for one in _told(played) if "client 3" not in one)
    others = [str(i) for i in range(n) if i != 3 and f"client {i}" in alone]
    if others:
        raise tell(f"{cheats} and client {others[0]} is named", vectors, {}, played)
    # what was never used may go unnoticed; what ends the session must be pinned on the cheat
    if played.total is None and "3" not in " ".join(_told(played)):
        raise tell(f"{cheats}, ends the session and is not named", vectors, {}, played)


@promised("semi-honest", "input validity", most=1)
def additive_attacks_declared(subject: Any, data: Any) -> None:
    """That a client can add anything to the sum is declared."""
    session = subject.session_of(5, 2, 9)
    limits = " ".join(subject.protocol.protection(session).limits).lower()
    if "client" not in limits or not any(
        word in limits for word in ("any vector", "anything", "poison", "whatever")
    ):
        raise Finding(
            "the statement does not say that a client can add anything to the sum\n"
            f"  its limits: {list(subject.protocol.protection(session).limits)}"
        )


@promised("semi-honest", "abort", most=1)
def aborts_reveal_nothing(subject: Any, data: Any) -> None:
    """No reason of an abort or a refusal carries an input.

    What is said when a session ends without a total, and what any party refuses, carries no input. All leave at a
    stage, or all but one; one answers it with nonsense, or is asked nonsense.
    """
    canary = 0x5EC2E7CA7A21
    vectors = [np.array([canary, -canary]) for _ in range(5)]
    seen = 0
    for stage in subject.stages:
        for least in (0, 1):
            played = subject.play(vectors, {stage: set(range(least, 5))}, bound=1 << 47)
            seen += played.total is None
            _carries_no(canary, played)
        played = subject.play(vectors, {}, bound=1 << 47, tamper=partial(_nonsense, stage))
        _carries_no(canary, played)
    if not seen:
        raise NotChecked("no session was aborted though all its clients left")


def _nonsense(stage: str, sent: Message) -> Message:
    bad = sent.stage == stage and client(2) in (sent.sender, sent.recipient)
    return replace(sent, body=b"\xff" * 7) if bad else sent


def _carries_no(canary: int, played: Any) -> None:
    told = [
        played.why,
        *played.notes,
        *(f"{who}: {error!r} {error}" for who, error in played.refusals.items()),
    ]
    for said in told:
        if any(form in said for form in (str(canary), f"{canary:x}", f"{canary:X}")):
            raise Finding(f"the reason of an abort or a refusal carries an input\n  {said}")
