"""Masks: uniform over the whole ring, fresh, bound to their session. What does not belong here: seeds (`entropy`)."""

from typing import Any

import numpy as np

from protocols.audit.prop import Finding, NotChecked, promised
from protocols.audit.properties import given
from protocols.audit.properties.freshness import FRESH, Rows, nothing_in_common
from protocols.audit.properties.given import STREAM
from protocols.audit.reading import (
    SAMPLES,
    SMALL,
    UNCALLED,
    WIDE,
    elements_of,
    hook_of,
    input_bodies,
    modulus_of,
    rings,
)
from protocols.audit.repeatable import ReplayRandom
from protocols.audit.statistics import Design, chi_square_uniform
from protocols.kernel import SERVER
from protocols.randomness import SystemRandom
from protocols.runtime import recall

N = 3
UNIFORM = Design(SAMPLES, tests=2 * N)


@promised("semi-honest", "one-time pad", pieces=("elements modulus",), statistics=str(UNIFORM))
def uniform_over_the_ring(subject: Any, data: Any) -> None:
    """Masked vectors are uniform over the whole ring.

    Chi-square of masked elements over a small ring and a wide one, per client: one short of the modulus would show,
    and bits that no mask covers.
    """
    for ring in rings(subject):
        played = subject.play([np.zeros(SAMPLES, np.int64)] * max(N, subject.clients[0]), {}, **ring)
        modulus = modulus_of(subject, played)
        for who, values in list(elements_of(subject, played).items())[:N]:
            p = chi_square_uniform(values, modulus)
            if p < UNIFORM.level:
                raise Finding(
                    f"masked elements are not uniform over Z_{modulus} (p = {p:.2g})\n"
                    f"  client {who}, {SAMPLES} coordinates, the first: {values[:8].tolist()}"
                )
        if subject.level == "black":
            given.ends_come(subject, ring, modulus)


@promised(
    "semi-honest",
    "one-time pad",
    pieces=("elements modulus", "watch"),
    outside=given.fresh_masks,
    statistics=str(FRESH),
)
def fresh_masks(subject: Any, data: Any) -> None:
    """Masks are fresh across coordinates, clients, rounds and retries.

    Differences of masked vectors between coordinates, clients, rounds and retries look like fresh masks.
    """
    for bound in (SMALL, WIDE):
        rows, residues, modulus = _rounds(subject, bound)
        nothing_in_common(rows, residues, modulus)


def _rounds(subject: Any, bound: int) -> tuple[Rows, Rows, int]:
    """Masked vectors of zeros of four rounds, the last one again after its first session was aborted when all
    vectors had come; and what is left of them once the server took own masks off.
    """
    stores = subject.stores(N)
    rows: Rows = []
    residues: Rows = []
    modulus = 0
    for play, (number, gone) in enumerate([(1, 0), (2, 0), (3, 0), (4, N), (4, 0)]):
        session = subject.protocol.session(
            [str(i) for i in range(N)],
            SAMPLES,
            bound,
            random=SystemRandom(),
            simulated=True,
            round=number,
            memory=recall(stores[str(SERVER)], subject.protocol),
        )
        updates = {i: bytes([play, i]) * 16 for i in range(N)}
        leaving = {subject.stages[-1]: set(range(gone))}
        zeros = [np.zeros(SAMPLES, np.int64)] * N
        played = subject.play(zeros, leaving, session=session, stores=stores, updates=updates)
        played.session = session
        modulus = modulus_of(subject, played)
        story = f"round {number}{', aborted' if gone else ''}"
        for who, v in sorted(elements_of(subject, played).items()):
            rows.append((f"{story}, client {who}", who, v))
        if subject.hooks.stripped is not None and not gone:
            left = subject.hooks.stripped(session, played.messages, {})
            residues += [(f"{story}, client {who}, own mask off", who, v) for who, v in sorted(left.items())]
    return rows, residues, modulus


@promised("semi-honest", "key separation", most=1)
def context_enters_masks(subject: Any, data: Any) -> None:
    """Every mask depends on the session's context, so on roster, configuration and model.

    The same randomness in a session over another model gives other masks: the context reaches every seed.
    """
    n = subject.clients[0]
    zeros = [np.zeros(8, np.int64)] * n
    updates = {k: bytes([k]) * 32 for k in range(n)}
    plays = [
        subject.play(zeros, {}, bound=1 << 20, rng=ReplayRandom(7), updates=updates, model=model)
        for model in (bytes(32), b"\x01" * 32)
    ]
    sent = [_masked(subject, played) for played in plays]
    if not sent[0]:
        raise NotChecked("no client sent its input")
    for who in sent[0]:
        if sent[0][who] == sent[1][who]:
            raise Finding(
                f"the session's context does not enter masks\n  client {who} masks alike for two models"
            )


def _masked(subject: Any, played: Any) -> dict[Any, bytes]:
    """What each client sent as its input; of that, what masks cover, where the protocol says which part it is."""
    if subject.hooks.elements is None:
        return dict(input_bodies(subject, played))
    return {who: values.tobytes() for who, values in elements_of(subject, played).items()}


@promised(
    "semi-honest",
    "pseudorandom generator",
    pieces=("stream seed_bytes",),
    outside=given.stream_is_uniform,
    statistics=str(STREAM),
)
def stream_is_uniform(subject: Any, data: Any) -> None:
    """The stream behind the masks is uniform over bytes.

    Chi-square of the bytes of many streams.
    """
    stream, width = hook_of(subject, "stream", UNCALLED), subject.hooks.seed_bytes
    sample = np.concatenate([stream(bytes([k]) * width, SAMPLES) for k in range(32)])
    p = chi_square_uniform(sample, 256)
    if p < STREAM.level:
        raise Finding(f"the stream behind the masks is not uniform over bytes (p = {p:.2g})")
