"""Toys of readers who attacked the audit: broken ones that it passed, and sound ones that it failed."""

import contextlib
import hashlib
import json
import os
import random
import secrets
from typing import Any

import numpy as np
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protocols.audit import Status, audit
from tests.audit.test_pieces import ALL, any_number, verdict
from tests.toys import masked

SEMI = "semi-malicious"


def opened(client: masked.Client, own: Any, key: Any) -> bytes:
    """An answer that opens these clients' secrets."""
    kept = client.kept
    chosen = {"own": {i: kept[i][:32].hex() for i in own}, "key": {i: kept[i][32:].hex() for i in key}}
    return json.dumps(chosen).encode()


class BothOfStayed(masked.Client):
    """Opens both secrets of who stayed, whoever asks."""

    def unmask(self, stayed: list[int]) -> bytes:
        super().unmask(stayed)
        return opened(self, stayed, self.kept)


class BothOfDropped(masked.Client):
    """Opens both secrets of who left after it dealt."""

    def unmask(self, stayed: list[int]) -> bytes:
        super().unmask(stayed)
        return opened(self, self.kept, set(self.kept) - set(stayed))


class TwoOpen(masked.Client):
    """Two shares open what the protocol promises to open with four of five."""

    def shares(self, keys: dict[str, str]) -> bytes:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(masked, "threshold", lambda clients: 2)
            return super().shares(keys)


class Counting(masked.Client):
    """Counts names, whosever and however often."""

    def unmask(self, stayed: list[int]) -> bytes:
        if len(stayed) < masked.threshold(self.n):
            raise ValueError("too few stayed")
        return opened(self, set(stayed) & set(self.kept), set(self.kept) - set(stayed))


class Strangers(Counting):
    """Counts names, whosever they are, each once."""

    def unmask(self, stayed: list[int]) -> bytes:
        if len(set(stayed)) < len(stayed):
            raise ValueError("a name comes twice")
        return super().unmask(stayed)


class AnyList(masked.Client):
    """Masks with as few as it is told to."""

    def input(self, boxes: dict[str, str]) -> bytes:
        with any_number():
            return super().input(boxes)


class InputTwice(masked.Client):
    """Masks again, under the same own mask, when other boxes come."""

    def receive(self, stage: str, body: bytes) -> bytes:
        self.asked -= self.asked == 3 and stage == "input"
        return super().receive(stage, body)


class UnmaskTwice(masked.Client):
    """Opens again, for other survivors."""

    def receive(self, stage: str, body: bytes) -> bytes:
        self.asked -= self.asked == 4 and stage == "unmask"
        return super().receive(stage, body)


OPENS = ("tamper", "views", "shares", "opens")
BROKEN = {
    "both secrets of who stayed": (BothOfStayed, "masked-after-unmasking", ("shares",)),
    "both secrets of who stayed, searched": (BothOfStayed, "no-split-opens-few", OPENS),
    "both secrets of who left": (BothOfDropped, "masked-after-unmasking", ("shares",)),
    "two shares open": (TwoOpen, "no-split-opens-few", OPENS),
    "names are counted": (Counting, "forged-requests-refused", ("tamper", "views")),
    "strangers are counted": (Strangers, "forged-requests-refused", ("tamper", "views")),
    "masks with as few as it is told": (AnyList, "forged-requests-refused", ("tamper", "views")),
    "a second input for other boxes": (InputTwice, "one-answer-per-session", ("tamper",)),
    "a second opening": (UnmaskTwice, "one-answer-per-session", ("tamper",)),
}


@pytest.mark.parametrize("client, name, pieces", BROKEN.values(), ids=BROKEN)
def test_a_broken_toy_is_found(
    client: type[masked.Client], name: str, pieces: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert verdict(name, *pieces, threat=SEMI).status is Status.PASSED
    monkeypatch.setattr(masked, "Client", client)
    found = verdict(name, *pieces, threat=SEMI)
    assert found.status is Status.FAILED, found.reason


class Lenient(masked.Client):
    """Masks with everybody whose box it got, whether or not it opens."""

    def _open(self, peer: int, box: bytes) -> bytes:
        with contextlib.suppress(InvalidTag):
            return super()._open(peer, box)
        return b""


class Cached(masked.Client):
    """Answers the same request again with the same bytes."""

    last: tuple[Any, bytes] = None, b""

    def receive(self, stage: str, body: bytes) -> bytes:
        if self.last[0] != (stage, body):
            self.last = (stage, body), super().receive(stage, body)
        return self.last[1]


class SaysNo(masked.Client):
    """Refuses in a word of its own."""

    def receive(self, stage: str, body: bytes) -> bytes:
        try:
            return super().receive(stage, body)
        except Exception:
            return masked.REFUSED


class Nonce60(masked.Client):
    """Nonces of 60 random bits."""

    def _seal(self, peer: int, share: bytes) -> str:
        nonce = secrets.randbits(60).to_bytes(12, "big")
        return (nonce + AESGCM(self.peers[peer]).encrypt(nonce, share, bytes([self.place]))).hex()


class Shuffles(masked.Client):
    """Sends its boxes in a random order."""

    def shares(self, keys: dict[str, str]) -> bytes:
        boxes = list(json.loads(super().shares(keys)).items())
        random.SystemRandom().shuffle(boxes)
        return json.dumps(dict(boxes)).encode()


def identified() -> dict[str, Any]:
    """A session id of 8 bytes, drawn by the server, that enters every pair's seed."""
    last, pair = [""], masked.pair_seed

    def drawn() -> str:
        last[0] = os.urandom(8).hex()
        return last[0]

    def seed(mine: bytes, theirs: str) -> bytes:
        return hashlib.sha256(pair(mine, theirs) + last[0].encode()).digest()

    return {"session_id": drawn, "pair_seed": seed}


def uniform(seed: bytes, count: int, modulus: int) -> np.ndarray:
    """Elements of any ring: words past its last whole multiple are passed over."""
    words = np.frombuffer(hashlib.shake_128(seed).digest(4 * (count + count // 8 + 64)), "<u4")
    kept = words[words < (1 << 32) // modulus * modulus][:count]
    return kept.astype(np.uint64) % np.uint64(modulus)


LIES = [
    "mixed-sessions-refused",
    "swapped-recipients-refused",
    "one-answer-per-session",
    "forged-requests-refused",
]
DRAWN = ["secrets-are-drawn-in-full"]
MASKS = ["stream-is-uniform", "uniform-over-the-ring", "fresh-masks", "masked-after-unmasking"]
SOUND: dict[str, tuple[dict[str, Any], list[str], dict[str, Any]]] = {
    "its runtime makes error replies": ({"REPLIES": True}, LIES, {}),
    "it refuses in its own words": (
        {"Client": SaysNo},
        LIES,
        {"refusal": lambda body: body == masked.REFUSED},
    ),
    "boxes that do not open change nothing": ({"Client": Lenient}, LIES, {}),
    "the same answer again": ({"Client": Cached}, LIES, {}),
    "a session id of 8 bytes": (identified(), DRAWN, {}),
    "nonces of 60 bits": ({"Client": Nonce60}, DRAWN, {}),
    "a random order": ({"Client": Shuffles}, DRAWN, {}),
    "a ring of 1271": ({"expand": uniform}, [*MASKS, "exact-sum"], {"modulus": 1271, "ring": None}),
}


@pytest.mark.parametrize("variant, names, options", SOUND.values(), ids=SOUND)
def test_a_sound_toy_raises_no_alarm(
    variant: dict[str, Any], names: list[str], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, instead in variant.items():
        monkeypatch.setattr(masked, place, instead)
    report = audit(masked.box(*ALL, threat=SEMI, **options), only=names, examples=5)
    assert {
        p.name: (p.status, p.counterexample or p.reason)
        for p in report.properties
        if p.status is not Status.PASSED
    } == {}


def test_parties_that_remember_sessions_are_audited_with_other_sessions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = set[bytes]()

    class Remembering(UnmaskTwice):
        """Takes part in no session twice, and opens as often as it is asked."""

        def shares(self, keys: dict[str, str]) -> bytes:
            digest = hashlib.sha256(self.key + json.dumps(keys).encode()).digest()
            if digest in seen:
                raise ValueError("a session that was there before")
            seen.add(digest)
            return super().shares(keys)

    monkeypatch.setattr(masked, "Client", Remembering)
    assert verdict("one-answer-per-session", *ALL, threat=SEMI).status is Status.FAILED
    assert verdict("mixed-sessions-refused", *ALL, threat=SEMI).status is Status.PASSED


def test_a_verdict_tells_what_was_not_looked_at() -> None:
    def unread(message: Any) -> Any:
        return None if message[0] == "client 2" else masked.elements(message)

    for name, pieces, options, said in [
        ("no-split-opens-few", OPENS[:3], {}, "4 of 5 shares are assumed to open a secret"),
        ("no-split-opens-few", OPENS, {}, "4 open a client's key, 4 open a client's own"),
        ("fresh-masks", ("elements", "modulus"), {}, "own masks were not taken off"),
        ("fresh-masks", ("watch",), {}, "masked vectors were not compared"),
        (
            "one-answer-per-session",
            ("tamper",),
            {"stages": ("unmask",), "counting": "unmask"},
            "the first one again",
        ),
    ]:
        found = verdict(name, *pieces, threat=SEMI, **options)
        assert found.status is Status.PASSED, found.reason
        assert said in found.reason + found.statistics
    for name in ("masked-after-unmasking", "uniform-over-the-ring"):
        found = verdict(name, "modulus", "tamper", elements=unread)
        assert found.status is Status.NOT_CHECKED
        assert "clients [2]" in found.reason
