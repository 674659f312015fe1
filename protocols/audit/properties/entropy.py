"""Entropy: how much randomness is behind every secret, from its draw to the stream that hides an input."""

import base64
import math
import time
from collections import defaultdict
from typing import Any

import numpy as np
from hypothesis import strategies as st

from protocols.audit.pieces import Pieces
from protocols.audit.prop import Finding, NotChecked, NotVisible, promised
from protocols.audit.properties import given
from protocols.audit.reading import UNCALLED, hook_of
from protocols.audit.repeatable import ReplayRandom
from protocols.kernel import Message

MANY, SECONDS = 1 << 19, 10.0
"""Streams of a black box that are compared, and the processor time for it: a busy machine finds no less."""
MASK_BYTES = 64
"""A draw that reaches so many bytes of messages was expanded."""
SHIFTED_BITS = 40
"""A number of fewer bits may be in messages by chance."""
LEAST_BYTES = 16
"""128 bits: the least that stands behind a secret."""


class _Altered(ReplayRandom):
    """Repeatable randomness that keeps all draws; in draw `number` it changes the byte at `place` (None: all bytes), in
    these bits.
    """

    def __init__(self, number: int | None = None, place: int | None = None, bits: int = 0xFF) -> None:
        super().__init__(23)
        self.number, self.place, self.bits = number, place, bits
        self.draws: list[bytes] = []

    @property
    def sizes(self) -> list[int]:
        return [len(drawn) for drawn in self.draws]

    def bytes(self, count: int) -> bytes:
        drawn = bytearray(super().bytes(count))
        if len(self.draws) == self.number:
            for place in range(count) if self.place is None else (self.place,):
                drawn[place] ^= self.bits
        self.draws.append(bytes(drawn))
        return self.draws[-1]


@promised("semi-honest", "min-entropy of keys", pieces=("",), most=1)
def secrets_are_drawn_in_full(subject: Any, data: Any) -> None:
    """Behind every byte that a client sends and that is random there are at least 128 bits that it drew.

    In a black box no draw of fewer is expanded, whatever is added to it. The same session again, with one draw changed,
    or one byte of it: which bytes of clients' messages depend on which draws, and on how much of each.
    """
    random = _Altered()
    messages, wire = _messages(subject, random)
    if not messages:
        raise NotChecked("no message of a client is in the transcript")
    if _messages(subject, _Altered())[0] != messages:
        raise NotVisible(
            "take all randomness from os.urandom or secrets: equal randomness does not give equal messages here, so "
            "that draws cannot be told apart"
        )
    behind: defaultdict[tuple[int, int], int] = defaultdict(int)
    used = []
    for number, drawn in enumerate(random.draws):
        if not drawn or _public(drawn, wire):  # nonces are
            continue
        changed = _redrawn(subject, number, random.sizes) or messages
        # it orders what is sent, or does nothing
        if sorted(map(sorted, changed)) == sorted(map(sorted, messages)):
            continue
        reached = _differences(messages, changed)
        if len(drawn) < LEAST_BYTES and len(reached) >= MASK_BYTES and subject.level == "black":
            raise Finding(
                f"a draw of {8 * len(drawn)} bits reaches {len(reached)} bytes of clients' messages\n"
                f"  draw {number} of the session: a seed has {8 * LEAST_BYTES} bits or more"
            )
        for where in reached:
            behind[where] += len(drawn)
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


def _redrawn(subject: Any, number: int, sizes: list[int]) -> list[bytes] | None:
    """What clients send when one draw is another and all others are the same; None where no change leaves the others
    (a draw that is made again until it suits).
    """
    for bits in (0xFF, 0x80, 0x40, 0xC0, 0x20, 0xA0, 0x60, 0xE0):
        random = _Altered(number, bits=bits)
        changed, _ = _messages(subject, random)
        if random.sizes == sizes:
            return changed
    return None


def _public(drawn: bytes, wire: bytes) -> bool:
    """Whether what was drawn is on the wire: as it is, as text (hex, base64, a number), or as the number that is left
    of it where as many bits were asked for as no whole bytes hold.
    """
    numbers = [int.from_bytes(drawn, "big"), int.from_bytes(drawn, "little")] if 4 <= len(drawn) <= 64 else []
    texts = [drawn.hex(), drawn.hex().upper(), *map(str, numbers)]
    for number in [numbers[0] >> bits for bits in range(1, 8)] if numbers else ():
        if number.bit_length() >= SHIFTED_BITS:
            whole = number.to_bytes(-(-number.bit_length() // 8), "big")
            texts += [f"{number:x}", f"{number:X}", str(number)]
            if whole in wire or whole[::-1] in wire:
                return True
    for lead in range(3):  # bytes before it in the same piece of base64
        inside = base64.b64encode(bytes(lead) + drawn)[-(-4 * lead // 3) :]
        texts.append(inside[: 4 * len(drawn) // 3 - 1].decode())
    if len(drawn) < 4:  # it would be there by chance
        return False
    return drawn in wire or any(len(text) >= 6 and text.encode() in wire for text in texts)


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

    if subject.level == "black":
        return _messages(subject, random)[0] != messages

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
    """What clients send, in order, and all that is sent besides the session's nonce, in one."""
    n = subject.clients[0]
    updates = {i: bytes([i + 1]) * 32 for i in range(n)}
    length = 1 if subject.level == "white" else MASK_BYTES  # so that one that is expanded reaches far
    vectors = [np.array([i, -i] * length, np.int64) % (subject.bound + 1) for i in range(n)]
    played = subject.play(vectors, {}, bound=subject.bound, rng=random, updates=updates, **options)
    sent = [body for sender, _, body in played.transcript if sender.startswith("client ")]
    nonce = played.session.nonce if played.session is not None else b""
    return sent, b"".join(body for _, _, body in played.transcript) + nonce


def _differences(first: list[bytes], second: list[bytes]) -> list[tuple[int, int]]:
    return [
        (number, place)
        for number, (a, b) in enumerate(zip(first, second, strict=False))
        for place, (x, y) in enumerate(zip(a, b, strict=False))
        if x != y
    ]


@promised(
    "semi-honest",
    "pseudorandom generator",
    pieces=("stream seed_bytes", "watch"),
    outside=given.seeds_carry_entropy,
    most=3,
)
def seeds_carry_full_entropy(subject: Any, data: Any) -> None:
    """Every bit of a mask seed reaches the stream, and there are at least 128.

    Streams of seeds that differ in any one bit differ, for every bit of the seed.
    """
    width = subject.hooks.seed_bytes
    hook_of(subject, "stream", UNCALLED)
    given.every_bit_matters(subject, data.draw(st.binary(min_size=width, max_size=width), label="seed"))


@promised("semi-honest", "pseudorandom generator", pieces=("stream seed_bytes",), most=1)
def streams_do_not_collide(subject: Any, data: Any) -> None:
    """Different seeds give different streams, with no collision beyond birthday.

    4096 seeds give 4096 streams. Of a black box up to 2^19, in 10 s: a generator folded to 32 bits collides or repeats.
    """
    stream, width = hook_of(subject, "stream", UNCALLED), subject.hooks.seed_bytes
    most, until = (4096, math.inf) if subject.level == "white" else (MANY, time.process_time() + SECONDS)
    rng, seen, count = np.random.default_rng(0), set[int](), 0
    length = math.ceil(128 / math.log2(getattr(subject, "pieces", Pieces()).modulus or 256))
    late = time.perf_counter() + 3 * SECONDS  # where other work takes the processor
    while count < most and (count < 4096 or (time.process_time() < until and time.perf_counter() < late)):
        seen.add(hash(stream(rng.bytes(width), length).tobytes()))
        count += 1
        if len(seen) != count:
            raise Finding(f"{count} seeds give {len(seen)} streams")
    subject.examined["streams-do-not-collide"] = f"{count} seeds"
