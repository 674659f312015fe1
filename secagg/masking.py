"""Masks: a seed's keystream, expanded block by block and added to (or taken from) a vector in place.

A mask is the keystream of AES-128 in counter mode (NIST SP 800-38A, 6.5), read as little-endian words, one
per coordinate and as wide as the ring's words. It is uniform over the word and so over the ring, for every
number of bits: reading exactly b bits per coordinate would save keystream, but cutting them apart costs more
than making whole words. What does not belong here: where seeds come from (`key_agreement`, `shamir`) and who
adds what (`client`, `server`).

A seed is 32 bytes: the key and the first counter block. It must be fresh for every (session, pair, stream),
since one seed gives one keystream. The derived counter block makes tables computed in advance for one fixed
block useless.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from protocols.errors import Misuse
from secagg.ring import Words

SEED_BYTES = 32
"""Length of a mask seed: 16 bytes of AES key, then 16 bytes of first counter block."""

BLOCK_BYTES = 1 << 17
"""Keystream made at a time: stays in the second-level cache, and hides the cost of a call."""

_ZEROS = bytes(BLOCK_BYTES)
_ROOM = 15
"""What `update_into` asks for beyond the length of its input."""


def add_mask(words: Words, seed: bytes) -> None:
    """Add the mask of `seed` to `words` (uint32 or uint64, any length) in place, modulo the word.

    Needs memory for one block, whatever the length. Raises Misuse for a wrong seed length or array.
    """
    _apply(words, seed, 1)


def subtract_mask(words: Words, seed: bytes) -> None:
    """Take the mask of `seed` from `words` in place: undoes `add_mask` exactly. Raises as `add_mask`."""
    _apply(words, seed, -1)


def _apply(words: Words, seed: bytes, sign: Literal[1, -1]) -> None:
    _check(words, seed)
    combine = np.add if sign == 1 else np.subtract
    encryptor = Cipher(algorithms.AES(seed[:16]), modes.CTR(seed[16:])).encryptor()
    block = np.empty(min(BLOCK_BYTES, words.nbytes) + _ROOM, np.uint8)
    stream = block[:-_ROOM].view(words.dtype.newbyteorder("<"))
    zeros = memoryview(_ZEROS)
    for start in range(0, len(words), max(1, len(stream))):
        part = words[start : start + len(stream)]
        encryptor.update_into(zeros[: part.nbytes], block.data)
        combine(part, stream[: len(part)], out=part)
    block.fill(0)  # keystream is as secret as its seed


def _check(words: Words, seed: bytes) -> None:
    if len(seed) != SEED_BYTES:
        raise Misuse(f"a mask seed has {SEED_BYTES} bytes, got {len(seed)}")
    if words.ndim != 1 or words.dtype not in (np.uint32, np.uint64):
        raise Misuse(f"masks apply to uint32 or uint64 vectors, got {words.dtype} of {words.ndim} dimensions")
