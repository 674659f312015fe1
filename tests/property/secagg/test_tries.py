"""A server that aborts until it likes the graph, or begins many sessions at once, is stopped by the clients."""

from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pytest

from protocols.errors import Misuse, PolicyRefusal
from protocols.kernel import Step
from protocols.randomness import SystemRandom
from protocols.runtime import Runtime, forget, recall
from protocols.session import Session
from protocols.store import MemoryStore
from secagg import Credentials, SecAgg, SecAggPlus
from secagg.client.tries import MOST_TRIES, Tries
from secagg.memory import ClientMemory
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


@dataclass
class Federations:
    """Client 0 of several federations, on one store."""

    store: MemoryStore = field(default_factory=MemoryStore)

    def begin(self, protocol: SecAggPlus, session: Session, series: str) -> Runtime:
        runtime = Runtime(protocol, session, self.store)
        vector = np.full(4, session.round)
        runtime.begin(
            lambda kept: protocol.client(
                session, 0, vector, random=RANDOM, memory=kept, update=session.nonce
            ),
            series,
        )
        return runtime

    def give_up(self, series: str, count: int) -> None:
        """So many sessions of one round, of which nothing came."""
        for _ in range(count):
            self.begin(committed(), committed().session(NAMES, 4, 9, random=RANDOM), series)

    def complete(self, protocol: SecAggPlus, series: str, round: int) -> None:
        """A round in which the vector leaves."""
        play = Play(protocol, 14, round=round)
        runtime = self.begin(protocol, play.session, series)
        while play.queue:
            for request in play.queue:
                answers = play.tell(request) if request.recipient.number else runtime.handle(request)
                play.hear(*answers)
            play.close()


def test_federations_on_one_store_count_apart() -> None:
    """A round that another federation completed, with fresh keys or on a set-up, gave 64 more tries each time; and who
    had used up its tries in one federation took part in no other.
    """
    client = Federations()
    client.give_up("A", MOST_TRIES - 1)
    client.complete(committed(), "B", 1)
    client.complete(reusing(), "A", 2)
    client.complete(reusing(), "B", 3)
    client.give_up("A", 1)
    with pytest.raises(PolicyRefusal, match="given up"):
        client.give_up("A", 1)
    client.complete(committed(), "B", 4)
    kept = recall(client.store, reusing(), "B")
    assert kept is not None
    assert ClientMemory.decode(kept).next_round == 4
    assert Tries.kept(recall(client.store, committed(), "A")).count == MOST_TRIES
    forget(client.store, committed(), "A")
    client.give_up("A", 1)


def test_a_count_that_an_earlier_version_kept_goes_on() -> None:
    """It had one for all federations: the first that begins takes it over."""
    client = Federations()
    client.store.put(f"memory/{committed().tag}", Tries(MOST_TRIES - 1).encode())
    client.give_up("A", 1)
    with pytest.raises(PolicyRefusal, match="given up"):
        client.give_up("A", 1)
    client.give_up("B", 1)


def reusing() -> SecAggPlus:
    return SecAggPlus(neighbours=10, threshold=6, collusion=0.0, setup="reuse")


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
