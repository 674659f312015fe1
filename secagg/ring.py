"""The ring Z_{2^b} and how its elements lie in memory. What does not belong here: masks, byte strings, capacities.

Elements are kept in unsigned machine words of w = 32 bits (b <= 32) or 64 bits. Because 2^b divides 2^w, sums of words
may overflow freely: they are exact modulo 2^w and so modulo 2^b, and are reduced once, when they are packed or read.
Masks are uniform over the whole word, hence uniform over the whole ring.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from protocols.errors import Misuse
from protocols.summation import centred

Words = NDArray[np.unsignedinteger[Any]]
"""Ring elements in words: one dimension, dtype uint32 or uint64 as `Ring.dtype` says, C-contiguous."""


@dataclass(frozen=True)
class Ring:
    """The integers modulo 2^bits, 1 <= bits <= 64. Raises Misuse outside that range."""

    bits: int

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 64:
            raise Misuse(f"a ring has 1 to 64 bits, got {self.bits}")

    @property
    def dtype(self) -> np.dtype[Any]:
        """The word that holds an element: uint32 up to 32 bits, uint64 above."""
        return np.dtype(np.uint32 if self.bits <= 32 else np.uint64)

    @property
    def modulus(self) -> int:
        return 1 << self.bits

    def packed_bytes(self, dimension: int) -> int:
        """Bytes of a packed vector of `dimension` elements: ceil(dimension * bits / 8)."""
        return (dimension * self.bits + 7) // 8

    def embed(self, vector: ArrayLike) -> Words:
        """Integers (any width, any sign) as ring elements, in fresh words; the residue modulo 2^bits is what counts.

        Raises Misuse unless `vector` is a one-dimensional array of integers.
        """
        array = np.asarray(vector)
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise Misuse(f"expected a vector of integers, got {array.dtype} of {array.ndim} dimensions")
        # Integer casts between C types keep the residue modulo 2^64 (two's complement), hence modulo 2^bits.
        return array.astype(self.dtype)

    def residues(self, words: Words) -> NDArray[np.uint64]:
        """The elements as integers in [0, 2^bits)."""
        self.check(words)
        return words.astype(np.uint64) & np.uint64(self.modulus - 1)

    def centred(self, words: Words) -> NDArray[np.int64]:
        """The elements as integers in [-2^(bits-1), 2^(bits-1)): what a bounded sum of signed integers is."""
        self.check(words)
        return centred(words.astype(np.uint64), self.modulus)

    def check(self, words: Words) -> None:
        """Raise Misuse unless `words` is an array that this ring's functions take."""
        if words.ndim != 1 or words.dtype != self.dtype or not words.flags.c_contiguous:
            raise Misuse(
                f"expected contiguous {self.dtype} words of a ring of {self.bits} bits, "
                f"got {words.dtype} of shape {words.shape}"
            )
