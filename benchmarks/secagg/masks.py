"""How near mask expansion is to the machine's limit: the same cipher and the same addition, in the tightest loop
there is.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from benchmarks.harness import measure_together
from secagg.masks import BLOCK_BYTES, SEED_BYTES, TOGETHER, apply_masks
from secagg.ring import Ring

_LIMIT_BYTES = 32 * BLOCK_BYTES
_LEAST = 100_000
"""Shorter vectors are measured at this length: there the call costs more than the stream."""


def mask_speed(dim: int, ring_bits: int, clock: Callable[[], float] = time.perf_counter) -> dict[str, float]:
    """GB/s of keystream alone, of keystream plus addition in one block that never leaves the cache, and of our masks.

    `mask_share_of_limit` is ours over keystream plus addition, all three measured in turn in one run.
    """
    words = np.zeros(max(dim, _LEAST), Ring(ring_bits).dtype)
    seed = os.urandom(SEED_BYTES)
    encryptor = Cipher(algorithms.AES(seed[:16]), modes.CTR(seed[16:])).encryptor()
    zeros, block = bytes(BLOCK_BYTES), np.zeros(BLOCK_BYTES + 15, np.uint8)
    stream = block[:BLOCK_BYTES].view(words.dtype)
    sums = np.zeros_like(stream)
    blocks = range(_LIMIT_BYTES // BLOCK_BYTES)

    def keystream() -> None:
        for _ in blocks:
            encryptor.update_into(zeros, block.data)

    def keystream_plus_add() -> None:
        for _ in blocks:
            encryptor.update_into(zeros, block.data)
            np.add(sums, stream, out=sums)

    seeds = [os.urandom(SEED_BYTES) for _ in range(TOGETHER)]  # as a party applies them: many to one vector

    def masks() -> None:
        apply_masks(words, seeds, ())

    works = {"keystream": keystream, "keystream_plus_add": keystream_plus_add, "masks": masks}
    times = measure_together(works, repeats=15, clock=clock)
    limit = _LIMIT_BYTES / times["keystream_plus_add"].median_s / 1e9
    ours = TOGETHER * words.nbytes / times["masks"].median_s / 1e9
    return {
        "keystream_gb_per_s": _LIMIT_BYTES / times["keystream"].median_s / 1e9,
        "keystream_plus_add_gb_per_s": limit,
        "mask_gb_per_s": ours,
        "mask_share_of_limit": ours / limit,
    }
