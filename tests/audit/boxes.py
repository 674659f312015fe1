"""Black boxes that tests of the audit are made of: a sound one, and ones with a fault each."""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from protocols.audit import BlackBox

Inputs = Sequence[np.ndarray]
Drop = Mapping[str, Collection[int]]
Seen = list[tuple[str, str, Any]]


def leavers(drop: Drop) -> set[int]:
    return {i for who in drop.values() for i in who}


def summed(inputs: Inputs, drop: Drop) -> np.ndarray | None:
    kept = [v for i, v in enumerate(inputs) if i not in leavers(drop)]
    return np.sum(kept, axis=0) if kept else None


def box(body: Callable[[np.ndarray, Drop], Any], named: str = "client {}", **options: Any) -> BlackBox:
    """A black box whose every client sends body(its vector, drop) to the server."""

    def run(inputs: Inputs, drop: Drop) -> tuple[np.ndarray | None, Seen]:
        staying = [i for i in range(len(inputs)) if i not in leavers(drop)]
        return summed(inputs, drop), [(named.format(i), "server", body(inputs[i], drop)) for i in staying]

    return BlackBox(run, **{"name": "box", "tolerated": somebody_stays, **options})


def somebody_stays(clients: int, drop: Drop) -> bool:
    return len(leavers(drop)) < clients


def noise(vector: np.ndarray, drop: Drop) -> bytes:
    """What a good cipher looks like."""
    return os.urandom(8 * len(vector) + 2000)


def sound(**options: Any) -> BlackBox:
    return box(noise, **options)
