"""Training metrics leak too: they go through the secure sum, as a weighted mean in fixed point, or nowhere.

A metric takes three integers: high and low half of round(value x 2^20) times the weight, and the weight if
it was there. From 16 bits per value on, each stays within the bound of the vector's own coordinates; with fewer bits
the ring is as wide as 16 bits make it.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from protocols.layers import Coordinate

BITS = 14  # of each half; |value| < 2^8, resolution 2^-20
LIMIT = (1 << 2 * BITS) - 1
STEP = 2.0**-20
MOST = 256
"""What a metric may be, either way, to be summed."""
PREFIX = "metric/"


def coordinates(names: Sequence[str], weight_cap: int) -> tuple[Coordinate, ...]:
    """Return the named coordinates of these metrics."""
    return tuple(Coordinate(PREFIX + name, 3, (1 << BITS) * weight_cap) for name in names)


def encode(metrics: Mapping[str, float], names: Sequence[str], weight: int) -> dict[str, NDArray[np.int64]]:
    """Return name -> int64 [3]. A metric that is absent, not finite or beyond +-MOST is left out."""
    block: dict[str, NDArray[np.int64]] = {}
    for name in names:
        value = metrics.get(name)
        units = None if value is None or not abs(value) <= MOST else round(value / STEP)
        if units is None or abs(units) > LIMIT:
            block[PREFIX + name] = np.zeros(3, np.int64)
            continue
        high, low = divmod(abs(units), 1 << BITS)
        sign = -1 if units < 0 else 1
        block[PREFIX + name] = np.array([sign * high, sign * low, 1], np.int64) * weight
    return block


def decode(totals: Mapping[str, NDArray[np.int64]], names: Sequence[str]) -> dict[str, float]:
    """Return the weighted mean of each metric over the survivors that had it."""
    means: dict[str, float] = {}
    for name in names:
        total = totals.get(PREFIX + name)
        if total is not None and int(total[2]) > 0:
            high, low, weight = (int(x) for x in total)
            means[name] = (high * (1 << BITS) + low) * STEP / weight
    return means
