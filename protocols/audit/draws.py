"""What examples are made of: inputs, drop-outs, and how a counterexample is told. No property lives here."""

from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from protocols.audit.prop import Finding
from protocols.audit.subject import Drop, Played, Subject, Vectors

SHOWN = 64
"""Coordinates that a story shows."""


def inputs(subject: Any, data: Any, dimension: int | None = None) -> list[NDArray[np.int64]]:
    """Draw clients' vectors within the subject's bound; extremes are drawn often."""
    low, high = subject.clients
    n = data.draw(st.integers(low, high), label="clients")
    d = dimension or data.draw(st.integers(1, 6), label="dimension")
    value = st.integers(-subject.bound, subject.bound) | st.sampled_from([-subject.bound, subject.bound])
    row = st.lists(value, min_size=d, max_size=d)
    rows = data.draw(st.lists(row, min_size=n, max_size=n), label="inputs")
    return [np.array(row, np.int64) for row in rows]


def drop(subject: Subject, data: Any, clients: int) -> dict[str, set[int]]:
    """Draw who leaves before answering which stage; nobody leaves twice."""
    places, stages = st.integers(0, clients - 1), st.sampled_from(subject.stages)
    leaving = data.draw(st.dictionaries(places, stages, max_size=clients), label="leaving")
    gone: dict[str, set[int]] = {}
    for who, stage in leaving.items():
        gone.setdefault(stage, set()).add(who)
    return gone


def tolerated(subject: Any, gone: Drop, clients: int, dimension: int = 1) -> bool | None:
    """Whether the protocol promises a total; None where it does not say."""
    hooks = getattr(subject, "hooks", None)
    if hooks is None or hooks.tolerated is None:
        return True if not any(gone.values()) else None
    session = subject.session_of(clients, dimension, subject.bound)
    promised: bool | None = hooks.tolerated(session, {k: set(v) for k, v in gone.items()})
    return promised


def small_vectors(clients: int = 5) -> list[NDArray[np.int64]]:
    """Inputs of two coordinates each, for sessions that are played once."""
    return [np.array([i + 1, -i], np.int64) for i in range(clients)]


def exact(vectors: Vectors, survivors: tuple[int, ...]) -> list[int]:
    """The sum in Python's own integers."""
    return [sum(int(vectors[i][j]) for i in survivors) for j in range(len(vectors[0]))]


def wrong(played: Played, vectors: Vectors) -> bool:
    """Whether a total came out that is not the sum over its survivors."""
    return played.total is not None and played.total.tolist() != exact(vectors, tuple(played.survivors))


def short(vector: NDArray[Any]) -> str:
    """A vector for a story: in full, or its beginning and its length."""
    if len(vector) <= SHOWN:
        return str(vector.tolist())
    return f"{str(vector[:SHOWN].tolist())[:-1]}, ...] ({len(vector)} coordinates)"


def tell(
    said: str, vectors: Vectors, gone: Drop | None = None, played: Played | None = None, **more: Any
) -> Finding:
    """Return a Finding that tells the example: inputs, who left, what came out."""
    lines = [said]
    lines += [f"  client {i} put in {short(v)}" for i, v in enumerate(vectors)]
    lines += [f"  {sorted(who)} left before {stage}" for stage, who in (gone or {}).items() if who]
    if played is not None:
        total = None if played.total is None else short(played.total)
        lines.append(f"  total {total} over {list(played.survivors)}")
        lines += [f"  aborted: {played.why}"] if played.why else []
        lines += [f"  {note}" for note in played.notes]
        lines += [f"  {who} refused: {error}" for who, error in played.refusals.items()]
    lines += [f"  {key}: {value}" for key, value in more.items()]
    return Finding("\n".join(lines))
