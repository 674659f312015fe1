"""What is checked of black boxes by the pieces that their adapters give (`protocols.audit.pieces`): masks and seeds.

What does not belong here: what needs no piece (`black`), and servers that lie (`tampered`).
"""

import itertools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from protocols.audit.generators import Seeded, recorded
from protocols.audit.prop import Finding, NotChecked
from protocols.audit.properties.freshness import Rows, nothing_in_common
from protocols.audit.reading import SAMPLES, elements_of, modulus_of, rings, stripped_of
from protocols.audit.statistics import Design, chi_square_uniform

STREAM = Design(32 * SAMPLES, tests=1)
NARROW = 1 << 16
"""In rings up to this size every value is waited for."""
SURE = 20
"""So many elements per value of a ring: one that may come fails to with probability e^-20."""
SEEDS, SESSIONS = 128, 64
"""So many seeds are looked at together, of at most so many sessions."""
LEAST_BITS = 128


def ends_come(subject: Any, ring: dict[str, Any], modulus: int) -> None:
    """Raises Finding where the first or the last value of a ring never comes, in many elements of all clients."""
    if modulus > NARROW:
        return
    n = subject.clients[0]
    length = max(SAMPLES, math.ceil(SURE * modulus / n))
    played = subject.play([np.zeros(length, np.int64)] * n, {}, **ring)
    _both_ends(elements_of(subject, played).values(), modulus, "masked elements")


def _both_ends(vectors: Iterable[Any], modulus: int, what: str) -> None:
    values = np.concatenate([np.asarray(v).astype(np.uint64) for v in vectors])
    for end in (0, modulus - 1):
        if values.size >= SURE * modulus and not (values == np.uint64(end)).any():
            raise Finding(f"{what} never take the value {end} of Z_{modulus}\n  none of {values.size} is it")


def stream_is_uniform(subject: Any, data: Any) -> None:
    """The stream over the ring, or over bytes where the ring is not known; a small ring is waited for in full."""
    stream, width, modulus = subject.hooks.stream, subject.hooks.seed_bytes, subject.pieces.modulus or 256
    rng = np.random.default_rng(0)  # seeds for the protocol's own generator: they need not be secret
    seeds = [rng.bytes(width) for _ in range(32)]
    many = max(SAMPLES, math.ceil(SURE * modulus / 32)) if modulus <= NARROW else SAMPLES
    sample = np.concatenate([stream(seed, many) for seed in seeds])
    if int(sample.min()) < 0 or int(sample.max()) >= modulus:
        raise NotChecked(
            f"`stream` gives elements from {sample.min()} to {sample.max()}, the ring is Z_{modulus}"
        )
    p = chi_square_uniform(sample[: STREAM.samples], modulus)
    if p < STREAM.level:
        raise Finding(f"the stream behind the masks is not uniform over Z_{modulus} (p = {p:.2g})")
    _both_ends([sample], modulus, "elements of the stream behind the masks")


def fresh_masks(subject: Any, data: Any) -> None:
    """Masked vectors of three sessions have nothing in common, and no seed of one comes again in another."""
    unseen = []
    if {"elements", "modulus"} <= subject.given:
        for ring in rings(subject):
            nothing_in_common(*_sessions(subject, ring))
    else:
        unseen.append("masked vectors were not compared: give elements= and modulus=")
    if "watch" in subject.given:
        _no_seed_comes_again(subject)
    elif "stripped" not in subject.given:
        unseen.append(
            "own masks were not taken off, so masks of pairs that come again are not seen: give stripped= or watch="
        )
    subject.examined["fresh-masks"] = "; ".join(unseen)


def _sessions(subject: Any, ring: dict[str, Any]) -> tuple[Rows, Rows, int]:
    rows: Rows = []
    residues: Rows = []
    n, modulus = min(max(3, subject.clients[0]), subject.clients[1]), 0  # two clients' masks may be one
    for number in (1, 2, 3):
        played = subject.play([np.zeros(SAMPLES, np.int64)] * n, {}, **ring)
        modulus, story = modulus_of(subject, played), f"session {number}, client"
        rows += [(f"{story} {who}", who, v) for who, v in elements_of(subject, played).items()]
        if subject.hooks.stripped is not None:
            left = sorted(stripped_of(subject, played).items())
            residues += [(f"{story} {who}, own mask off", who, v) for who, v in left]
    return rows[: 3 * 8], residues[: 3 * 8], modulus


def _no_seed_comes_again(subject: Any) -> None:
    first, second = (_seeds(subject, 1) for _ in range(2))
    known = {one.seed: one for one in first}
    for one in second:
        if one.seed is not None and one.seed in known:
            raise Finding(
                f"masks are not fresh: a seed of one session comes again in another\n  {one.what} was given "
                f"the same {len(one.seed)} bytes by {one.caller}"
            )


def seeds_carry_entropy(subject: Any, data: Any) -> None:
    """Seeds that watched functions are given: wide enough, none twice by chance, all of their bits alive.

    Then, where `stream` is given, every bit of a seed reaches the stream.
    """
    if "watch" in subject.given:
        subject.cached("seeds", lambda: _wide_and_apart(_seeds(subject, SESSIONS)))
    if {"stream", "seed_bytes"} <= subject.given:
        every_bit_matters(subject, data.draw(_seed_of(subject.hooks.seed_bytes), label="seed"))


def _seed_of(width: int) -> Any:
    return st.binary(min_size=width, max_size=width)


def every_bit_matters(subject: Any, base: bytes) -> None:
    """Raises Finding where seeds are narrow, or where a bit of one, or a fold of it, does not reach the stream."""
    stream, width = subject.hooks.stream, subject.hooks.seed_bytes
    if 8 * width < LEAST_BITS:
        raise Finding(f"mask seeds have {8 * width} bits, fewer than {LEAST_BITS}")
    reference = stream(base, 64).tobytes()
    for bit in range(8 * width):
        flipped = bytearray(base)
        flipped[bit // 8] ^= 1 << bit % 8
        if stream(bytes(flipped), 64).tobytes() == reference:
            raise Finding(f"bit {bit} of a mask seed does not reach the stream\n  seed {base.hex()}")
    for fold, place in ((by, at) for by in (4, 8, 16) for at in range(width - by)):
        folded = bytearray(base)
        folded[place] ^= 1
        folded[place + fold] ^= 1
        if stream(bytes(folded), 64).tobytes() == reference:
            raise Finding(f"a mask seed is folded to {8 * fold} bits\n  bytes {place} and {place + fold}")


def _seeds(subject: Any, sessions: int) -> list[Seeded]:
    """What watched functions are given in so many sessions, or until there are enough seeds."""
    seen: list[Seeded] = []
    mine: list[Seeded] = []
    with recorded(subject.pieces.watch, mine):
        for number in range(sessions):
            mine.clear()
            subject.play([np.zeros(4, np.int64)] * subject.clients[1], {})
            if not mine:
                raise NotChecked(
                    "no function of `watch=` was called: name those that expand seeds in this process"
                )
            if all(one.seed is None for one in mine):
                raise NotChecked(
                    f"{mine[0].what} of `watch=` is given no bytes and no int: a seed is one of these"
                )
            seen += [one._replace(what=f"{one.what} in session {number}") for one in mine]
            if len({one.seed for one in seen}) >= 4 * SEEDS:
                break
    return seen


def _wide_and_apart(seen: list[Seeded]) -> bool:
    """By maker: the widest seed, bits that never change, seeds of two sessions that are one."""
    for what, group in itertools.groupby(sorted(seen, key=_maker), key=_maker):
        calls = [one for one in group if one.seed is not None]
        width = max(len(one.seed or b"") for one in calls)
        by = f"\n  {what} was called by {calls[0].caller}"
        if 8 * width < LEAST_BITS:
            raise Finding(f"mask seeds have at most {8 * width} bits, fewer than {LEAST_BITS}{by}")
        numbers = {int.from_bytes(one.seed or b"", "big") for one in calls}
        alive = 0
        for number in numbers:
            alive |= number ^ next(iter(numbers))
        if len(numbers) >= SEEDS and alive.bit_count() < LEAST_BITS:
            raise Finding(f"only {alive.bit_count()} bits of {len(numbers)} mask seeds ever change{by}")
        _come_in_one_session(calls, by)
    return True


def _maker(one: Seeded) -> str:
    return one.what.split(" in session ")[0]


def _come_in_one_session(calls: list[Seeded], by: str) -> None:
    sessions: dict[bytes | None, set[str]] = {}
    for one in calls:
        sessions.setdefault(one.seed, set()).add(one.what)
    twice = [seed for seed, where in sessions.items() if len(where) > 1]
    if twice:
        raise Finding(f"{len(twice)} of {len(sessions)} mask seeds come in more than one session{by}")
