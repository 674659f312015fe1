"""Integers that every client reports beside its update: steps, examples, votes. Summed exactly, or not at all.

What does not belong here: real values that noise may cover; those are blocks (`protocols.layers.Block`).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocols.codec import Record
from protocols.errors import Misuse, StackError
from protocols.layers import Coordinate

PREFIX = "count/"


@dataclass(frozen=True)
class Count(Record):
    """An integer in [-bound, bound] that every client reports. public: its value, where that is known and the same for
    all. Beside a layer that allows nothing exact, clients do not send a public count, and any other count is refused.
    """

    name: str
    bound: int
    public: int | None = None


def coordinates(counts: Sequence[Count]) -> tuple[Coordinate, ...]:
    """Return the coordinates that hold them."""
    return tuple(Coordinate(PREFIX + count.name, 1, count.bound) for count in counts)


def require(sums: Collection[str], counts: Sequence[Count], noisy: str) -> None:
    """Raises StackError for a count that `noisy`, a layer, does not let through and that is not public. sums: what is
    summed exactly.
    """
    for count in counts:
        if PREFIX + count.name not in sums and count.public is None:
            raise StackError(
                f"the count {count.name!r} would be summed exactly, and the noise of {noisy} does not cover it: give "
                "its public value, or send it as a block of one dimension, which the layer clips, noises and charges"
            )


def encode(counts: Sequence[Count], own: Mapping[str, int]) -> dict[str, NDArray[np.int64]]:
    """Return name -> int64 [1]. Raises Misuse for a count that is missing or unknown, or is not its public value."""
    if own.keys() != {count.name for count in counts}:
        raise Misuse(f"expected the counts {[count.name for count in counts]}, got {sorted(own)}")
    for count in counts:
        if count.public is not None and own[count.name] != count.public:
            raise Misuse(f"the count {count.name!r} is publicly {count.public}, and another one here")
    return {PREFIX + name: np.array([value], np.int64) for name, value in own.items()}


def decode(
    totals: Mapping[str, NDArray[np.int64]], counts: Sequence[Count], survivors: int
) -> dict[str, int]:
    """Return the sum of each count over the survivors."""
    return {
        count.name: int(totals[PREFIX + count.name][0])
        if PREFIX + count.name in totals
        else (count.public or 0) * survivors
        for count in counts
    }
