"""What is checked of black boxes, where nothing but inputs, drop-outs, total and transcript is known.

The properties are those of `correctness` and `leaks`; here is how they are checked without a look inside.
"""

import json
import math
from collections.abc import Callable, Iterable
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.audit.draws import drop, exact, inputs, tell, wrong
from protocols.audit.prop import Finding, NotChecked
from protocols.audit.subject import Drop, Played
from protocols.randomness import SystemRandom

WINDOW, PIECE = 32, 8
"""Bytes of the pieces that messages are compared by."""
APART = 18
"""Clients' messages of either input; by chance they lie apart in one of 4 * 10^9 audits."""
_FACTORS = np.frombuffer(SystemRandom().bytes(WINDOW), np.uint64) | np.uint64(1)
LONG = 1 << 16
"""Bytes of the beginning and of the end of what a client sent that are compared."""
LENGTH = 512
"""Coordinates of the vectors that messages are compared for."""

NO_TOTAL = "no total, although these drop-outs are within the promised tolerance"
NOT_THE_SUM = "the total is not the sum over the survivors"
TOO_FEW = "a total came out although fewer clients stayed than the threshold asks for"

Check = Callable[[Any, Any], None]


def exact_sum(subject: Any, data: Any) -> None:
    vectors = inputs(subject, data)
    gone = drop(subject, data, len(vectors))
    played = subject.play(vectors, gone)
    if played.total is None:
        if not gone or (subject.tolerated is not None and subject.tolerated(len(vectors), gone)):
            raise tell(NO_TOTAL, vectors, gone, played)
    elif wrong(played, vectors):
        raise tell(NOT_THE_SUM, vectors, gone, played, expected=exact(vectors, played.survivors))


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
        raise tell(TOO_FEW, vectors, gone, played)


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
    """Sizes of zeros are those of extremes; where sizes differ for equal inputs, neither lie all on one side."""
    n = subject.clients[0]
    zeros, extremes = [0] * LENGTH, ([subject.bound, -subject.bound, 1] * LENGTH)[:LENGTH]
    first, second = (_sizes(subject, row, n) for row in (zeros, extremes))
    if first == second:
        return
    where = next(((a, b) for a, b in zip(first, second, strict=False) if a != b), ("count", "count"))
    told = f"the size of a message depends on the input\n  zeros: {where[0]}\n  extremes: {where[1]}"
    if _sizes(subject, zeros, n) == first:
        raise Finding(told)
    more = [[_up(_sizes(subject, row, n)) for _ in range(math.ceil(APART / n))] for row in (zeros, extremes)]
    small, large = ([size for one in sizes for size in one] for sizes in more)
    if max(small) < min(large) or max(large) < min(small):
        raise Finding(
            f"{told}\n  sizes differ for equal inputs too, and those of {len(small)} messages lie apart"
        )


def _sizes(subject: Any, row: list[int], n: int) -> list[tuple[str, str, int]]:
    played = subject.play([np.array(row, np.int64)] * n, {})
    _seen(played, n, LENGTH, subject.bound)
    return sorted((s, r, len(b)) for s, r, b in played.transcript if s.startswith("client"))


def _up(sizes: list[tuple[str, str, int]]) -> list[int]:
    """By client, the bytes of all that it sent."""
    return [sum(size for s, _, size in sizes if s == who) for who in sorted({s for s, _, _ in sizes})]


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
        sent = [_ends(b"".join(b for s, _, b in played.transcript if s == f"client {i}")) for i in range(n)]
        if vector is same:
            given[session] = sent
        else:
            zeros.append(sent)
    _no_piece_repeats(given, zeros)
    _zeros_do_not_show([b for sent in zeros for b in sent], [b for sent in given.values() for b in sent])


def _ends(body: bytes) -> bytes:
    """A long body's beginning and end."""
    return body if len(body) <= 2 * LONG else body[:LONG] + body[-LONG:]


def _no_piece_repeats(given: dict[int, list[bytes]], zeros: list[list[bytes]]) -> None:
    public = _all_windows(body for sent in zeros for body in sent)
    windows_of = {session: _all_windows(sent) for session, sent in given.items()}
    pieces = _all_windows((body for sent in zeros for body in sent), PIECE)
    own = {session: windows[~_among(windows, public)] for session, windows in windows_of.items()}
    for first, second in combinations(given, 2):
        short = [_stretch(body, own[first], WINDOW) for body in given[second] if len(body) >= 2 * WINDOW]
        for client, body in enumerate(given[second]):
            # a header that says how long a compressed body is comes again by chance: short, and not everybody's
            at = _stretch(body, own[first], WINDOW if None not in short else 4 * WINDOW)
            at = _digest(body, windows_of[first], pieces) if at is None else at
            if at is not None:
                raise Finding(
                    "the same input gives the same bytes again\n"
                    f"  session {second}: client {client} sent {body[at : at + 2 * WINDOW].hex()}\n"
                    f"  session {first} had them for the same vector; zeros never gave them"
                )


def _stretch(body: bytes, seen: NDArray[np.uint64], count: int) -> int | None:
    """Where so many windows in a row start that were seen, or None. count: at least as many as a window has bytes.

    One window may end in a constant and a few random bytes, which come again by chance; so many in a row do not.
    """
    known = np.concatenate([[0], np.cumsum(_among(_windows(body), seen))])
    hits = np.flatnonzero(known[count:] - known[:-count] == count)
    return int(hits[0]) if hits.size else None


def _digest(body: bytes, seen: NDArray[np.uint64], pieces: NDArray[np.uint64]) -> int | None:
    """Where a window starts that was seen, though zeros gave no 8 bytes of it: no constant is in it, nor a header."""
    known = np.concatenate([[0], np.cumsum(_among(_windows(body, PIECE), pieces))])
    count = WINDOW - PIECE + 1
    hits = np.flatnonzero(_among(_windows(body), seen) & (known[count:] == known[:-count]))
    return int(hits[0]) if hits.size else None


def _all_windows(bodies: Iterable[bytes], width: int = WINDOW) -> NDArray[np.uint64]:
    return np.sort(np.concatenate([_windows(body, width) for body in bodies]))


def _among(values: NDArray[np.uint64], known: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which of the values are among the known ones, which are sorted."""
    if not known.size:
        return np.zeros(values.size, bool)
    found: NDArray[np.bool_] = known[np.minimum(np.searchsorted(known, values), known.size - 1)] == values
    return found


def _windows(body: bytes, width: int = WINDOW) -> NDArray[np.uint64]:
    """A number for each piece of `width` bytes, at every place; that two of one number differ has a chance of 2^-64."""
    if len(body) < width:
        return np.empty(0, np.uint64)
    words = np.ndarray((len(body) - 7,), "<u8", body, strides=(1,)).astype(np.uint64) * _FACTORS[-1]
    words ^= words >> np.uint64(
        32
    )  # a product alone keeps low zeros: of elements of 20 bits in 8 bytes, 24 bits stay
    starts = range(0, width, 8)
    pieces = (words[at : len(words) - (width - 8) + at] * _FACTORS[at // 8] for at in starts)
    return sum(pieces, start=np.zeros(len(body) - width + 1, np.uint64))


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
