"""A server that aborts until it likes the graph, or begins many sessions at once, is stopped by the clients."""

from functools import partial

import numpy as np
import pytest

from protocols.errors import Misuse, PolicyRefusal
from protocols.kernel import Step
from protocols.randomness import SystemRandom
from protocols.runtime import Runtime, recall
from protocols.session import Session
from protocols.store import MemoryStore
from secagg import Credentials, SecAgg, SecAggPlus
from secagg.client.tries import MOST_TRIES, Tries
from secagg.messages import UNMASK
from tests.property.secagg.play import Play

NAMES = [f"c{i}" for i in range(14)]
RANDOM = SystemRandom()
CREDENTIALS = Credentials.simulated(NAMES)


def committed() -> SecAggPlus:
    return SecAggPlus(threat="malicious", neighbours=10, collusion=0.0, credentials=CREDENTIALS)


def test_sessions_that_are_begun_are_counted_and_capped() -> None:
    """Side by side or one after the other: none of these gets an answer."""
    memories: dict[int, bytes] = {}
    for tries in range(1, 4):
        memories = Play(committed(), 14, memories=memories).memories
        assert Tries.decode(memories[0]).count == tries
    worn = {0: Tries(MOST_TRIES).encode(), 1: Tries(MOST_TRIES - 1).encode()}
    play = Play(committed(), 14, memories=worn)
    assert isinstance(play.refused[0], PolicyRefusal)
    assert "tries" in str(play.refused[0])
    assert 1 in play.clients


def test_a_vector_that_leaves_starts_the_count_anew() -> None:
    play = Play(committed(), 14, memories={i: Tries(9).encode() for i in range(14)})
    assert Tries.decode(play.memories[0]).count == 10
    play.until(UNMASK)
    assert Tries.decode(play.memories[0]).count == 0


def test_a_party_that_keeps_a_memory_is_not_begun_beside_it() -> None:
    """A plain runtime: steps that are made without the memory would count from nothing, each time."""
    store = MemoryStore()
    for tries in (1, 2):
        session = committed().session(NAMES, 4, 9, random=RANDOM)
        vector = np.full(4, tries)
        runtime = Runtime(committed(), session, store)
        step = committed().client(session, 0, vector, random=RANDOM)
        if tries == 2:
            with pytest.raises(Misuse, match="give `begin` a function of its memory"):
                runtime.begin(step)
            runtime.begin(partial(client_of, session, vector))
        else:
            runtime.begin(step)
        assert Tries.kept(recall(store, committed())).count == tries


def client_of(session: Session, vector: np.ndarray, memory: bytes | None) -> Step:
    return committed().client(session, 0, vector, random=RANDOM, memory=memory)


def test_where_the_server_draws_no_graph_nothing_is_counted() -> None:
    assert Play(SecAgg(), 6).memories == {}


def test_what_is_kept_of_something_else_is_no_count() -> None:
    assert Tries.kept(None).count == Tries.kept(b"keys of a set-up").count == 0


def test_the_cap_is_exact() -> None:
    assert Tries(MOST_TRIES - 1).next().count == MOST_TRIES
    with pytest.raises(PolicyRefusal, match="given up"):
        Tries(MOST_TRIES).next()
