"""What an adapter gives, and what it makes visible: planted defects that no bare black box shows."""

import contextlib
import hashlib
import json
import os
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protocols.audit import BlackBox, Report, Status, Wire, audit
from protocols.errors import Misuse
from tests.audit.boxes import box, leavers, noise, somebody_stays, summed
from tests.toys import masked

ALL = ("modulus", "elements", "ring", "stream", "seed_bytes", "watch", "tamper", "shares", "opens", "views")


def verdict(name: str, *pieces: str, **options: Any) -> Any:
    [found] = audit(masked.box(*pieces, **options), only=[name], search=True).properties
    return found


def failed(report: Report) -> set[str]:
    return {p.name for p in report.properties if p.status is Status.FAILED}


@pytest.mark.parametrize("threat", ["semi-honest", "semi-malicious"])
def test_a_sound_protocol_passes_with_every_piece(threat: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protocols.audit.properties.entropy.MANY", 1 << 14)
    report = audit(masked.box(*ALL, threat=threat), search=True, examples=10)
    bad = [
        (p.name, p.counterexample or p.reason)
        for p in report.properties
        if p.status in (Status.FAILED, Status.NOT_CHECKED)
    ]
    assert bad == []
    assert report.passed
    assert report.count(Status.PASSED) >= (25 if threat == "semi-malicious" else 20)


def small_seed(width: int) -> Callable[[], bytes]:
    return lambda: os.urandom(width).ljust(32, b"\0")


def stretched() -> bytes:
    return hashlib.sha256(os.urandom(4)).digest()


def from_pairs_alone(mine: bytes, theirs: str) -> bytes:
    """Both ends' seed of every round."""
    return hashlib.sha256(b"the same in every round").digest()


def never_the_last(seed: bytes, count: int, modulus: int) -> np.ndarray:
    words = np.frombuffer(hashlib.shake_128(seed).digest(8 * count), "<u8")
    return words % np.uint64(modulus - 1)


def narrow(seed: bytes, count: int, modulus: int) -> np.ndarray:
    """32 bits of the seed, stretched by a hash."""
    return EXPAND(hashlib.sha256(hashlib.sha256(seed).digest()[:4]).digest(), count, modulus)


SPLIT = ("tamper", "views", "shares")
EXPAND = masked.expand
DEFECTS = {
    "8-bit seeds": ("draw_seed", small_seed(1), "seeds-carry-full-entropy", ("watch",)),
    "8-bit seeds, by their draws": ("draw_seed", small_seed(1), "secrets-are-drawn-in-full", ()),
    "8-bit seeds, hashed": (
        "draw_seed",
        lambda: hashlib.sha256(os.urandom(1)).digest(),
        "seeds-carry-full-entropy",
        ("watch",),
    ),
    "32-bit seeds stretched by a hash": ("draw_seed", stretched, "secrets-are-drawn-in-full", ()),
    "32-bit seeds stretched in the stream": (
        "expand",
        narrow,
        "streams-do-not-collide",
        ("stream", "seed_bytes"),
    ),
    "no self mask": ("SELF_MASKS", False, "masked-after-unmasking", ("elements", "modulus", "tamper")),
    "pair masks reused in every round": ("pair_seed", from_pairs_alone, "fresh-masks", ("watch",)),
    "two views are opened": ("threshold", lambda clients: clients // 2 + 1, "no-split-opens-few", SPLIT),
    "never the ring's last value": (
        "expand",
        never_the_last,
        "stream-is-uniform",
        ("stream", "seed_bytes", "modulus"),
    ),
}


@pytest.mark.parametrize("place, defect, name, pieces", DEFECTS.values(), ids=DEFECTS)
def test_a_defect_shows_by_name_with_the_piece_that_makes_it_visible(
    place: str, defect: Any, name: str, pieces: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"modulus": 1 << 12} if "modulus" in pieces else {}
    options |= {"threat": "semi-malicious"} if "views" in pieces else {}
    with monkeypatch.context() as patch:
        patch.setattr("protocols.audit.properties.entropy.MANY", 1 << 14)
        assert verdict(name, *pieces, **options).status is Status.PASSED
    monkeypatch.setattr(masked, place, defect)
    found = verdict(name, *pieces, **options)
    assert found.status is Status.FAILED, found.reason
    if pieces:
        with pytest.raises(Misuse, match=pieces[0]):
            verdict(name)


@contextlib.contextmanager
def any_number() -> Iterator[None]:
    """A client that takes any number of others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masked, "threshold", lambda clients: 0)
        yield


class Eager(masked.Client):
    """Answers whatever it is asked, as often as it is asked."""

    def receive(self, stage: str, body: bytes) -> bytes:
        self.asked = masked.STAGES.index(stage)
        return super().receive(stage, body)

    def unmask(self, stayed: list[int]) -> bytes:
        with any_number():
            return super().unmask(stayed)


class Loading(masked.Client):
    """Unpickles what it does not know."""

    def receive(self, stage: str, body: bytes) -> bytes:
        if body[:1] == b"\x80":
            pickle.loads(body)
        return super().receive(stage, body)


class Trusting(masked.Client):
    """Takes boxes that do not open for shares it need not keep."""

    def input(self, boxes: dict[str, str]) -> bytes:
        good = {}
        for i, sealed in boxes.items():
            with contextlib.suppress(InvalidTag, KeyError):
                raw = bytes.fromhex(sealed)
                AESGCM(self.peers[int(i)]).decrypt(raw[:12], raw[12:], bytes([int(i)]))
                good[i] = sealed
        with any_number():
            return super().input(good)


class Open(masked.Client):
    """Sends its shares over the relay in clear, beside the boxes."""

    def shares(self, keys: dict[str, str]) -> bytes:
        sealed = json.loads(super().shares(keys))
        return json.dumps({**sealed, "copy": self.kept[self.place][:32].hex()}).encode()


class OneNonce(masked.Client):
    def _seal(self, peer: int, share: bytes) -> str:
        cipher = AESGCM(self.peers[peer])
        cipher.encrypt(bytes(12), b"something else", None)
        return (bytes(12) + cipher.encrypt(bytes(12), share, bytes([self.place]))).hex()


CLIENTS = {
    "both views are opened": (Eager, "no-split-opens-few", ("tamper", "views", "shares")),
    "few survivors are believed": (Eager, "forged-requests-refused", ("tamper", "views")),
    "another session's boxes are taken": (Trusting, "mixed-sessions-refused", ("tamper",)),
    "another client's boxes are taken": (Trusting, "swapped-recipients-refused", ("tamper",)),
    "messages are unpickled": (Loading, "nothing-is-unpickled", ("tamper",)),
    "shares in clear": (Open, "shares-are-sealed", ("shares",)),
    "a nonce for ever": (OneNonce, "nonces-are-used-once", ()),
}


@pytest.mark.parametrize("client, name, pieces", CLIENTS.values(), ids=CLIENTS)
def test_a_client_that_trusts_a_lying_server_is_found(
    client: type[masked.Client], name: str, pieces: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert verdict(name, *pieces, threat="semi-malicious").status is Status.PASSED
    monkeypatch.setattr(masked, "Client", client)
    found = verdict(name, *pieces, threat="semi-malicious")
    assert found.status is Status.FAILED, found.reason


def seal(vector: np.ndarray) -> bytes:
    """A contribution that anybody may copy."""
    nonce = os.urandom(12)
    return nonce + AESGCM(bytes(32)).encrypt(nonce, vector.astype("<i8").tobytes(), b"")


def test_a_narrow_seed_is_found_among_many_others(monkeypatch: pytest.MonkeyPatch) -> None:
    many = {"clients": (6, 6)}
    assert verdict("secrets-are-drawn-in-full", **many).status is Status.PASSED
    monkeypatch.setattr(masked, "draw_seed", stretched)
    assert verdict("secrets-are-drawn-in-full", **many).reason.startswith("a draw of 32 bits reaches")


def test_a_copied_contribution_is_found() -> None:
    def run(inputs: Any, drop: Any, tamper: Any = None) -> Any:
        wire = Wire(drop, tamper)
        sent = wire.trip("input", dict.fromkeys(range(len(inputs)), b""), lambda i, _: seal(inputs[i]))
        opened = [AESGCM(bytes(32)).decrypt(body[:12], body[12:], b"") for _, body in sent]
        return np.sum([np.frombuffer(one, "<i8") for one in opened], axis=0), wire.transcript

    box = BlackBox(run, stages=("input",))
    [found] = audit(box, only=["copied-contributions-are-not-summed"]).properties
    assert found.status is Status.FAILED
    assert "client 1 sent a copy" in found.reason


def test_what_is_wrong_with_a_piece_is_said() -> None:
    for wrong, said in [
        ({"element": masked.elements}, "no piece of that name; a BlackBox takes modulus, elements"),
        ({"elements": 3}, "elements: expected a function"),
        ({"seed_bytes": -1}, "seed_bytes: expected"),
    ]:
        with pytest.raises(Misuse, match=said):
            masked.box(**wrong)
    for pieces, said in [
        ({"watch": "tests.toys.masked:nothing"}, "no module holds"),
        ({"watch": "tests.toys.masked:STAGES"}, "not a function"),
        ({"elements": lambda message: np.zeros(3)}, "vector of integers"),
        ({"elements": lambda message: np.full(3, 1 << 20)}, "expected 0 to 1048575"),
    ]:
        with pytest.raises(Misuse, match=said):
            audit(masked.box("modulus", **pieces), only=["fresh-masks"])


def test_pieces_that_read_nothing_are_not_checked() -> None:
    for name, pieces in [
        ("uniform-over-the-ring", {"elements": lambda message: None}),
        ("fresh-masks", {"watch": "hashlib:blake2s"}),
        ("shares-are-sealed", {"shares": lambda message: []}),
    ]:
        [found] = audit(masked.box("modulus", **pieces), only=[name]).properties
        assert found.status is Status.NOT_CHECKED, name
        assert found.reason


def test_a_watched_generator_tells_the_width_of_its_seed_and_who_called() -> None:
    def body(vector: np.ndarray, drop: Any) -> bytes:
        return np.random.default_rng(int.from_bytes(os.urandom(1), "big") | 128).bytes(8 * len(vector) + 20)

    [found] = audit(box(body), only=["no-statistical-generators"]).properties
    assert "default_rng was called with a seed of 8 bits by body (" in str(found.counterexample)
    assert f"{__file__}, line" in str(found.counterexample)


def test_what_a_party_raises_is_silence_or_an_error_reply() -> None:
    def moody(place: int, body: bytes) -> bytes:
        if place == 1:
            raise KeyError("no state")
        return body

    for error, expected in [(None, [(0, b"a"), (2, b"a")]), (b"E", [(0, b"a"), (1, b"E"), (2, b"a")])]:
        wire = Wire({}, error=error)
        assert wire.trip("input", dict.fromkeys(range(3), b"a"), moody) == expected
        assert [place for place, _ in wire.raised] == [1]


def test_an_exception_when_nobody_is_promised_a_total_is_no_finding() -> None:
    def run(inputs: Any, drop: Any) -> Any:
        if leavers(drop):
            raise RuntimeError("too few")
        return summed(inputs, drop), [(f"client {i}", "server", noise(v, drop)) for i, v in enumerate(inputs)]

    strict = audit(BlackBox(run, tolerated=lambda clients, drop: not leavers(drop)), examples=10)
    assert failed(strict) == set()
    assert strict.passed
    lenient = audit(BlackBox(run, tolerated=somebody_stays), only=["exact-sum"])
    assert "run raised RuntimeError: too few" in str(lenient.properties[0].counterexample)


def test_streams_are_compared_less_far_on_a_machine_that_others_keep_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The processor's clock stands still there, and the verdict must not be *not checked* for that."""
    monkeypatch.setattr("protocols.audit.properties.entropy.MANY", 1 << 40)
    monkeypatch.setattr("protocols.audit.properties.entropy.SECONDS", 0.1)
    monkeypatch.setattr("time.process_time", lambda: 0.0)
    [found] = audit(
        masked.box("modulus", "stream", "seed_bytes"), only=["streams-do-not-collide"], seconds=5.0
    ).properties
    assert found.status is Status.PASSED
    assert found.reason.endswith("seeds")


def unfinished(message: Any) -> Any:
    yield 0, "own", b"share"
    raise ValueError("in the middle")


def leaves(message: Any) -> Any:
    raise SystemExit("bye")


@pytest.mark.parametrize(
    "shares, said",
    [
        (unfinished, "ValueError: in the middle"),
        (leaves, "SystemExit: bye"),
        (lambda message: [(0, "own")], "ValueError: not enough values"),
        (lambda message: [(0, "own", 7)], "TypeError: memoryview"),
    ],
)
def test_what_a_piece_raises_late_or_gives_in_another_form_is_the_adapters_fault(
    shares: Any, said: str
) -> None:
    with pytest.raises(Misuse, match=f"the piece shares raised {said}"):
        audit(masked.box("opens", shares=shares), only=["shares-are-sealed"])


def test_what_a_piece_raises_is_no_finding_about_the_protocol() -> None:
    def elements(message: Any) -> Any:
        raise KeyError("stage")

    with pytest.raises(Misuse, match="the piece elements raised KeyError"):
        audit(masked.box("modulus", elements=elements), only=["fresh-masks"])
