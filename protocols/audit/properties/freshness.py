"""Whether masked vectors of zeros have anything in common. What does not belong here: how they are come by."""

import itertools
from typing import Any

import numpy as np

from protocols.audit.prop import Finding
from protocols.audit.reading import SAMPLES
from protocols.audit.statistics import Design, chi_square_uniform

FRESH = Design(SAMPLES // 2, tests=600)
Rows = list[tuple[str, int, Any]]
"""Story, client, ring elements."""


def nothing_in_common(rows: Rows, residues: Rows, modulus: int) -> None:
    """Raises Finding where a difference is not uniform. residues: what own masks leave of rows."""
    for story, difference in _differences(rows, residues, modulus):
        p = chi_square_uniform(difference, modulus)
        if p < FRESH.level:
            raise Finding(f"masks are not fresh (p = {p:.2g})\n  {story}: their difference is not uniform")


def _differences(rows: Rows, residues: Rows, modulus: int) -> list[tuple[str, Any]]:
    pairs = list(itertools.combinations(rows, 2))
    # within one round the residues sum to zero by design; one client's of two rounds have nothing in common
    pairs += [(a, b) for a, b in itertools.combinations(residues, 2) if a[1] == b[1]]
    found = [(f"{a[0]} against {b[0]}", _minus(a[2], b[2], modulus)) for a, b in pairs]
    for who, _, v in rows:
        half = len(v) // 2
        found.append((f"{who}: neighbouring coordinates", _minus(v[1:], v[:-1], modulus)[::2]))
        found.append((f"{who}: the halves of its vector", _minus(v[half : 2 * half], v[:half], modulus)))
    return found


def _minus(one: Any, other: Any, modulus: int) -> Any:
    """The difference in the ring; of 2^64 it is what uint64 gives."""
    if modulus & (modulus - 1) == 0:
        return (one - other) & np.uint64(modulus - 1)
    return np.where(one >= other, one - other, one + (np.uint64(modulus) - other))
