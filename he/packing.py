"""Many integers in the digits of one: how vectors fit into plaintexts that are integers modulo n. No
encryption belongs here.

A slot of w bits holds a digit of at most 2^(w-1) - 1 in absolute value; a plaintext is the sum of digit_i
2^(r + w i) over s slots, with r low bits kept free. Sums of plaintexts are plaintexts of the sums as long
as every sum of digits keeps within its slot: that is what `slot_bits` proves from the cohort and the bound,
so no carry ever crosses. Digits are signed, without an offset: a plaintext with one slot and r = 0 is the
value itself, which plain phe decrypts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocols.errors import CapacityError, PeerError, require

Values = NDArray[np.int64] | NDArray[np.object_]
"""Digits: int64, or Python integers where a slot is wider than 64 bits."""


def slot_bits(largest_sum: int) -> int:
    """Return the least width w whose digits hold every sum: 2^(w-1) - 1 >= largest_sum >= 0."""
    return largest_sum.bit_length() + 1


@dataclass(frozen=True)
class Packing:
    """A layout: `width` bits per slot, `slots` per plaintext, `reserved` low bits that stay zero.

    Every packed plaintext, and every sum whose digits keep within their slots, is smaller than 2^(reserved
    + width x slots - 1) in absolute value.
    """

    width: int
    slots: int
    reserved: int = 0

    @classmethod
    def fit(cls, plaintext_bits: int, largest_sum: int, dimension: int, reserved: int = 0) -> "Packing":
        """Return the layout with as many slots as fit into plaintexts in (-2^(plaintext_bits - 1),
        2^(plaintext_bits - 1)).

        Raises CapacityError where not even one slot fits, Misuse for an empty vector.
        """
        require(dimension >= 1, "a vector of at least one value", f"dimension {dimension}")
        width = slot_bits(largest_sum)
        slots = (plaintext_bits - reserved) // width
        if slots < 1:
            raise CapacityError(
                f"sums of up to {largest_sum.bit_length()} bits need slots of {width} bits, the key offers "
                f"{plaintext_bits - reserved}: use a longer key, a smaller modulus or fewer bits"
            )
        return cls(width, min(slots, dimension), reserved)

    def plaintexts(self, dimension: int) -> int:
        """How many plaintexts a vector of `dimension` takes."""
        return -(-dimension // self.slots)

    @property
    def largest(self) -> int:
        """The largest absolute value of a digit."""
        return (1 << (self.width - 1)) - 1

    def pack(self, values: Values | Sequence[int]) -> list[int]:
        """Return the plaintexts of a vector: int64, or Python integers of any size within +-`largest`."""
        rows = self._rows(values)
        bits = np.unpackbits(rows, axis=1, bitorder="little")[:, : self.width]
        padded = np.zeros((self.plaintexts(len(values)) * self.slots, self.width), np.uint8)
        padded[: len(bits)] = bits
        # Empty slots hold digit 0, which is the offset's bit like every other digit's.
        padded[len(bits) :, -1] = 1
        packed = np.packbits(padded.reshape(-1, self.slots * self.width), axis=1, bitorder="little")
        offset = self._offset()
        return [(int.from_bytes(row.tobytes(), "little") - offset) << self.reserved for row in packed]

    def unpack(self, plaintexts: Sequence[int], dimension: int) -> Values:
        """Return the digits: int64, or Python integers in an object array where a slot is wider than 64
        bits.

        Raises PeerError for plaintexts that no honest sum gives: reserved bits that are not zero, or digits
        beyond the slots.
        """
        bits = self.slots * self.width
        size, offset = (bits + 7) // 8, self._offset()
        data = b"".join(self._digits(m, offset, bits).to_bytes(size, "little") for m in plaintexts)
        table = np.frombuffer(data, np.uint8).reshape(len(plaintexts), size)
        digits = np.unpackbits(table, axis=1, bitorder="little")[:, :bits].reshape(-1, self.width)[:dimension]
        rows = np.packbits(digits, axis=1, bitorder="little")
        if self.width <= 64:
            wide = np.zeros((len(rows), 8), np.uint8)
            wide[:, : rows.shape[1]] = rows
            return (wide.view("<u8").ravel() - np.uint64(1 << (self.width - 1))).view(np.int64)
        half = 1 << (self.width - 1)
        return np.array([int.from_bytes(row.tobytes(), "little") - half for row in rows] + [None], object)[
            :-1
        ]

    def _digits(self, plaintext: int, offset: int, bits: int) -> int:
        if plaintext & ((1 << self.reserved) - 1):
            raise PeerError(
                "the opened sum's reserved bits are not zero: it is not the sum of what the clients sent"
            )
        digits = (plaintext >> self.reserved) + offset
        if not 0 <= digits < 1 << bits:
            raise PeerError("the opened sum exceeds its slots: it is not the sum of what the clients sent")
        return digits

    def _offset(self) -> int:
        """The plaintext (without reserved bits) whose every digit is 2^(width - 1)."""
        ones = ((1 << (self.width * self.slots)) - 1) // ((1 << self.width) - 1)
        return ones << (self.width - 1)

    def _rows(self, values: Values | Sequence[int]) -> NDArray[np.uint8]:
        """Return each value plus 2^(width - 1) as little-endian bytes, one row each."""
        if self.width <= 64:
            shifted = np.asarray(values, np.int64).view(np.uint64) + np.uint64(1 << (self.width - 1))
            return np.ascontiguousarray(shifted, "<u8").view(np.uint8).reshape(-1, 8)
        half, size = 1 << (self.width - 1), (self.width + 7) // 8
        data = b"".join((int(v) + half).to_bytes(size, "little") for v in values)
        return np.frombuffer(data, np.uint8).reshape(-1, size)
