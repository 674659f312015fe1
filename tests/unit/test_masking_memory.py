"""Masked vectors are added as they arrive: memory does not grow with clients x coordinates."""

from __future__ import annotations

import tracemalloc

from benchmarks.secagg.work import Work, run

DIM = 200_000


def peak(clients: int) -> int:
    """Bytes allocated at most during a round, all parties in this process; the inputs share one array."""
    work = Work(clients, DIM, 4, 3, 0.0)
    tracemalloc.start()
    try:
        run(work)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_is_that_of_a_few_vectors_however_many_clients() -> None:
    run(Work(6, DIM, 4, 3, 0.0))  # imports, tables
    few, many = peak(6), peak(24)
    assert many - few < 4 * DIM  # 18 clients more, less than one more vector of 32-bit words
