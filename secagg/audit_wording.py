"""How a lying server words its requests, from genuine ones: other clients in a list, other dealers.

What does not belong here: which lie is told (`audit_forgeries`, `audit_search`). No protocol code uses this.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from itertools import compress
from typing import Any, TypeVar, cast

from secagg import messages as wire
from secagg.messages import indices, items

L = TypeVar("L", bound=wire.Body)


def listing(told: L, given: Mapping[int, bytes]) -> L:
    """The request with these clients, in this order, and what it gives of each: a commitment, or keys."""
    what = "commitments" if isinstance(told, wire.Commitments) else "keys"
    made: L = replace(cast(Any, told), **{"clients": indices(given), what: b"".join(given.values())})
    return made


def delivered(told: wire.Delivery, dealt: Sequence[int], some: Container[int], bits: bytes) -> wire.Delivery:
    """The delivery with other dealers (`bits`), and what some of those dealt who dealt to its recipient (`dealt`)."""
    kept, size = [j in some for j in dealt], max(1, len(dealt))
    both = (items(part, len(part) // size) for part in (told.boxes, told.digests))
    return wire.Delivery(bits, *(b"".join(compress(each, kept)) for each in both))
