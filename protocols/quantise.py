"""Quantiser: floats <-> integers in [-B, B], with the proof that a cohort's sum fits. No randomness, no
private data.

Range and step are public and fixed before the session. The step is a power of two, so that a dequantised
sum is exact in double precision (up to 2^53). Nothing saturates silently: clipped coordinates are counted,
and the count is summed inside the protected vector.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocols.errors import CapacityError, Misuse, require

CAPACITY = 1 << 62
FLOOR = 1.0


def expect_bits(bits: int) -> None:
    """Raises Misuse for another number of bits per value than 2 to 32."""
    require(2 <= bits <= 32, "2 to 32 bits per value", bits)


@dataclass(frozen=True)
class Quantiser:
    """Rounds to multiples of `step` (a power of two) in [-range, range], range = B x step, B = 2^(bits-1) - 1.

    bits: 2 to 32.
    """

    bits: int
    step: float

    def __post_init__(self) -> None:
        expect_bits(self.bits)
        if not (0 < self.step < math.inf and math.frexp(self.step)[0] == 0.5):
            raise Misuse(f"expected a power of two as step, got {self.step}")

    @classmethod
    def for_range(cls, bits: int, range: float) -> "Quantiser":
        """Return the quantiser with the smallest step that covers [-range, range], range > 0 and finite."""
        require(0 < range < math.inf, "a positive, finite range", range)
        expect_bits(bits)
        mantissa, exponent = math.frexp(range / ((1 << (bits - 1)) - 1))
        return cls(bits, math.ldexp(1.0, exponent if mantissa > 0.5 else exponent - 1))

    @classmethod
    def for_reference(cls, bits: int, reference: NDArray[np.float64]) -> "Quantiser":
        """Return the quantiser for updates of a public model: range 2 x its largest weight, at least 1."""
        largest = float(np.abs(reference).max()) if reference.size else 0.0
        return cls.for_range(bits, max(FLOOR, 2 * largest))

    @property
    def bound(self) -> int:
        """B: the largest absolute integer."""
        return (1 << (self.bits - 1)) - 1

    @property
    def range(self) -> float:
        return self.bound * self.step

    def encode(self, vector: NDArray[np.float64]) -> tuple[NDArray[np.int64], int]:
        """Return (int64 of the same shape in [-B, B], how many coordinates had to be clipped).

        Rounds to the nearest multiple, ties to even: an unclipped coordinate is off by at most step / 2.
        """
        scaled = np.divide(vector, self.step, dtype=np.float64)
        np.rint(scaled, out=scaled)
        if scaled.size == 0 or max(-float(scaled.min()), float(scaled.max())) <= self.bound:
            return scaled.astype(np.int64), 0
        clipped = int(np.count_nonzero(np.abs(scaled) > self.bound))
        np.clip(scaled, -self.bound, self.bound, out=scaled)
        return scaled.astype(np.int64), clipped

    def decode(self, total: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the real values of a sum of encoded vectors: float64, exact up to 2^53 steps."""
        return np.asarray(total, np.int64).astype(np.float64) * self.step


def prove_capacity(clients: int, weight_cap: int, bound: int) -> int:
    """Return clients x weight_cap x bound after checking that it stays below 2^62 (half of the largest ring).

    Raises CapacityError saying which number to lower.
    """
    if clients < 1 or weight_cap < 1 or bound < 0:
        raise Misuse(
            f"expected clients, weight_cap >= 1 and bound >= 0, got {clients}, {weight_cap}, {bound}"
        )
    largest = clients * weight_cap * bound
    if largest >= CAPACITY:
        raise CapacityError(
            f"{clients} clients x weight cap {weight_cap} x bound {bound} = {largest} does not stay below 2^62: "
            "lower the bits per value, the weight cap or the cohort"
        )
    return largest
