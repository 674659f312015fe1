"""What a user's loop draws (dropout, noise, augmentation) beside a layer that clips the rows of single examples: whole
states of its generators, from the operating system.

With draws that are known, or that can be found by trying all seeds, one example more would shift those of all others,
and every row with them; secret ones are alike in distribution whoever else is in the batch. torch's generator on a
processor takes 32 bits of a seed, and its state has 19,937. No noise here: a layer's own never follows these.
"""

import functools
import random as python_random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from dp.sample.errors import UnaccountedStep
from protocols.randomness import SystemRandom

_WORDS = 624
SEEDED = (
    "the loop seeds torch's generator: dropout and noise then follow numbers that others know, and one example more "
    "shifts those of all others. Leave out torch.manual_seed in the loop; nothing is sent"
)


@functools.cache
def accelerated() -> bool:
    """Whether torch has an accelerator here."""
    return bool(torch.accelerator.is_available())


def seed_torch(seed: int) -> None:
    """Seed torch's generators: of the processor alone where there is no accelerator, for torch looks for every kind
    of them each time, which takes longer than a step of a small model.
    """
    (torch.manual_seed if accelerated() else torch.default_generator.manual_seed)(seed)


def draw_secretly() -> None:
    """Give torch's, NumPy's and Python's global generators states from the operating system: all 624 words of a
    Mersenne Twister, 63 bits of seed and 60 of offset of a GPU's counter (Philox).
    """
    seed_torch(int.from_bytes(SystemRandom().bytes(8), "big") >> 1)
    state = torch.get_rng_state()
    state.view(torch.int64)[3 : 3 + _WORDS] = torch.from_numpy(_words().astype(np.int64))
    torch.set_rng_state(state)
    if torch.cuda.is_available():
        torch.cuda.init()  # type: ignore[no-untyped-call]  # torch has not typed it
        for generator in torch.cuda.default_generators:
            generator.set_offset(4 * (int.from_bytes(SystemRandom().bytes(8), "big") >> 4))
    np.random.set_state(("MT19937", _words(), _WORDS, 0, 0.0))
    python_random.setstate((3, (*_words().tolist(), _WORDS), None))


def _words() -> Any:
    return np.frombuffer(SystemRandom().bytes(4 * _WORDS), np.uint32)


class Worker:
    """Starts a worker process of a loader, which torch gives a seed of 32 bits. given: the user's own function, or
    None."""

    def __init__(self, given: Callable[[int], Any] | None) -> None:
        self.given = given

    def __call__(self, number: int) -> None:
        draw_secretly()
        if self.given is not None:
            self.given(number)


def insist_unseeded(before: int) -> None:
    """Raises UnaccountedStep where torch's generator was seeded since `torch.initial_seed()` was `before`."""
    if torch.default_generator.initial_seed() != before:
        raise UnaccountedStep(SEEDED)
