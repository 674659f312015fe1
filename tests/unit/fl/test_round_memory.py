"""What a round holds in memory: without layers no more for many clients than for few; nothing outlives its round."""

import gc
import tracemalloc
import weakref
from typing import Any

import numpy as np
import pytest

from fl.account import Account
from fl.engines.memory import MemoryEngine
from fl.round import Broadcast, open_round, play, reference_of
from protocols.errors import BudgetExceeded
from protocols.layers import Contribution, RoundFacts, RunFacts
from protocols.stack import Stack
from protocols.statement import PrivacyEvent

DIMENSION = 100_000


def broadcast(stack: Stack, clients: int) -> Broadcast:
    names = tuple(f"client-{i}" for i in range(clients))
    run = RunFacts(1, clients, clients, dimension=DIMENSION)
    stack.plan(run)
    return open_round(stack, run, 1, names, reference_of({"w": np.ones(DIMENSION, np.float32)}))


class Steps:
    """Toy work: the same small step everywhere. `alive`: the vectors that somebody still holds."""

    def __init__(self) -> None:
        self.made: list[Any] = []

    def __call__(self, broadcast: Broadcast, own: RoundFacts) -> Contribution:
        vector = np.full(DIMENSION, 0.25)
        self.made.append(weakref.ref(vector))
        return Contribution(vector)


def peak(clients: int) -> int:
    stack, work = Stack([]), Steps()
    shown = broadcast(stack, clients)
    engine = MemoryEngine(stack.secure_sum, work)
    gc.collect()
    tracemalloc.start()
    try:
        played = play([shown], engine, stack, Account())
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        assert played.means[0].vector == pytest.approx(0.25, abs=1e-4)
        assert engine.first is None
        assert [alive for alive in work.made if alive() is not None] == []


def test_without_layers_many_clients_need_the_memory_of_few() -> None:
    assert peak(60) < peak(6) + 8 * DIMENSION  # less than one vector more


def test_nobody_else_trains_for_a_round_that_may_not_be_paid() -> None:
    stack, work, sent = Stack([]), Steps(), list[Any]()

    class Broke:
        def charge(self, events: tuple[PrivacyEvent, ...], round: int) -> None:
            raise BudgetExceeded("no")

    engine = MemoryEngine(stack.secure_sum, work)
    engine.observe = sent.append
    with pytest.raises(BudgetExceeded):
        play([broadcast(stack, 3)], engine, stack, Broke())
    assert (len(work.made), sent) == (1, [])
