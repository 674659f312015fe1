"""A request, or an answer, as Flower's records.

What belongs here: their place in a RecordDict. What does not: what they say (`fl.network.messages`). Small frames
travel beside the body, large ones as Arrays, the one kind of record that Flower cuts into chunks.
"""

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fl.network.messages import Answer, Body, Frames, Request, check, sealed
from protocols.errors import WireError
from protocols.identity import Identity

KEY, FRAMES = "secagg", "secagg.frames"
_STYPE = "secagg.frame"
SMALL = 1 << 16
"""Bytes of frames up to which a message is one record: every Array is two more objects, each with requests of its own
on every hop.
"""


def pack(body: Body, frames: Frames, signer: Identity | None) -> RecordDict:
    """Return the records of one message, signed if the sender has an identity."""
    ours = sealed(body, frames, signer).encode()
    if sum(map(len, frames)) <= SMALL:
        return RecordDict({KEY: ConfigRecord({"body": ours, "frames": [bytes(f) for f in frames]})})
    return RecordDict({KEY: ConfigRecord({"body": ours}), FRAMES: _arrays(frames)})


def is_protected(content: RecordDict) -> bool:
    """True if the message is one of ours."""
    return KEY in content.config_records


def unpack_request(content: RecordDict, server: bytes | None) -> tuple[Request, list[bytes]]:
    """Return the request and its frames. Raises WireError, or BadSignature unless the key `server` signed it."""
    request, frames = Request.decode(_body(content)), _frames(content)
    check(request, frames, server)
    return request, frames


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
    frames = _frames(content)
    check(answer, frames, sender)
    return answer, frames


def strip(content: RecordDict) -> RecordDict:
    """Return the records that the wrapped app put there, without ours."""
    return RecordDict({key: value for key, value in content.items() if key not in (KEY, FRAMES)})


def _arrays(frames: Frames) -> ArrayRecord:
    return ArrayRecord(
        {f"{i:06d}": Array("uint8", (len(f),), _STYPE, bytes(f)) for i, f in enumerate(frames)}
    )


def _body(content: RecordDict) -> bytes:
    record = content.config_records[KEY] if is_protected(content) else ConfigRecord()
    value = record.get("body")
    if not isinstance(value, bytes):
        raise WireError("expected a protected message, got another one")
    if extra := sorted(record.keys() - {"body", "frames"}):
        raise WireError(f"expected a body and frames in the record {KEY!r}, {extra[0]!r} is in it too")
    return value


def _frames(content: RecordDict) -> list[bytes]:
    small, arrays = content.config_records[KEY].get("frames"), content.get(FRAMES)
    if isinstance(small, list) and arrays is None:
        found = [frame for frame in small if isinstance(frame, bytes)]
        if len(found) == len(small):
            return found
    if small is None and isinstance(arrays, ArrayRecord):
        found = [arrays[name].data for name in sorted(arrays)]
        if arrays == _arrays(found):  # names, types and shapes say nothing else
            return found
    raise WireError("expected frames, got another record")
