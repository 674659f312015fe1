"""Drawing integers from a unimodal distribution under a staircase envelope, vectorised, with a proven
distance.

Belongs here: the table, its alias form and the rejection step, for any `Target`. Does not belong here:
formulas of a particular distribution (`draw_gaussian`, `draw_poisson`).

The line of integers around the mode is cut into blocks of m = 2^b neighbours. Block k has an integer weight
w_k that is at least S p(x) for every x in it. A draw takes block k with probability w_k / (columns * 2^53)
(alias method on exact integers; what is left over is a rejection), x uniform in the block from b bits, and
keeps x with probability S p(x) / w_k. What is kept has probability proportional to p(x) exactly, whatever
the weights are: floating-point error in the table costs speed and never correctness. The keep test compares
a uniform U, known to R = 64 - b bits, with a probability a, known up to `Target.error`. Where these do not
decide, `_keep_exactly` takes 128 more bits and decimals of 80 digits, and errs with probability below
2^-120 (this is where "exact" ends). The mass that lies beyond the table is below 2^-105 (`Target.low`,
`Target.high`). Hence `SAMPLER_DISTANCE`, in total variation, per draw.

The running time of a rejection sampler depends on what it draws; whoever can time single draws learns about
the noise.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, localcontext

import numpy as np
from numpy.typing import NDArray

from protocols.errors import Misuse, require
from protocols.randomness import SecureRandom

SAMPLER_DISTANCE = 2.0**-100
"""Bound on the total variation distance between one draw of any sampler here and the distribution it stands
for."""

_FRACTION_BITS = 53
_FRACTION_MASK = np.uint64((1 << _FRACTION_BITS) - 1)
_COLUMN_BITS = 64 - _FRACTION_BITS
_COLUMNS = 1 << _COLUMN_BITS
_CHUNK = 1 << 15
_SAFETY = 2.0**-30

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Words = NDArray[np.uint64]


@dataclass(frozen=True)
class Target:
    """A distribution on the integers that rises up to `mode` and falls from there.

    `log_weight(x)` gives log p(x) up to a common constant, at most 0, for float64 or int64 arrays, with an
    absolute error of at most `error`; `exact(x)` gives the same for one integer, under the decimal context
    it is called in, with relative error of exp() below 1e-45. Less than 2^-105 of the mass lies outside
    [low, high].
    """

    mode: int
    low: int
    high: int
    error: float
    log_weight: Callable[[Integers], Floats]
    exact: Callable[[int], Decimal]


@dataclass(frozen=True)
class Envelope:
    """The table for one target; make it with `build` and keep it, it holds no secret. Not for other modules
    to alter."""

    target: Target
    shift: int
    start: Integers
    weight: Words
    scale: float
    log_ratio: Floats
    surely: Words
    threshold: Words
    alias: NDArray[np.intp]

    def draw(self, random: SecureRandom, count: int) -> Integers:
        """Return `count` >= 0 independent draws, int64. Raises Misuse for a negative count."""
        require(count >= 0, "a count of at least 0", count)
        out = np.empty(count, dtype=np.int64)
        filled = 0
        while filled < count:
            kept = self._some(random, min(_CHUNK, (count - filled) + (count - filled) // 16 + 16))
            take = min(kept.size, count - filled)
            out[filled : filled + take] = kept[:take]
            filled += take
        return out

    def _some(self, random: SecureRandom, proposals: int) -> Integers:
        words = np.frombuffer(random.bytes(16 * proposals), dtype="<u8").astype(np.uint64, copy=False)
        first, second = words[:proposals], words[proposals:]
        column = (first >> np.uint64(_FRACTION_BITS)).astype(np.intp)
        block = np.where(first & _FRACTION_MASK < self.threshold[column], column, self.alias[column])
        rest = second >> np.uint64(self.shift)
        inside = (second & np.uint64((1 << self.shift) - 1)).astype(np.int64)
        x = self.start[block] + inside
        keep = rest < self.surely[block]
        unsure = np.flatnonzero(~keep & (self.weight[block] > 0))
        keep[unsure] = self._keep(random, x[unsure], block[unsure], rest[unsure])
        return x[keep]

    def _keep(
        self, random: SecureRandom, x: Integers, block: NDArray[np.intp], rest: Words
    ) -> NDArray[np.bool_]:
        unit = 2.0 ** -(64 - self.shift)
        probability = np.exp(self.target.log_weight(x) + self.log_ratio[block])
        below = rest.astype(np.float64) * unit
        margin = self.target.error + 2 * unit + _SAFETY * 2.0**-10
        keep = below < probability
        for i in np.flatnonzero(np.abs(probability - below) <= margin):
            keep[i] = self._keep_exactly(random, int(x[i]), int(self.weight[block[i]]), int(rest[i]))
        return keep

    def _keep_exactly(self, random: SecureRandom, x: int, weight: int, rest: int) -> bool:
        more = 128
        numerator = (rest << more) | int.from_bytes(random.bytes(more // 8), "little")
        with localcontext() as context:
            context.prec = 80
            probability = Decimal(self.scale) * self.target.exact(x).exp() / weight
            return Decimal(numerator) < probability * (1 << (64 - self.shift + more))


def build(target: Target) -> Envelope:
    """Return the table of `target`. Raises Misuse where its range is so wide that a block would exceed 2^40
    integers."""
    wide = max(target.high - target.mode, target.mode - target.low) + 1
    shift = max(0, math.ceil(math.log2(2 * wide / (_COLUMNS - 4))))
    if shift > 40:
        raise Misuse(
            f"the spread is too large to sample: {wide} integers on one side of the mode; at most 2^50 are supported"
        )
    size = 1 << shift
    right = -(-(target.high - target.mode + 1) // size)
    left = -(-(target.mode - target.low) // size)
    blocks = left + right
    start = np.zeros(_COLUMNS, dtype=np.int64)
    start[:blocks] = target.mode + size * np.arange(-left, right, dtype=np.int64)
    ends = start[:blocks] + (size - 1)
    rising = np.arange(blocks) < left
    near, far = np.where(rising, ends, start[:blocks]), np.where(rising, start[:blocks], ends)
    slack = target.error + _SAFETY
    highest = np.exp(target.log_weight(near)) * math.exp(2 * slack)
    total = float(_COLUMNS << _FRACTION_BITS)
    scale = math.floor((total - 4.0 * _COLUMNS) / (float(highest.sum()) * (1 + _SAFETY)))
    weight = np.zeros(_COLUMNS, dtype=np.uint64)
    weight[:blocks] = np.floor(scale * highest).astype(np.uint64) + np.uint64(1)
    log_ratio = np.zeros(_COLUMNS)
    log_ratio[:blocks] = math.log(scale) - np.log(weight[:blocks].astype(np.float64))
    lowest = np.exp(target.log_weight(far) + log_ratio[:blocks]) * math.exp(-2 * slack)
    surely = np.zeros(_COLUMNS, dtype=np.uint64)
    surely[:blocks] = np.floor(np.minimum(lowest, 1.0) * 2.0 ** (64 - shift) * (1 - _SAFETY)).astype(
        np.uint64
    )
    threshold, alias = _alias_table([int(w) for w in weight])
    return Envelope(target, shift, start, weight, float(scale), log_ratio, surely, threshold, alias)


def _alias_table(weights: list[int]) -> tuple[Words, NDArray[np.intp]]:
    """Walker's alias table on exact integers; the last, weightless column takes the rest and stands for a
    rejection."""
    full = 1 << _FRACTION_BITS
    weights = list(weights)
    if weights[-1] != 0:
        raise AssertionError("the last column is kept free for rejections")
    weights[-1] = len(weights) * full - sum(weights)
    if weights[-1] < 0:
        raise AssertionError("block weights exceed the table")
    threshold = np.full(len(weights), full, dtype=np.uint64)
    alias = np.arange(len(weights), dtype=np.intp)
    small = [i for i, w in enumerate(weights) if w < full]
    large = [i for i, w in enumerate(weights) if w >= full]
    while small:
        low, high = small.pop(), large[-1]
        threshold[low], alias[low] = weights[low], high
        weights[high] -= full - weights[low]
        if weights[high] < full:
            small.append(large.pop())
    return threshold, alias
