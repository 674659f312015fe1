"""Leaks: what must never be seen on the wire, and where randomness must not come from."""

import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from protocols.audit.generators import watched
from protocols.audit.prop import Finding, NotChecked, promised
from protocols.audit.properties import black, opened
from protocols.audit.reading import input_bodies

CANARY = 0x5EC2E7CA7A21


def _nothing_in_clear_outside(subject: Any, data: Any) -> None:
    black.nothing_in_clear(subject, data)
    _no_aggregate(subject)


@promised("semi-honest", "taint canaries", pieces=("",), most=1, outside=_nothing_in_clear_outside)
def nothing_in_clear(subject: Any, data: Any) -> None:
    """No value of a client, and no count, sum, norm or maximum of its vector, travels in clear.

    Every client puts values nobody else knows of into the sum; no message may carry one of them, at any bit offset,
    nor a count, sum, norm or maximum of its vector.
    """
    n = subject.clients[0]
    values = [CANARY + 2 * i for i in range(n)]
    vectors = [np.array([v, -v, v, 0], np.int64) for v in values]
    played = subject.play(vectors, {}, bound=1 << 47)
    needles = {v: v.to_bytes(6, "big") for v in values}
    for value, needle in needles.items():
        for sender, recipient, body in played.transcript:
            if not sender.startswith("client"):
                continue
            if _hidden_in(needle, body) or str(value).encode() in body:
                raise Finding(
                    f"a message in clear carries a client's value\n  {sender} put in {value}\n"
                    f"  its message to {recipient} of {len(body)} bytes contains it"
                )
    _no_aggregate(subject)


_AGGREGATES: dict[str, Callable[[Any], int | float]] = {
    "count of nonzeros": lambda v: int(np.count_nonzero(v)),
    "sum": lambda v: int(v.sum()),
    "mean": lambda v: float(v.mean()),
    "L1 norm": lambda v: int(np.abs(v).sum()),
    "squared L2 norm": lambda v: int((v * v).sum()),
    "L2 norm": lambda v: float(np.sqrt(float((v * v).sum()))),
    "maximum": lambda v: int(v.max()),
    "largest magnitude": lambda v: int(np.abs(v).max()),
}


def _no_aggregate(subject: Any) -> None:
    """Three clients or more, aggregates that differ: none begins or ends at one place of all their messages."""
    n, rng = subject.clients[0], np.random.default_rng(5)
    bound = min(subject.bound, 1 << 20)
    vectors = []
    for i in range(n):  # zeros at the end: counts of three digits, and different ones
        vector = rng.integers(-bound, bound + 1, 256)
        vector[vector == 0] = 1
        vector[101 + 11 * i :] = 0
        vectors.append(vector)
    played = subject.play(vectors, {}, bound=bound)
    bodies: dict[str, list[bytes]] = {}
    for sender, _, body in played.transcript:
        if sender.startswith("client"):
            bodies.setdefault(sender, []).append(body)
    for parallel in zip(*(bodies.get(f"client {i}", []) for i in range(n)), strict=False):
        for name, aggregate in _AGGREGATES.items():
            written = [_encodings(aggregate(vector)) for vector in vectors]
            for form in set.intersection(*(set(forms) for forms in written)):
                pairs = [(forms[form], body) for forms, body in zip(written, parallel, strict=True)]
                begins = [_places(needle, body) for needle, body in pairs]
                lengths = (len(needle) for needle, _ in pairs)
                ends = [{at + n for at in found} for n, found in zip(lengths, begins, strict=True)]
                if set.intersection(*begins) or set.intersection(*ends):
                    raise Finding(
                        f"a message in clear carries an aggregate of a client's vector: its {name}\n"
                        f"  as {form}, in messages of {len(parallel[0])} bytes of all {n} clients"
                    )


def _encodings(value: int | float) -> dict[str, bytes]:
    """The common ways to write a number, in three bytes or more."""
    found = {}
    for sign, order in ((">", "big"), ("<", "little")):
        found[f"float64, {order}-endian"] = struct.pack(f"{sign}d", value)
        found[f"float32, {order}-endian"] = struct.pack(f"{sign}f", value)
        for size, code in ((4, "i"), (8, "q")):
            if isinstance(value, int) and -(1 << 8 * size - 1) <= value < 1 << 8 * size - 1:
                found[f"{size} bytes, {order}-endian"] = struct.pack(f"{sign}{code}", value)
    text = str(value) if isinstance(value, int) else f"{value:.6g}"
    return found | ({"text": text.encode()} if len(text) >= 3 else {})


def _places(needle: bytes, body: bytes) -> set[int]:
    found, at = set(), body.find(needle)
    while at >= 0:
        found.add(at)
        at = body.find(needle, at + 1)
    return found


def _hidden_in(needle: bytes, body: bytes) -> bool:
    if needle in body or needle[::-1] in body:
        return True
    bits = "".join(f"{byte:08b}" for byte in body)
    wanted = "".join(f"{byte:08b}" for byte in needle).lstrip("0")
    little = "".join(f"{byte:08b}"[::-1] for byte in body)
    return wanted in bits or wanted[::-1] in little


@promised("semi-honest", "length hiding", pieces=("",), most=1, outside=black.sizes_say_nothing)
def sizes_say_nothing(subject: Any, data: Any) -> None:
    """The sizes of all messages are independent of the inputs."""
    n = subject.clients[0]
    sizes = []
    shapes = ([0, 0, 0], [subject.bound, -subject.bound, 1])
    for row in shapes:
        played = subject.play([np.array(row, np.int64)] * n, {}, bound=subject.bound)
        sizes.append([(s, r, len(b)) for s, r, b in played.transcript if s.startswith("client")])
    if sorted(sizes[0]) != sorted(sizes[1]):
        where = next(((a, b) for a, b in zip(sizes[0], sizes[1], strict=False) if a != b), ("count",))
        raise Finding(
            f"the size of a message depends on the input\n  zeros: {where[0]}\n  extremes: {where[-1]}"
        )


@promised("semi-honest", "semantic security", pieces=("",), most=2, outside=black.randomised)
def randomised(subject: Any, data: Any) -> None:
    """Equal inputs are masked or encrypted freshly, in every session, client and coordinate.

    Zeros, twice: no 16-byte piece of any client's input message comes a second time, and none is blank.
    """
    n, d = subject.clients[0], 256
    vectors = [np.zeros(d, np.int64)] * n
    seen: dict[bytes, str] = {}
    for session in (1, 2):
        played = subject.play(vectors, {}, bound=1 << 30)
        for who, body in input_bodies(subject, played):
            if any(bytes([byte]) * 64 in body for byte in (0, 255)):
                raise Finding(f"an input of zeros shows as such\n  {who} sent 64 equal bytes in a row")
            for at in range(0, len(body) - 15, 8):
                piece, place = body[at : at + 16], f"session {session}, {who}, byte {at}"
                if piece in seen and len(set(piece)) > 6:
                    raise Finding(
                        f"masks or ciphertexts repeat for equal inputs\n  {seen[piece]}\n  {place}: {piece.hex()}"
                    )
                seen[piece] = place


@promised(
    "semi-honest",
    "authenticated encryption of shares",
    most=1,
    pieces=("shares",),
    outside=opened.sealed_shares,
)
def shares_are_sealed(subject: Any, data: Any) -> None:
    """What is opened at the end never went through the relay in clear before.

    What clients open at the end never went over the wire before, in any message.
    """
    played = subject.play([np.ones(4, np.int64)] * 5, {subject.counting: {4}}, bound=9)
    last = subject.stages[-1]
    answers = [m for m in played.messages if m.stage == last and m.sender.role == "client"]
    earlier = [m for m in played.messages if m.stage != last]
    public = b"".join(bytes(m.body) for m in played.messages if m.sender.role == "server" and m.stage == last)
    for answer in answers:
        body = bytes(answer.body)
        for at in range(0, len(body) - 15):
            piece = body[at : at + 16]
            if len(set(piece)) < 9 or piece in public:
                continue
            leak = next((m for m in earlier if piece in bytes(m.body)), None)
            if leak is not None:
                raise Finding(
                    f"a share that is opened at {last} went over the relay in clear before\n"
                    f"  {answer.sender} opens {piece.hex()}..., which {leak.sender} sent at {leak.stage}"
                )


@promised("semi-honest", "cryptographic randomness", pieces=("",), most=1)
def no_statistical_generators(subject: Any, data: Any) -> None:
    """No randomness of a session comes from Python's, NumPy's or torch's statistical generators.

    No generator of Python's, NumPy's or torch's is made or drawn from while a session runs.
    """
    used: list[str] = []
    vectors = [np.ones(64, np.int64)] * subject.clients[0]
    subject.play(vectors, {})  # what is imported on first use must not see the watched generators
    with watched(used):
        played = subject.play(vectors, {})
    if not used and played.total is None and not played.transcript:
        raise NotChecked("nothing came out of a session that nobody left")
    if used:
        raise Finding(f"randomness of a session comes from a statistical generator\n  {used[0]}")
