"""Everything repeatable follows from the user's seed through here: data order, initialisation, who leaves.

What does not belong here: keys, masks, noise and any sampling whose amplification is claimed; those never
follow a seed. A seed depends on its purpose, round and client alone, so that a resumed run goes on exactly
as it would have.
"""

import hashlib
import random as python_random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from dp.sample.draws import accelerated, draw_secretly, seed_torch


def derive(seed: int, *labels: object) -> int:
    """Return 63 bits that follow from the seed and the labels alone."""
    text = "\0".join([str(seed), *map(str, labels)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *labels: object) -> np.random.Generator:
    return np.random.default_rng(derive(seed, *labels))


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Seed torch's, NumPy's and Python's global generators for the user's loop; put them back afterwards. None: with
    whole states from the operating system.
    """
    numpy_state, python_state = np.random.get_state(), python_random.getstate()
    with torch.random.fork_rng(None if accelerated() else ()):
        if seed is None:
            draw_secretly()
        else:
            seed_torch(seed)
            np.random.seed(seed & 0xFFFFFFFF)  # the user's own loop may draw from the global one
            python_random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            python_random.setstate(python_state)
