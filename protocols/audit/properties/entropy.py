"""Entropy: how much randomness is behind every secret, from its draw to the stream that hides an input."""

from collections import defaultdict
from typing import Any

import numpy as np
from hypothesis import strategies as st

from protocols.audit.prop import Finding, NotChecked, promised
from protocols.audit.randomness import ReplayRandom
from protocols.kernel import Message

LEAST_BYTES = 16
"""128 bits: the least that stands behind a secret."""


class _Altered(ReplayRandom):
    """Repeatable randomness that keeps all draws; in draw `number` it changes the byte at `place` (None: all bytes)."""

    def __init__(self, number: int | None = None, place: int | None = None) -> None:
        super().__init__(23)
        self.number, self.place = number, place
        self.draws: list[bytes] = []

    def bytes(self, count: int) -> bytes:
        drawn = bytearray(super().bytes(count))
        if len(self.draws) == self.number:
            for place in range(count) if self.place is None else (self.place,):
                drawn[place] ^= 0xFF
        self.draws.append(bytes(drawn))
        return self.draws[-1]


@promised("semi-honest", "min-entropy of keys", most=1)
def secrets_are_drawn_in_full(subject: Any, data: Any) -> None:
    """Behind every byte that a client sends and that is random there are at least 128 bits that it drew.

    The same session again, with one draw changed, or one byte of it: which bytes of clients' messages depend on
    which draws, and on how much of each.
    """
    random = _Altered()
    messages, nonce = _messages(subject, random)
    if _messages(subject, _Altered())[0] != messages:
        raise NotChecked("equal randomness does not give equal messages: draws cannot be told apart")
    wire = b"".join(messages) + nonce
    behind: defaultdict[tuple[int, int], int] = defaultdict(int)
    used = []
    for number, drawn in enumerate(random.draws):
        if not drawn or drawn in wire:  # nonces are public
            continue
        changed, _ = _messages(subject, _Altered(number))
        for where in _differences(messages, changed):
            behind[where] += len(drawn)
        if changed != messages:
            used.append((number, len(drawn)))
    few = {where: count for where, count in behind.items() if count < LEAST_BYTES}
    if few:
        where, count = min(few.items())
        raise Finding(
            f"a secret is made of {8 * count} random bits, fewer than {8 * LEAST_BYTES}\n"
            f"  {len(few)} bytes of clients' messages rest on nothing else, first byte {where[1]} of message {where[0]}"
        )
    for number, length in used:
        _matters(subject, messages, number, length)


def _matters(subject: Any, messages: list[bytes], number: int, length: int) -> None:
    """At least 16 bytes of a draw as long as a key change some message."""
    if not LEAST_BYTES <= length <= 64:
        return
    count = 0
    for place in range(length):
        count += _changes(subject, messages, _Altered(number, place))
        if count == LEAST_BYTES - 1:  # of 16 bytes one may be a key's fixed bits alone
            return
    raise Finding(
        f"only {count} bytes of a draw of {length} reach any message\n  draw {number} of the session"
    )


class _Differs(Exception):
    """A message is another one."""


def _changes(subject: Any, messages: list[bytes], random: _Altered) -> bool:
    """Whether a client's message differs with this randomness. The session ends at the first that does."""
    left = iter(messages)

    def compare(sent: Message) -> Message:
        if sent.sender.role == "client" and bytes(sent.body) != next(left, None):
            raise _Differs
        return sent

    try:
        _messages(subject, random, tamper=compare)
    except _Differs:
        return True
    return next(left, None) is not None


def _messages(subject: Any, random: _Altered, **options: Any) -> tuple[list[bytes], bytes]:
    """What clients send, in order, and the session's nonce."""
    n = subject.clients[0]
    updates = {i: bytes([i + 1]) * 32 for i in range(n)}
    vectors = [np.array([i, -i], np.int64) for i in range(n)]
    played = subject.play(vectors, {}, bound=subject.bound, rng=random, updates=updates, **options)
    sent = [bytes(m.body) for m in played.messages if m.sender.role == "client"]
    return sent, played.session.nonce if played.session is not None else b""


def _differences(first: list[bytes], second: list[bytes]) -> list[tuple[int, int]]:
    return [
        (number, place)
        for number, (a, b) in enumerate(zip(first, second, strict=False))
        for place, (x, y) in enumerate(zip(a, b, strict=False))
        if x != y
    ]


@promised("semi-honest", "pseudorandom generator", most=3)
def seeds_carry_full_entropy(subject: Any, data: Any) -> None:
    """Every bit of a mask seed reaches the stream, and there are at least 128.

    Streams of seeds that differ in any one bit differ, for every bit of the seed.
    """
    stream, width = subject.hooks.stream, subject.hooks.seed_bytes
    if stream is None:
        raise NotChecked("the protocol has no hook `stream`: its mask generator cannot be called")
    if width < 16:
        raise Finding(f"mask seeds have {8 * width} bits, fewer than 128")
    base = data.draw(st.binary(min_size=width, max_size=width), label="seed")
    reference = stream(base, 64).tobytes()
    for bit in range(8 * width):
        flipped = bytearray(base)
        flipped[bit // 8] ^= 1 << bit % 8
        if stream(bytes(flipped), 64).tobytes() == reference:
            raise Finding(f"bit {bit} of a mask seed does not reach the stream\n  seed {base.hex()}")
    for fold in (4, 8, 16):
        for place in range(width - fold):
            folded = bytearray(base)
            folded[place] ^= 1
            folded[place + fold] ^= 1
            if stream(bytes(folded), 64).tobytes() == reference:
                raise Finding(f"a mask seed is folded to {8 * fold} bits\n  bytes {place} and {place + fold}")


@promised("semi-honest", "pseudorandom generator", most=1)
def streams_do_not_collide(subject: Any, data: Any) -> None:
    """Different seeds give different streams, with no collision beyond birthday.

    4096 seeds give 4096 streams: a generator folded to 32 bits or fewer collides or repeats.
    """
    stream, width = subject.hooks.stream, subject.hooks.seed_bytes
    if stream is None:
        raise NotChecked("the protocol has no hook `stream`: its mask generator cannot be called")
    rng = np.random.default_rng(0)
    seen = {stream(rng.bytes(width), 16).tobytes() for _ in range(4096)}
    if len(seen) != 4096:
        raise Finding(f"4096 seeds give {len(seen)} streams")
