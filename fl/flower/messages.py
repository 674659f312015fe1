"""What travels inside Flower's `train` messages, and how it is packed into records.

What belongs here: the request and the answer of one trip, their signatures' content, their place in a
RecordDict. What does not: sending, protocols. Protocol frames travel as Arrays, the one kind of record that
Flower cuts into chunks; their bytes are taken as they are, nothing received is unpickled.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fl.round.terms import RoundTerms
from protocols.codec import Record
from protocols.errors import Misuse, WireError
from protocols.identity import Identity, verify

VERSION = 7
KEY, FRAMES = "secagg", "secagg.frames"
HELLO, WORK, START, STEP, CLOSE = "hello", "work", "start", "step", "close"
EVALUATED = "evaluated"
"""Names the record of a model that is evaluated and not trained, by which a party tells the two apart."""
_STYPE = "secagg.frame"
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


def pack(body: Body, frames: Frames, signer: Identity | None) -> RecordDict:
    """Return the records of one message, signed if the sender has an identity."""
    body = replace(body, frames=len(frames), signature=b"")
    if signer is not None:
        body = replace(body, signature=signer.sign(_purpose(body), _signed(body, frames)))
    arrays = {f"{i:06d}": Array("uint8", (len(f),), _STYPE, bytes(f)) for i, f in enumerate(frames)}
    return RecordDict({KEY: ConfigRecord({"body": body.encode()}), FRAMES: ArrayRecord(arrays)})


def sessionless(kind: str, recipient: str, header: Header | None, signer: Identity | None) -> RecordDict:
    """Return a request that belongs to no session: hello, work, or close with the last head."""
    request = Request(VERSION, kind, bytes(32), kind, recipient, "client", 0, header, 0)
    return pack(request, (), signer)


def is_protected(content: RecordDict) -> bool:
    """True if the message is one of ours."""
    return KEY in content.config_records


def unpack_request(content: RecordDict, server: bytes | None) -> tuple[Request, list[bytes]]:
    """Return the request and its frames. Raises WireError, or BadSignature unless the key `server` signed it."""
    request = Request.decode(_body(content))
    return request, _checked(request, content, server)


def unpack_answer(content: RecordDict, sender: bytes | None) -> tuple[Answer, list[bytes]]:
    """Return the answer and its frames. Raises WireError, also for any record besides them, or BadSignature unless
    the key `sender` signed it.
    """
    answer = Answer.decode(_body(content))
    if extra := sorted(strip(content)):
        raise WireError(
            f"expected protocol frames and nothing else, {extra[0]!r} came with them: a mod in front of privacy_mod "
            "added it, and it left unprotected; put privacy_mod first"
        )
    return answer, _checked(answer, content, sender)


def strip(content: RecordDict) -> RecordDict:
    """Return the records that the wrapped app put there, without ours."""
    return RecordDict({key: value for key, value in content.items() if key not in (KEY, FRAMES)})


def _body(content: RecordDict) -> bytes:
    record = content.config_records[KEY] if is_protected(content) else ConfigRecord()
    value = record.get("body")
    if not isinstance(value, bytes):
        raise WireError("expected a protected message, got another one")
    if extra := sorted(record.keys() - {"body"}):
        raise WireError(f"expected a body alone in the record {KEY!r}, {extra[0]!r} is in it too")
    return value


def _checked(body: Body, content: RecordDict, key: bytes | None) -> list[bytes]:
    if body.version != VERSION:
        raise WireError(f"expected a message of version {VERSION}, got {body.version}")
    arrays = content.array_records.get(FRAMES)
    if arrays is None or len(arrays) != body.frames or any(a.stype != _STYPE for a in arrays.values()):
        raise WireError(f"expected {body.frames} frames")
    frames = [arrays[name].data for name in sorted(arrays)]
    if key is not None and not body.signature:
        raise WireError(
            "it is not signed, and a roster is held here: both sides need one (PrivateStrategy, server_app: roster=, "
            "authority=, identity=; site.toml: roster, authority, identity)"
        )
    if key is not None:
        verify(key, _purpose(body), _signed(replace(body, signature=b""), frames), body.signature)
    return frames


def _purpose(body: Body) -> str:
    return _REQUEST if isinstance(body, Request) else _ANSWER


def _signed(body: Body, frames: Frames) -> bytes:
    return body.encode() + b"".join(hashlib.sha256(frame).digest() for frame in frames)
