"""Adapters that deliver what `tamper` gives back only in part: no broken client and no broken server passes behind one.

What does not belong here: whether the lies themselves find broken clients (test_pieces, test_readers_toys).
"""

import functools
import json
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from protocols.audit import BlackBox, Status, Wire, audit
from protocols.audit.pieces import Malformed
from protocols.errors import Misuse
from tests.audit.boxes import leavers
from tests.audit.test_pieces import Eager, Loading, Trusting
from tests.audit.test_readers_toys import UnmaskTwice
from tests.toys import masked

LIES = (
    "mixed-sessions-refused",
    "swapped-recipients-refused",
    "one-answer-per-session",
    "forged-requests-refused",
    "nothing-is-unpickled",
)
ON_CLIENTS = ("order-and-duplicates", "copied-contributions-are-not-summed")
OPTIONS: dict[str, Any] = {
    "stages": masked.STAGES,
    "bound": 127,
    "clients": (3, 5),
    "threat": "semi-malicious",
}


def deaf(deliver: Any, **pieces: Any) -> BlackBox:
    """The toy behind an adapter that delivers what `deliver(tamper, stage, message)` gives."""

    def run(inputs: Any, drop: Any, tamper: Any = None) -> Any:
        return masked.run(inputs, drop, tamper and functools.partial(deliver, tamper))

    return BlackBox(run, tolerated=masked.tolerated, views=masked.stayed, **OPTIONS, **pieces)


def statuses(box: BlackBox, *names: str) -> dict[str, Status]:
    report = audit(box, only=names, examples=3, search=True)
    return {one.name: one.status for one in report.properties}


def whole(tamper: Any, stage: str, m: Any) -> Any:
    return tamper(stage, m)


def at_first(tamper: Any, stage: str, m: Any) -> Any:
    """One message for one."""
    return list(tamper(stage, m))[:1]


def not_at_unmask(tamper: Any, stage: str, m: Any) -> Any:
    got = tamper(stage, m)
    return [m] if stage == "unmask" and m[0] == "server" else got


def no_answer_at_unmask(tamper: Any, stage: str, m: Any) -> Any:
    got = tamper(stage, m)
    return [m] if stage == "unmask" and m[1] == "server" else got


def no_bodies(tamper: Any, stage: str, m: Any) -> Any:
    """Whether anything arrives that is not empty."""
    return [m] if any(body for _, _, body in tamper(stage, m)) else []


def how_often(tamper: Any, stage: str, m: Any) -> Any:
    return [m if body else (*m[:2], b"") for _, _, body in tamper(stage, m)]


def first_client(tamper: Any, stage: str, m: Any) -> Any:
    got = tamper(stage, m)
    return [m] if m[0] == "server" and m[1] != "client 0" else got


def not_first_client(tamper: Any, stage: str, m: Any) -> Any:
    got = tamper(stage, m)
    return [m] if m[1] == "client 0" else got


def parsed(tamper: Any, stage: str, m: Any) -> Any:
    """The message itself in place of a request that is no JSON."""

    def read(got: Any) -> Any:
        try:
            json.loads(got[2] if m[0] == "server" else b"{}")
        except ValueError:
            return m if got[2] else got
        return got

    return [read(got) for got in tamper(stage, m)]


def at_last(tamper: Any, stage: str, m: Any) -> Any:
    return list(tamper(stage, m))[-1:]


def as_long(tamper: Any, stage: str, m: Any) -> Any:
    """The message itself in place of one of another length, unless that is empty."""
    return [got if len(got[2]) in (0, len(m[2])) else m for got in tamper(stage, m)]


def after_it(tamper: Any, stage: str, m: Any) -> Any:
    """A request, and then what comes in its place."""
    got = list(tamper(stage, m))
    return [m, *got] if m[0] == "server" and got and got != [m] else got


def before_it(tamper: Any, stage: str, m: Any) -> Any:
    """What comes in a request's place, and then the request: it is sent again."""
    got = list(tamper(stage, m))
    return [*got, m] if m[0] == "server" and got != [m] else got


PARTIAL = (
    *(at_first, at_last, as_long, after_it, before_it, not_at_unmask, no_bodies, how_often),
    *(first_client, not_first_client, parsed),
)
BROKEN: dict[str, tuple[Any, ...]] = {
    "forged-requests-refused": (Eager, ()),
    "one-answer-per-session": (UnmaskTwice, ()),
    "mixed-sessions-refused": (Trusting, ()),
    "swapped-recipients-refused": (Trusting, ()),
    "nothing-is-unpickled": (Loading, ()),
    "no-split-opens-few": (Eager, ("shares",)),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("deliver", [whole, *PARTIAL])
def test_a_broken_client_passes_behind_no_adapter(
    deliver: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, pieces = BROKEN[name]
    box = deaf(deliver, **{piece: getattr(masked, piece) for piece in pieces})
    monkeypatch.setattr(masked, "Client", client)
    found = statuses(box, name)[name]
    assert found in ([Status.FAILED] if deliver is whole else [Status.FAILED, Status.NOT_CHECKED])


def test_a_lie_that_arrives_in_some_sessions_only_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sessions that look whether lies arrive are played to the full, those of the property are not."""
    heard = {"sessions": 0}

    def run(inputs: Any, drop: Any, tamper: Any = None) -> Any:
        heard["sessions"] += 1
        return masked.run(inputs, drop, tamper if heard["sessions"] < 11 else tamper and plain(tamper))

    def plain(tamper: Any) -> Any:
        return lambda stage, m: [m] if tamper(stage, m) != 0 else []

    monkeypatch.setattr(masked, "Client", Trusting)
    box = BlackBox(run, tolerated=masked.tolerated, views=masked.stayed, **OPTIONS)
    assert statuses(box, LIES[1], LIES[0])[LIES[0]] is Status.NOT_CHECKED
    assert heard["sessions"] > 11


@pytest.mark.parametrize("deliver", PARTIAL)
def test_a_sound_protocol_behind_such_an_adapter_is_not_said_to_be_broken(deliver: Any) -> None:
    found = statuses(deaf(deliver), *LIES, *ON_CLIENTS)
    assert set(found.values()) <= {Status.PASSED, Status.NOT_CHECKED}
    assert Status.NOT_CHECKED in found.values()


def test_a_sound_protocol_behind_a_whole_adapter_passes() -> None:
    assert set(statuses(deaf(whole), *LIES, *ON_CLIENTS).values()) == {Status.PASSED}


@pytest.mark.parametrize(
    "deliver, name",
    [(at_first, ON_CLIENTS[0]), (no_answer_at_unmask, ON_CLIENTS[0]), (no_bodies, ON_CLIENTS[1])],
)
def test_lies_about_answers_that_never_arrive_are_not_checked(deliver: Any, name: str) -> None:
    assert statuses(deaf(deliver), name) == {name: Status.NOT_CHECKED}


def plain_sum(inputs: Any, wire: Wire, send: Callable[[np.ndarray], bytes]) -> Any:
    """Everybody's vector, as the server adds them up: what is no vector is left out."""
    came = wire.trip("input", dict.fromkeys(range(len(inputs)), b"go"), lambda i, _: send(inputs[i]))
    vectors = [np.frombuffer(body, "<i8") for _, body in came if len(body) == inputs[0].nbytes]
    return (np.sum(vectors, axis=0) if vectors else None), wire.transcript


def test_a_copied_contribution_does_not_pass_behind_an_adapter_that_delivers_the_original() -> None:
    def run(inputs: Any, drop: Any, tamper: Any = None) -> Any:
        deliver = functools.partial(no_bodies, tamper) if tamper else None
        return plain_sum(inputs, Wire(drop, deliver), lambda vector: vector.astype("<i8").tobytes())

    [found] = audit(BlackBox(run), only=ON_CLIENTS[1:]).properties
    assert found.status is Status.NOT_CHECKED


def noisy(deliver: Any) -> BlackBox:
    """The toy, with a total that is never exact."""

    def run(inputs: Any, drop: Any, tamper: Any = None) -> Any:
        total, transcript = masked.run(inputs, drop, tamper and functools.partial(deliver, tamper))
        drawn = np.frombuffer(os.urandom(len(inputs[0])), np.int8)
        return None if total is None else total + drawn, transcript

    return BlackBox(run, tolerated=masked.tolerated, views=masked.stayed, **OPTIONS)


def test_of_a_noisy_total_lies_show_by_who_answers() -> None:
    assert set(statuses(noisy(whole), *LIES).values()) == {Status.PASSED}
    assert set(statuses(noisy(whole), *ON_CLIENTS).values()) == {Status.NOT_CHECKED}
    for deliver in (no_bodies, lambda tamper, stage, m: [m] if tamper(stage, m) != 0 else []):
        assert set(statuses(noisy(deliver), *LIES, *ON_CLIENTS).values()) == {Status.NOT_CHECKED}
    with pytest.raises(Malformed, match="called it not for"):
        statuses(noisy(lambda tamper, stage, m: [m]), *LIES)


def test_a_broken_client_under_noise_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masked, "Client", Trusting)
    assert statuses(noisy(whole), LIES[0]) == {LIES[0]: Status.FAILED}


@pytest.mark.parametrize("declared", [("input", "again"), ("input",)])
def test_a_protocol_that_asks_again_heeds(declared: tuple[str, ...]) -> None:
    """A garbled input is asked for at another stage."""

    def run(inputs: Any, drop: Any, tamper: Any = None) -> Any:
        wire, size = Wire(drop, tamper, once=True), inputs[0].nbytes

        def asked(stage: str, of: list[int]) -> dict[int, bytes]:
            return dict(wire.trip(stage, dict.fromkeys(of, b"go"), lambda i, _: inputs[i].tobytes()))

        came = asked("input", list(range(len(inputs))))
        came |= asked("again", [i for i, body in came.items() if len(body) != size])
        vectors = [np.frombuffer(body, "<i8") for body in came.values() if len(body) == size]
        return (np.sum(vectors, axis=0) if vectors else None), wire.transcript

    found = statuses(BlackBox(run, stages=declared), *ON_CLIENTS, LIES[-1])
    assert found[ON_CLIENTS[0]] is Status.PASSED
    assert Status.FAILED not in (found[ON_CLIENTS[0]], found[LIES[-1]])


def test_a_sum_from_client_to_client_has_no_order_to_change() -> None:
    def run(inputs: Any, drop: Any, tamper: Any = None) -> Any:
        wire, so_far, last = Wire(drop, tamper), np.zeros(len(inputs[0]), np.int64), len(inputs) - 1
        for i, vector in enumerate(inputs):
            to = "server" if i == last else f"client {i + 1}"
            came = wire.carry("input", (f"client {i}", to, (so_far + vector).tobytes()))
            if leavers(drop) or not came or len(came[0][2]) != vector.nbytes:
                return None, wire.transcript
            so_far = np.frombuffer(came[0][2], "<i8")
        return so_far, wire.transcript

    [found] = audit(BlackBox(run), only=ON_CLIENTS[:1]).properties
    assert found.status is Status.NOT_CHECKED
    assert "two clients" in found.reason


def test_a_server_that_takes_answers_as_they_come_is_found() -> None:
    """The later a vector comes, the more it weighs; one message is as good as two."""

    def run(inputs: Any, drop: Any, tamper: Any = None) -> Any:
        wire = Wire(drop, tamper, once=True)
        came = wire.trip("input", dict.fromkeys(range(len(inputs)), b""), lambda i, _: inputs[i].tobytes())
        if [i for i, _ in came] != sorted(i for i, _ in came):
            came = came[1:]
        return sum(np.frombuffer(body, "<i8") for _, body in came), wire.transcript

    [found] = audit(BlackBox(run), only=ON_CLIENTS[:1]).properties
    assert found.status is Status.FAILED
    assert found.reason.startswith("the order")


@pytest.mark.parametrize(
    "deliver, said",
    [
        (lambda tamper, stage, m: [m], "called it not for"),
        (lambda tamper, stage, m: [m] if m[0] == "server" else tamper(stage, m), "messages of server"),
        (lambda tamper, stage, m: [m] if stage == "shares" else tamper(stage, m), "called it not for"),
        (lambda tamper, stage, m: tamper(f"masked {stage}", m), "never at 'input', that of the input"),
        (lambda tamper, stage, m: [m] if tamper(stage, m) != 0 else [], "whatever that gives back"),
        (lambda tamper, stage, m: [m] if tamper(stage, m) else [], "whatever that gives back"),
    ],
)
def test_a_run_that_is_deaf_to_tamper_keeps_no_contract(deliver: Any, said: str) -> None:
    """Every lie would pass for one that was refused; asked again, it is refused again."""
    box = deaf(deliver)
    for name in (*LIES, *LIES[-1:]):
        with pytest.raises(Misuse, match=said):
            audit(box, only=[name])
    fresh = deaf(deliver)
    with pytest.raises(Misuse, match=said):
        audit(fresh, only=["nothing-is-unpickled"])


@pytest.mark.parametrize(
    "deliver, unheard",
    [
        (lambda tamper, stage, m: tamper(stage, m) and [m] if m[0] == "server" else tamper(stage, m), LIES),
        (
            lambda tamper, stage, m: [(*m[:2], got[2]) for got in tamper(stage, m)],
            ["swapped-recipients-refused"],
        ),
    ],
)
def test_lies_that_never_arrive_are_not_checked(deliver: Any, unheard: Any) -> None:
    """Of the server's requests it heeds whether they arrive; or what they say, and not to whom they go."""
    verdicts = audit(deaf(deliver), only=LIES[:-1], examples=3).properties
    got = {one.name for one in verdicts if one.status is Status.NOT_CHECKED}
    assert got == {name for name in unheard if name in LIES[:-1]}


def test_a_run_that_ends_when_no_input_comes_heeds(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (ValueError, Misuse, SystemExit):

        def run(inputs: Any, drop: Any, tamper: Any = None, kind: Any = kind) -> Any:
            total, transcript = masked.run(inputs, drop, tamper)
            if total is None:
                raise kind("nobody's input came")
            return total, transcript

        box = BlackBox(run, stages=masked.STAGES, bound=127, clients=(3, 5), tolerated=masked.tolerated)
        box.threat = "semi-malicious"
        [verdict] = audit(box, only=["swapped-recipients-refused"]).properties
        assert verdict.status is Status.PASSED, (kind, verdict.reason)


def vector_of(body: bytes, like: np.ndarray) -> np.ndarray | None:
    return np.frombuffer(body, "<i8") if len(body) == like.nbytes else None


def chained(inputs: Any, drop: Any, tamper: Any = None) -> Any:
    """Each request carries the sum of all answers before it: an answer that is held back is lost."""
    wire, so_far = Wire(drop, tamper), np.zeros(len(inputs[0]), np.int64)
    for i, vector in enumerate(inputs):
        came = wire.carry("input", (f"client {i}", "server", (so_far + vector).tobytes()))
        got = [vector_of(body, so_far) for _, _, body in came]
        so_far = next((one for one in got if one is not None), so_far)
    return (None if leavers(drop) else so_far), wire.transcript


def headed(inputs: Any, drop: Any, tamper: Any = None) -> Any:
    """Each client sends a header first: without it, what follows is not understood."""
    wire, heads, came = Wire(drop, tamper), set[str](), dict[str, Any]()
    for i, vector in enumerate(inputs):
        for body in (b"head", vector.tobytes()):
            for sender, _, got in wire.carry("input", (f"client {i}", "server", body)):
                heads |= {sender} if got == b"head" else set()
                if sender in heads and (read := vector_of(got, vector)) is not None:
                    came[sender] = read
    return (None if leavers(drop) or not came else sum(came.values())), wire.transcript


def interleaved(inputs: Any, drop: Any, tamper: Any = None) -> Any:
    """Client by client, or stage by stage: nobody knows before."""
    wire, met, came = Wire(drop, tamper), set[str](), dict[str, Any]()
    steps = [(stage, i) for stage in ("keys", "input") for i in range(len(inputs))]
    for stage, i in sorted(steps, key=lambda step: step[1]) if os.urandom(1)[0] % 2 else steps:
        sent = b"hello" if stage == "keys" else inputs[i].tobytes()
        for sender, _, body in wire.carry(stage, (f"client {i}", "server", sent)):
            met |= {sender} if body == b"hello" else set()
            if (read := vector_of(body, inputs[0])) is not None:
                came[sender] = read
    whole = met == set(came) and not leavers(drop)
    return (sum(came.values()) if came and whole else None), wire.transcript


@pytest.mark.parametrize(
    "run, status", [(chained, Status.NOT_CHECKED), (headed, Status.PASSED), (interleaved, Status.PASSED)]
)
def test_a_sound_order_of_answers_is_no_finding(run: Any, status: Status) -> None:
    for seed in range(4):
        box = BlackBox(run, stages=("keys", "input") if run is interleaved else ("input",))
        [found] = audit(box, only=ON_CLIENTS[:1], seed=seed).properties
        assert found.status is status, found.reason


@pytest.mark.parametrize("deaf_to", ["keys", "server"])
def test_what_may_be_unpickled_unseen_is_not_checked(deaf_to: str) -> None:
    """Who reads nothing of what stands there lets a pickle pass without a trace; so does a lie that never arrives."""

    def deliver(tamper: Any, stage: str, m: Any) -> Any:
        return [m] if tamper(stage, m) is not None and deaf_to in (stage, m[0]) else tamper(stage, m)

    def run(inputs: Any, drop: Any, tamper: Any = None) -> Any:
        wire = Wire(drop, tamper and functools.partial(deliver, tamper))
        asked = dict.fromkeys(range(len(inputs)), b"")
        wire.trip("keys", asked, lambda i, _: b"")
        came = wire.trip("input", asked, lambda i, _: inputs[i].tobytes())
        vectors = [np.frombuffer(body, "<i8") for _, body in came if len(body) == inputs[0].nbytes]
        return (np.sum(vectors, axis=0) if vectors else None), wire.transcript

    [found] = audit(BlackBox(run, stages=("keys", "input")), only=["nothing-is-unpickled"]).properties
    assert found.status is Status.NOT_CHECKED


def test_copies_need_three_clients() -> None:
    """Played with more than the adapter allows, a sum of two ended without a total, and passed."""

    def run(inputs: Any, drop: Any, tamper: Any = None) -> Any:
        if len(inputs) != 2:
            raise ValueError("two clients")
        return plain_sum(inputs, Wire(drop, tamper), lambda vector: vector.astype("<i8").tobytes())

    [found] = audit(BlackBox(run, clients=(2, 2)), only=ON_CLIENTS[1:]).properties
    assert found.status is Status.NOT_CHECKED
    assert "three clients" in found.reason
