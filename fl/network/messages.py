"""What travels in an engine's messages: the request and the answer of one trip, and their signatures.

What does not belong here: how a framework packs them (`fl.flower.messages`, `fl.nvflare`), sending, protocols. A party
takes protocol frames as bytes; nothing received is unpickled.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import TypeVar

from fl.round.terms import RoundTerms
from protocols.codec import Record
from protocols.errors import Misuse, WireError
from protocols.identity import Identity, verify

Shown = TypeVar("Shown")
"""A model as it travels: a framework's own type."""
VERSION = 8
HELLO, WORK, START, STEP, CLOSE = "hello", "work", "start", "step", "close"
EVALUATED = "evaluated"
"""Names the record of a model that is evaluated and not trained, by which a party tells the two apart."""
# every engine's: with other words a node of another version refuses the signatures, so the first engine's stay
_REQUEST, _ANSWER = "flower request", "flower answer"
_HEAD = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Header(Record):
    """What a party must know of a round before its first answer. Public.

    terms: all that it acts on, in the session's digest. What follows is of one session or of none, and no client
    computes with it. session: an encoded `Session`. head, head_signature: the run record's last head (64 lower-case
    hexadecimal digits, or empty) and the server's signature of it, for the client to keep. Raises Misuse for a head of
    another form.
    """

    terms: RoundTerms
    session: bytes
    head: str
    head_signature: bytes

    def __post_init__(self) -> None:
        if self.head and not _HEAD.fullmatch(self.head):
            raise Misuse(f"expected a head of 64 lower-case hexadecimal digits, got {self.head[:80]!r}")


@dataclass(frozen=True)
class Request(Record):
    """Server to one party. kind: hello (say your name), work (train on this model until a sum asks for it), start (with
    header and model), step, or close (a last head to keep).
    late: after how many seconds an answer of this party's came too late, the last time (0: it did not).
    """

    version: int
    kind: str
    context: bytes
    stage: str
    recipient: str
    role: str
    index: int
    header: Header | None
    frames: int
    late: float = 0.0
    signature: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class Answer(Record):
    """One party to the server. seconds: what it computed, without waiting; train_seconds: of that, in the
    user's code. sent_again: the update behind this session left before, and the party's own policy allows that.
    """

    version: int
    context: bytes
    stage: str
    name: str
    seconds: float
    train_seconds: float
    sent_again: bool
    frames: int
    signature: bytes = field(default=b"", repr=False)


Body = Request | Answer
Frames = Sequence[bytes]


def words_of(text: str) -> str:
    """Return the last line of a peer's words, of at most 500 printable characters: it forges no line of a log."""
    lines = text.strip().splitlines() or ["no reason given"]
    return "".join(c if c.isprintable() else " " for c in lines[-1][:500])


def sealed(body: Body, frames: Frames, signer: Identity | None) -> Body:
    """Return a body that counts its frames, signed if the sender has an identity."""
    body = replace(body, frames=len(frames), signature=b"")
    if signer is None:
        return body
    return replace(body, signature=signer.sign(_purpose(body), _signed(body, frames)))


def check(body: Body, frames: Frames, key: bytes | None) -> None:
    """Raises WireError for a body of another version or number of frames, or with seconds that cannot be, BadSignature
    unless `key` signed it.
    """
    if body.version != VERSION:
        raise WireError(f"expected a message of version {VERSION}, got {body.version}")
    if len(frames) != body.frames:
        raise WireError(f"expected {body.frames} frames")
    if isinstance(body, Answer) and not all(0 <= spent < inf for spent in (body.seconds, body.train_seconds)):
        raise WireError(f"expected seconds of 0 or more, got {body.seconds} and {body.train_seconds}")
    if key is not None and not body.signature:
        raise WireError(
            "it is not signed, and a roster is held here: both sides need one (PrivateStrategy, server_app: roster=, "
            "authority=, identity=; site.toml: roster, authority, identity)"
        )
    if key is not None:
        verify(key, _purpose(body), _signed(replace(body, signature=b""), frames), body.signature)


def sessionless(kind: str, recipient: str, header: Header | None) -> Request:
    """Return a request that belongs to no session: hello, work, or close with the last head."""
    return Request(VERSION, kind, bytes(32), kind, recipient, "client", 0, header, 0)


def _purpose(body: Body) -> str:
    return _REQUEST if isinstance(body, Request) else _ANSWER


def _signed(body: Body, frames: Frames) -> bytes:
    return body.encode() + b"".join(hashlib.sha256(frame).digest() for frame in frames)
