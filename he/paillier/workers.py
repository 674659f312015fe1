"""All cores for big-integer work: threads, because GMP's work runs without Python's lock. No cryptography
belongs here.

gmpy2 lets go of the lock where its context says so; two threads then do nearly twice the modular products
of one, without the start-up and copying that processes would cost.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import TypeVar

import gmpy2

T = TypeVar("T")
R = TypeVar("R")
_LEAST_SHARE = 4


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def releasing_gil() -> Iterator[None]:
    """Let other threads run during this thread's big-integer operations."""
    with gmpy2.context(gmpy2.get_context(), allow_release_gil=True):
        yield


def spread(work: Callable[[Sequence[T]], list[R]], items: Sequence[T], least: int = _LEAST_SHARE) -> list[R]:
    """Return `work(items)`, computed in one share of `items` per core; `work` maps a share to its results
    in order.
    """
    shares = max(1, min(cores(), len(items) // least))

    def one(share: Sequence[T]) -> list[R]:
        with releasing_gil():
            return work(share)

    if shares == 1:
        return one(items)
    edges = [len(items) * i // shares for i in range(shares + 1)]
    parts = [items[a:b] for a, b in pairwise(edges)]
    with ThreadPoolExecutor(shares) as pool:
        return [result for part in pool.map(one, parts) for result in part]
