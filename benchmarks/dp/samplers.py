"""Case `samplers`: draws of discrete noise per second of one core, from the operating system and from
AES-CTR.

`measure` returns the figures; the suite's command saves them. Processor time is what counts, so that other
work on the machine does not.
"""

import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from dp.mechanisms import discrete_gaussian, skellam
from protocols.randomness import SecureRandom, SystemRandom

SIGMAS = (1.0, 3.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6)


class Stream:
    """AES-256-CTR under a fresh key: what noise costs where the bytes are cheap."""

    def __init__(self) -> None:
        self._keystream = Cipher(algorithms.AES(os.urandom(32)), modes.CTR(os.urandom(16))).encryptor()

    def bytes(self, count: int) -> bytes:
        """`count` bytes of keystream."""
        return self._keystream.update(bytes(count))


def measure(draws: int = 2_000_000, repeats: int = 5) -> dict[str, Any]:
    """Rows of sampler, sigma, source and million draws per second of processor time (median)."""
    rows: list[dict[str, Any]] = []
    sources: dict[str, SecureRandom] = {"system": SystemRandom(), "aes-ctr": Stream()}
    for sigma in SIGMAS:
        for source, random in sources.items():
            rows.append(
                {
                    "sampler": "discrete gaussian",
                    "sigma": sigma,
                    "source": source,
                    "million_per_s": _rate(partial(discrete_gaussian, random, sigma), draws, repeats),
                    "skellam_million_per_s": _rate(partial(skellam, random, sigma**2), draws, repeats),
                }
            )
    return {"rows": rows, "least_million_per_s": min(row["million_per_s"] for row in rows)}


def _rate(draw: Callable[[int], object], draws: int, repeats: int) -> float:
    draw(16)  # the table is built once per sigma and kept
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        draw(draws)
        seconds.append(time.process_time() - start)
    return draws / statistics.median(seconds) / 1e6
