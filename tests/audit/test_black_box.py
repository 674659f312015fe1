"""What an audit of a black box finds, what it does not know, and what it asks of an adapter."""

import gc
import hashlib
import json
import os
import random
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.random import default_rng

from protocols.audit import BlackBox, Report, Status, audit
from protocols.audit.properties.black import _windows
from protocols.audit.repeatable import ReplayRandom, supplied
from protocols.errors import Misuse
from tests.audit.boxes import Drop, Inputs, box, leavers, noise, sound, summed

ON_THE_WIRE = ["nothing-in-clear", "sizes-say-nothing", "randomised"]


def statuses(report: Report) -> dict[str, Status]:
    return {p.name: p.status for p in report.properties}


@pytest.mark.parametrize("bound", [1, 9, 127, (1 << 15) - 1, (1 << 40)])
def test_a_sound_black_box_passes_whatever_its_bound(bound: int) -> None:
    report = audit(sound(bound=bound), examples=10)
    unseen = {Status.NOT_VISIBLE, Status.NOT_CLAIMED}
    others = [p for p in report.properties if p.status not in unseen]
    assert [(p.name, p.reason) for p in others if p.status is not Status.PASSED] == []
    assert len(others) > 8
    assert report.passed


CLEAR: dict[str, Callable[[np.ndarray], bytes]] = {
    "int64": lambda v: v.tobytes(),
    "big-endian int64": lambda v: v.astype(">i8").tobytes(),
    "int32": lambda v: v.astype(np.int32).tobytes(),
    "int16": lambda v: v.astype(np.int16).tobytes(),
    "float32": lambda v: v.astype(np.float32).tobytes(),
    "big-endian float64": lambda v: v.astype(">f8").tobytes(),
    "json": lambda v: json.dumps(v.tolist()).encode(),
    "packed json": lambda v: json.dumps(v.tolist(), separators=(",", ":")).encode(),
    "one number a line": lambda v: "\n".join(map(str, v)).encode(),
    "json of floats": lambda v: json.dumps(v.astype(float).tolist()).encode(),
    "shifted by bits": lambda v: (int.from_bytes(v.tobytes(), "big") << 3).to_bytes(8 * len(v) + 1, "big"),
}


@pytest.mark.parametrize("encode", CLEAR.values(), ids=CLEAR)
def test_values_in_clear_are_found_in_every_common_encoding_behind_fresh_bytes(
    encode: Callable[[np.ndarray], bytes],
) -> None:
    mine = box(lambda v, drop: os.urandom(100) + encode(v) + os.urandom(13))
    report = audit(mine, only=["nothing-in-clear"])
    assert report.properties[0].status is Status.FAILED
    assert "carries a client's value" in report.properties[0].reason


def test_a_value_in_clear_only_when_somebody_leaves_is_found() -> None:
    mine = box(lambda v, drop: v.tobytes() if leavers(drop) else os.urandom(8 * len(v)))
    report = audit(mine, only=["nothing-in-clear"])
    assert report.properties[0].status is Status.FAILED
    assert "left before input" in str(report.properties[0].counterexample)


def test_clients_under_other_names_do_not_hide() -> None:
    assert statuses(audit(box(lambda v, drop: v.tobytes(), "node {}"), only=["nothing-in-clear"])) == {
        "nothing-in-clear": Status.FAILED
    }
    report = audit(box(noise, "node {}"), only=ON_THE_WIRE)
    assert set(statuses(report).values()) == {Status.NOT_CHECKED}
    assert "'client 0'" in report.properties[0].reason
    assert "sender=" in report.properties[0].reason
    assert not report.passed
    mapped = box(noise, "node {}", sender=lambda name: int(name.split()[1]) if "node" in name else None)
    assert audit(mapped, only=ON_THE_WIRE).passed


@pytest.mark.parametrize("kept", [0, 20], ids=["nothing", "less than the inputs"])
def test_a_transcript_that_cannot_hold_the_inputs_is_not_checked(kept: int) -> None:
    def run(inputs: Inputs, drop: Drop) -> tuple[np.ndarray | None, list[tuple[str, str, bytes]]]:
        seen = [(f"client {i}", "server", os.urandom(kept)) for i in range(len(inputs)) if kept]
        return summed(inputs, drop), seen

    report = audit(BlackBox(run, name="silent"), only=ON_THE_WIRE)
    assert statuses(report)["nothing-in-clear"] is Status.NOT_CHECKED
    assert not report.passed


DETERMINISTIC: dict[str, Callable[[np.ndarray], bytes]] = {
    "plus one": lambda v: (v + 1).tobytes(),
    "affine": lambda v: (977 * v + 12345).tobytes(),
    "behind a nonce": lambda v: os.urandom(32) + (977 * v + 12345).tobytes(),
    "one scalar for all coordinates": lambda v: (v + int.from_bytes(os.urandom(4), "big")).tobytes(),
}


@pytest.mark.parametrize("encode", DETERMINISTIC.values(), ids=DETERMINISTIC)
def test_messages_that_follow_from_the_input_are_not_randomised(
    encode: Callable[[np.ndarray], bytes],
) -> None:
    report = audit(box(lambda v, drop: encode(v)), only=["randomised"])
    assert report.properties[0].status is Status.FAILED


def test_one_client_that_masks_nothing_is_found_among_others_that_do() -> None:
    def run(inputs: Any, drop: Drop) -> Any:
        who = [i for i in range(len(inputs)) if i not in leavers(drop)]
        bodies = [inputs[i].tobytes() if i == 2 else os.urandom(inputs[i].nbytes) for i in who]
        return summed(inputs, drop), [(f"client {i}", "server", b) for i, b in zip(who, bodies, strict=True)]

    report = audit(BlackBox(run, clients=(3, 5)), only=["randomised"])
    assert report.properties[0].status is Status.FAILED
    assert "gives the same bytes again" in report.properties[0].reason


@pytest.mark.parametrize("digest", [hashlib.sha256, hashlib.sha512])
@pytest.mark.parametrize("senders", [{1}, {0, 1, 2}], ids=["one client", "all"])
def test_a_digest_of_the_input_is_found_whoever_sends_it(senders: set[int], digest: Any) -> None:
    """32 bytes, all of them random, were as short as a header with a length in it: they passed."""

    def run(inputs: Any, drop: Drop) -> Any:
        bodies = [
            noise(v, drop) + (digest(v.tobytes()).digest() if i in senders else b"")
            for i, v in enumerate(inputs)
        ]
        return summed(inputs, drop), [(f"client {i}", "server", body) for i, body in enumerate(bodies)]

    report = audit(BlackBox(run, clients=(3, 3)), only=["randomised"])
    assert report.properties[0].status is Status.FAILED
    assert "gives the same bytes again" in report.properties[0].reason


@pytest.mark.parametrize("pieces", [1, 200])
def test_public_bytes_that_come_in_every_session_are_no_finding(pieces: int) -> None:
    header = bytes(range(64))

    def framed(vector: np.ndarray, drop: Drop) -> bytes:
        return b"".join(header + noise(vector, drop)[:: pieces + 2] for _ in range(pieces))

    for _ in range(3):
        assert audit(box(framed), only=ON_THE_WIRE).passed


def test_a_header_that_says_how_long_a_compressed_body_is_is_no_finding() -> None:
    """One client's comes again by chance in 3 audits of 5; that of all five in 1 of 10^5."""

    def framed(vector: np.ndarray, drop: Drop) -> bytes:
        length = bytes([128 + os.urandom(1)[0] % 64])
        return (b"head" * 5 + length + b"then" * 5 + length + b"body" * 8) + os.urandom(8 * len(vector))

    for _ in range(6):
        assert audit(box(framed, clients=(5, 6)), only=["randomised"]).passed


def test_a_crash_when_somebody_leaves_is_no_value_in_clear() -> None:
    def crashing(vector: np.ndarray, drop: Drop) -> bytes:
        if leavers(drop):
            raise KeyError(3)
        return noise(vector, drop)

    report = audit(box(crashing), only=["exact-sum", "nothing-in-clear"])
    assert statuses(report) == {"exact-sum": Status.FAILED, "nothing-in-clear": Status.NOT_CHECKED}


def fragile(inputs: Inputs, drop: Drop) -> tuple[np.ndarray | None, list[tuple[str, str, bytes]]]:
    """No total as soon as anybody leaves."""
    total = None if leavers(drop) else summed(inputs, drop)
    return total, [(f"client {i}", "server", noise(v, drop)) for i, v in enumerate(inputs)]


def single(inputs: Inputs, drop: Drop) -> tuple[np.ndarray | None, list[tuple[str, str, bytes]]]:
    """A total however many leave."""
    return summed(inputs, drop), fragile(inputs, drop)[1]


def majority(clients: int, drop: Drop) -> bool:
    return 2 * (clients - len(leavers(drop))) > clients


TOLERANCE = ["exact-sum", "no-total-beyond-tolerance"]


def test_what_is_promised_under_drop_outs_must_be_said() -> None:
    for run in (fragile, single):
        report = audit(BlackBox(run), only=TOLERANCE, examples=10)
        assert set(statuses(report).values()) == {Status.NOT_CHECKED}
        assert all("tolerated=" in p.reason for p in report.properties)
    assert statuses(audit(BlackBox(fragile, tolerated=majority), only=TOLERANCE)) == {
        "exact-sum": Status.FAILED,
        "no-total-beyond-tolerance": Status.PASSED,
    }
    assert statuses(audit(BlackBox(single, tolerated=majority), only=TOLERANCE)) == {
        "exact-sum": Status.PASSED,
        "no-total-beyond-tolerance": Status.FAILED,
    }


def test_a_wrong_sum_is_found_without_a_word_about_tolerance() -> None:
    def wrong(inputs: Inputs, drop: Drop) -> tuple[np.ndarray, list[tuple[str, str, bytes]]]:
        return np.sum(inputs, axis=0) + 1, []

    assert audit(BlackBox(wrong), only=["exact-sum"]).properties[0].status is Status.FAILED


# as modules have them
OLD, LEGACY, PYTHONS = (np.random.default_rng(0), np.random.RandomState(0), random.Random(0))
fresh = default_rng


def torch_bytes(count: int) -> bytes:
    torch = pytest.importorskip("torch")
    drawn: bytes = torch.randint(0, 256, (count,), dtype=torch.uint8).numpy().tobytes()
    return drawn


GENERATORS: Mapping[str, Callable[[int], bytes]] = {
    "made at import": lambda count: OLD.bytes(count),
    "legacy, made at import": lambda count: LEGACY.bytes(count),
    "Python's, made at import": lambda count: PYTHONS.randbytes(count),
    "made in the session by an imported name": lambda count: fresh().bytes(count),
    "made in the session by its class": lambda count: np.random.Generator(np.random.PCG64()).bytes(count),
    "Python's, made in the session": lambda count: random.Random().randbytes(count),
    "NumPy's global one": lambda count: np.random.bytes(count),
    "Python's global one": lambda count: random.randbytes(count),
    "torch's global one": torch_bytes,
}


@pytest.mark.parametrize("draw", GENERATORS.values(), ids=GENERATORS)
def test_statistical_generators_are_found_however_they_are_reached(draw: Callable[[int], bytes]) -> None:
    mine = box(lambda v, drop: draw(8 * len(v) + 20))
    [checked] = audit(mine, only=["no-statistical-generators"]).properties
    assert checked.status is Status.FAILED


def test_a_generator_set_aside_from_the_collector_is_found() -> None:
    gc.freeze()
    try:
        [checked] = audit(
            box(lambda v, drop: OLD.bytes(8 * len(v))), only=["no-statistical-generators"]
        ).properties
    finally:
        gc.unfreeze()
    assert checked.status is Status.FAILED


def test_the_search_for_generators_leaves_classes_and_secure_randomness_alone() -> None:
    def body(vector: np.ndarray, drop: Drop) -> bytes:
        assert isinstance(OLD, np.random.Generator)
        assert not isinstance(vector, np.random.Generator | np.random.RandomState | random.Random)
        assert issubclass(np.random.PCG64, np.random.BitGenerator)
        return random.SystemRandom().randbytes(8 * len(vector))

    assert audit(box(body), only=["no-statistical-generators"]).passed


async def asynchronous(inputs: Inputs, drop: Drop) -> Any:
    return summed(inputs, drop), []


def generating(inputs: Inputs, drop: Drop) -> Any:
    yield summed(inputs, drop)


def returning(value: Any) -> Any:
    return lambda inputs, drop: value(inputs) if callable(value) else value


MALFORMED = {
    "async": asynchronous,
    "generator": generating,
    "total only": returning(None),
    "three values": returning((None, [], 1)),
    "int senders": returning(lambda inputs: (None, [(0, "server", b"")])),
    "array bodies": returning(lambda inputs: (None, [("client 0", "server", inputs[0])])),
    "dict bodies": returning(lambda inputs: (None, [("client 0", "server", {})])),
    "a client there is not": returning(lambda inputs: (None, [("client 99", "server", b"")])),
    "another spelling": returning(lambda inputs: (None, [("client-0", "server", b"")])),
    "pairs": returning(lambda inputs: (None, [("client 0", b"")])),
    "float total": returning(lambda inputs: (inputs[0] / 3, [])),
    "total of another length": returning(lambda inputs: (np.zeros(99, np.int64), [])),
}


@pytest.mark.parametrize("run", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_adapter_is_told_its_contract(run: Any) -> None:
    with pytest.raises(Misuse, match="run") as raised:
        audit(BlackBox(run, name="mine"), examples=3)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "options",
    [
        {"threat": "honest-but-curious"},
        {"stages": ()},
        {"counting": "unmask"},
        {"bound": 0},
        {"clients": (5, 3)},
        {"tolerated": 3},
        {"sender": "node"},
        {"timeout": 0},
    ],
)
def test_wrong_arguments_of_an_adapter_are_misuse(options: dict[str, Any]) -> None:
    with pytest.raises(Misuse, match=next(iter(options))):
        sound(**options)


def test_a_hanging_adapter_is_stopped_and_told() -> None:
    def hangs(inputs: Inputs, drop: Drop) -> Any:
        while True:
            time.sleep(0.05)

    began = time.monotonic()
    [checked] = audit(BlackBox(hangs, timeout=0.5), only=["exact-sum"]).properties
    assert time.monotonic() - began < 200
    assert checked.status is Status.FAILED
    assert "0.5 s" in checked.reason
    assert "client 0 put in" in str(checked.counterexample)
    assert "Replay:" in str(checked.counterexample)


def test_a_hang_is_stopped_outside_the_main_thread_too() -> None:
    import threading

    found: list[Report] = []

    def hangs(inputs: Inputs, drop: Drop) -> Any:
        time.sleep(60)

    def go() -> None:
        found.append(audit(BlackBox(hangs, timeout=0.3), only=["no-wrap-at-the-bound"]))

    thread = threading.Thread(target=go)
    thread.start()
    thread.join(300)
    assert found[0].properties[0].status is Status.FAILED


def test_randomness_is_supplied_by_the_innermost_source_and_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever took os.urandom while it was supplied (a module imported then) draws from what is supplied later."""
    original, holder = os.urandom, ModuleType("holder")
    monkeypatch.setitem(sys.modules, "holder", holder)
    monkeypatch.setattr(holder, "mine", original, raising=False)
    first, second = ReplayRandom(1).bytes(16), ReplayRandom(2).bytes(16)
    with supplied(None):
        assert os.urandom(16) not in (first, second)
        with supplied(ReplayRandom(1)):
            taken = os.urandom
            assert holder.mine(16) == first
            with supplied(ReplayRandom(2)):
                assert secrets.token_bytes(16) == second
        with supplied(ReplayRandom(2)):
            assert (taken(16), len(taken(3))) == (second, 3)
    assert os.urandom is holder.mine is original
    assert taken(16) not in (first, second)


def test_pieces_that_differ_have_numbers_that_differ() -> None:
    """A number was a product: of elements of 20 bits in 8 bytes it kept 24 bits, and pieces came again by chance."""
    body = np.random.default_rng(0).integers(0, 1 << 20, 1 << 14).tobytes()
    for width in (8, 32):
        found = _windows(body, width)
        assert len(np.unique(found)) == len({body[at : at + width] for at in range(len(found))})
