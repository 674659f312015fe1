"""A request, or an answer, as Flower's records.

What belongs here: their place in a RecordDict. What does not: what they say (`fl.network.messages`). Small frames
travel beside the body, large ones as Arrays, the one kind of record that Flower cuts into chunks.
"""

from collections.abc import Iterable, Mapping

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
    return _records(sealed(body, frames, signer).encode(), [bytes(frame) for frame in frames])


def is_protected(content: RecordDict) -> bool:
    """True if the message is one of ours."""
    return KEY in content.config_records


def unpack_request(content: RecordDict, server: bytes | None) -> tuple[Request, list[bytes]]:
    """Return the request and its frames. Raises WireError, or BadSignature unless the key `server` signed it."""
    body, frames = _read(content)
    request = Request.decode(body)
    check(request, frames, server)
    return request, frames


def unpack_answer(content: RecordDict, sender: bytes | None) -> tuple[Answer, list[bytes]]:
    """Return the answer and its frames. Raises WireError, also for any record besides them, or BadSignature unless
    the key `sender` signed it.
    """
    body, frames = _read(content)
    if extra := sorted(strip(content)):
        raise WireError(
            f"expected protocol frames and nothing else, {extra[0]!r} came with them: a mod in front of privacy_mod "
            "added it, and it left unprotected; put privacy_mod first"
        )
    answer = Answer.decode(body)
    check(answer, frames, sender)
    return answer, frames


def strip(content: RecordDict) -> RecordDict:
    """Return the records that the wrapped app put there, without ours."""
    return RecordDict({key: value for key, value in content.items() if key not in (KEY, FRAMES)})


def _records(body: bytes, frames: list[bytes]) -> RecordDict:
    if sum(map(len, frames)) <= SMALL:
        return RecordDict({KEY: ConfigRecord({"body": body, "frames": frames})})
    arrays = {f"{i:06d}": Array("uint8", (len(f),), _STYPE, f) for i, f in enumerate(frames)}
    return RecordDict({KEY: ConfigRecord({"body": body}), FRAMES: ArrayRecord(arrays)})


def _read(content: RecordDict) -> tuple[bytes, list[bytes]]:
    """Return the body and the frames. Raises WireError unless the records are those that `pack` makes of them, in their
    order: no name, type or place says anything else.
    """
    ours = {name: record for name, record in content.items() if name in (KEY, FRAMES)}
    record, arrays = ours.get(KEY), ours.get(FRAMES)
    body = record.get("body") if isinstance(record, ConfigRecord) else None
    if not isinstance(record, ConfigRecord) or not isinstance(body, bytes):
        raise WireError("expected a protected message, got another one")
    listed = record.get("frames", [])
    if isinstance(arrays, ArrayRecord) and "frames" not in record:
        listed = [array.data for array in arrays.values()]
    frames = [frame for frame in listed if isinstance(frame, bytes)] if isinstance(listed, list) else []
    made = dict(_records(body, frames))
    if ours != made or _names(ours) != _names(made):
        extra = sorted(name for key in ours for name in ours[key] if name not in made.get(key, ()))
        also = f": {extra} came too" if extra else ""
        raise WireError(f"expected a body and its frames, got another record beside or among them{also}")
    return body, frames


def _names(records: Mapping[str, Iterable[str]]) -> list[tuple[str, list[str]]]:
    """Return the names in their order, which dictionaries do not compare."""
    return [(key, list(record)) for key, record in records.items()]
