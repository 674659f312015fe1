"""What is checked of black boxes, where nothing but inputs, drop-outs, total and transcript is known.

The properties are those of `correctness` and `leaks`; here is how they are checked without a look inside.
"""

import json
import math
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.audit.draws import drop, exact, inputs, tell
from protocols.audit.prop import Finding, NotChecked
from protocols.audit.subject import Drop, Played
from protocols.randomness import SystemRandom

WINDOW = 32
"""Bytes of the pieces that messages are compared by."""
LENGTH = 512
"""Coordinates of the vectors that messages are compared for."""


Check = Callable[[Any, Any], None]


def exact_sum(subject: Any, data: Any) -> None:
    vectors = inputs(subject, data)
    gone = drop(subject, data, len(vectors))
    played = subject.play(vectors, gone)
    if played.total is None:
        promised = not gone or (subject.tolerated is not None and subject.tolerated(len(vectors), gone))
        if promised:
            raise tell(
                "no total, although these drop-outs are within the promised tolerance", vectors, gone, played
            )
    elif played.total.tolist() != exact(vectors, played.survivors):
        expected = exact(vectors, played.survivors)
        raise tell("the total is not the sum over the survivors", vectors, gone, played, expected=expected)


def none_beyond_tolerance(subject: Any, data: Any) -> None:
    """One after the other leaves until it is one too many; without a stated tolerance that is everybody."""
    vectors = inputs(subject, data)
    gone = drop(subject, data, len(vectors))
    left = {i for who in gone.values() for i in who}
    for i in range(len(vectors)):
        if subject.tolerated is not None and not subject.tolerated(len(vectors), gone):
            break
        if i not in left:
            gone.setdefault(subject.stages[0], set()).add(i)
    played = subject.play(vectors, gone)
    promised = subject.tolerated is not None and subject.tolerated(len(vectors), gone)
    if played.total is not None and not promised:
        raise tell(
            "a total came out although fewer clients stayed than the threshold asks for",
            vectors,
            gone,
            played,
        )


def nothing_in_clear(subject: Any, data: Any) -> None:
    """Random vectors, all staying and with some leaving before each stage; nobody's message may hold a run of one."""
    n = subject.clients[0]
    patterns: list[Drop] = [{}]
    crashed = ""
    for stage in subject.stages:
        patterns += [{stage: {0}}, {stage: set(range(n - n // 2, n))}]
    run = max(8, math.ceil(64 / math.log2(2 * subject.bound + 1)))
    for gone in patterns:
        vectors = [_random(subject.bound, 2 * run) for _ in range(n)]
        played = subject.play(vectors, gone)
        if played.why and (subject.tolerated is None or subject.tolerated(n, gone)):
            crashed = f"{played.why} when {_left(gone)}: `exact-sum` tells more"
        for owner, vector in enumerate(vectors):
            needles = [*_needles(vector[:run]), *_needles(vector[run:])]
            for sender, recipient, body in played.transcript:
                if sender != "server" and _holds(body, needles):
                    raise _in_clear(owner, vector, gone, sender, recipient, body)
        if not played.why:
            _seen(played, n, vectors[0].size, subject.bound)
    if crashed:
        raise NotChecked(f"not every session could be seen: {crashed}")


def _left(gone: Drop) -> str:
    return ", ".join(f"{sorted(who)} left before {stage}" for stage, who in gone.items())


def _in_clear(owner: int, vector: Any, gone: Drop, sender: str, recipient: str, body: bytes) -> Finding:
    left = f"\n  {_left(gone)}" if gone else ""
    return Finding(
        f"a message in clear carries a client's values\n  client {owner} put in {vector.tolist()}{left}\n"
        f"  the message of {sender} to {recipient} of {len(body)} bytes contains them"
    )


def _random(bound: int, length: int) -> NDArray[np.int64]:
    """Values within the bound that nobody else knows of."""
    words = np.frombuffer(SystemRandom().bytes(8 * length), np.uint64)
    return (words % np.uint64(2 * bound + 1)).astype(np.int64) - bound


def _needles(run: NDArray[np.int64]) -> list[bytes]:
    """A run of values as a message would carry it: the common types, byte orders and texts, 8 bytes or more each."""
    most = int(np.abs(run).max())
    types = [f"{order}{kind}" for kind in ("i8", "i4", "i2", "i1", "f8", "f4", "f2") for order in "<>"]
    fits = [t for t in types if most < (1 << 11 if t[1:] == "f2" else 1 << (8 * int(t[2]) - 1))]
    found = [run.astype(kind).tobytes() for kind in fits]
    for values in (run.tolist(), run.astype(float).tolist()):
        found += [mark.join(json.dumps(v) for v in values).encode() for mark in (", ", ",", " ", "\n", ";")]
    return found


def _holds(body: bytes, needles: list[bytes]) -> bool:
    """Whether a body holds one of the needles, at any bit offset."""
    number = int.from_bytes(body, "big")
    for shift in range(8):
        shifted = (number >> shift).to_bytes(len(body), "big")
        if any(needle in shifted for needle in needles):
            return True
    return False


def sizes_say_nothing(subject: Any, data: Any) -> None:
    n = subject.clients[0]
    sizes = []
    for row in ([0] * LENGTH, ([subject.bound, -subject.bound, 1] * LENGTH)[:LENGTH]):
        played = subject.play([np.array(row, np.int64)] * n, {})
        _seen(played, n, LENGTH, subject.bound)
        sizes.append(sorted((s, r, len(b)) for s, r, b in played.transcript if s.startswith("client")))
    if sizes[0] != sizes[1]:
        where = next(((a, b) for a, b in zip(*sizes, strict=False) if a != b), ("count", "count"))
        raise Finding(
            f"the size of a message depends on the input\n  zeros: {where[0]}\n  extremes: {where[1]}"
        )


def randomised(subject: Any, data: Any) -> None:
    """One input at sessions 1, 3 and 6, zeros at 2, 4 and 5: nothing that a client sends follows from the input.

    What comes in sessions of either input (names, public keys, keys that are kept for some sessions) is no sign.
    """
    n = subject.clients[0]
    same = _random(subject.bound, LENGTH)
    given: dict[int, list[bytes]] = {}
    zeros: list[list[bytes]] = []
    for session in range(1, 7):
        vector = same if session in (1, 3, 6) else np.zeros(LENGTH, np.int64)
        played = subject.play([vector] * n, {})
        _seen(played, n, LENGTH, subject.bound)
        sent = [b"".join(b for s, _, b in played.transcript if s == f"client {i}") for i in range(n)]
        if vector is same:
            given[session] = sent
        else:
            zeros.append(sent)
    _no_piece_repeats(given, zeros)
    _zeros_do_not_show(
        [body for sent in zeros for body in sent], [b for sent in given.values() for b in sent]
    )


def _no_piece_repeats(given: dict[int, list[bytes]], zeros: list[list[bytes]]) -> None:
    public = {piece for sent in zeros for body in sent for piece in _windows(body)}
    own = {session: {p for body in sent for p in _windows(body)} - public for session, sent in given.items()}
    for first, second in combinations(given, 2):
        for client, body in enumerate(given[second]):
            at = _stretch(body, own[first])
            if at is not None:
                raise Finding(
                    "the same input gives the same bytes again\n"
                    f"  session {second}: client {client} sent {body[at : at + 2 * WINDOW].hex()}\n"
                    f"  session {first} had them for the same vector; zeros never gave them"
                )


def _stretch(body: bytes, seen: set[bytes]) -> int | None:
    """Where as many windows in a row start that were seen as a window has bytes, or None.

    One window may end in a constant and a few random bytes, which come again by chance; so many in a row do not.
    """
    run = 0
    for at, piece in enumerate(_windows(body)):
        run = run + 1 if piece in seen else 0
        if run == WINDOW:
            return at - WINDOW + 1
    return None


def _windows(body: bytes) -> list[bytes]:
    return [body[at : at + WINDOW] for at in range(len(body) - WINDOW + 1)]


def _zeros_do_not_show(zeros: list[bytes], others: list[bytes]) -> None:
    """Coordinates that are all alike must not look alike: no 64 bytes that repeat every 1, 2, 4 or 8."""
    for body in zeros:
        for period in (1, 2, 4, 8):
            at = _repeats(body, period)
            if at is not None and not any(_repeats(other, period) is not None for other in others):
                raise Finding(
                    f"an input of zeros shows as such\n  a client sent {body[at : at + period].hex()} "
                    f"again and again, from byte {at}"
                )


def _repeats(body: bytes, period: int) -> int | None:
    """Where 64 bytes start that repeat with the period, or None."""
    array = np.frombuffer(body, np.uint8)
    alike = np.concatenate([[0], np.cumsum(array[period:] == array[:-period])])
    width = 64 - period
    if alike.size <= width:
        return None
    hits = np.flatnonzero(alike[width:] - alike[:-width] == width)
    return int(hits[0]) if hits.size else None


def _seen(played: Played, clients: int, length: int, bound: int) -> None:
    """Refuse to judge a transcript that cannot hold what the clients who stayed put in."""
    least = math.floor(length * math.log2(2 * bound + 1) / 8)
    sent = dict.fromkeys(range(clients), 0)
    for sender, _, body in played.transcript:
        if sender.startswith("client "):
            sent[int(sender.split()[1])] += len(body)
    for number in played.survivors:
        if not sent[number]:
            raise NotChecked(
                f"no message of client {number} is in the transcript: name senders 'client 0', 'client 1', ..., "
                "or give BlackBox sender=, which maps your names to the clients' places"
            )
        if sent[number] < least:
            raise NotChecked(
                f"the transcript cannot be whole: client {number} put in {least} bytes of random values, and its "
                f"messages have {sent[number]}"
            )
