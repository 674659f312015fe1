"""What an abandoned session leaves in a party's store: nothing, once a newer one begins or its time is over."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from he import CKKSSum
from protocols.errors import Misuse, PolicyRefusal
from protocols.plain import PlainSum
from protocols.randomness import SystemRandom
from protocols.runtime import Runtime, forget, recall
from protocols.store import MemoryStore
from protocols.summation import SecureSum, Total
from secagg import Credentials, SecAgg, SecAggPlus
from secagg.client.tries import MOST_TRIES, Tries
from secagg.memory import ClientMemory
from secagg.messages import items
from tests.property.secagg.play import Play

N = 6
RANDOM = SystemRandom()


class Party:
    """Client 0 on a plain Runtime, in rounds of one set-up whose other parties are played."""

    def __init__(self, setup: str) -> None:
        self.store = MemoryStore()
        self.protocol = SecAgg(setup=setup)
        self.play: Play | None = None

    def enter(self, round: int, update: bytes | None = None) -> Runtime:
        last = self.play
        self.play = Play(
            self.protocol,
            N,
            round=round,
            memories=last.memories if last else None,
            server_memory=last.server_memory if last else None,
        )
        runtime = Runtime(self.protocol, self.play.session, self.store)
        session, vector = self.play.session, np.full(4, round)
        runtime.begin(
            lambda kept: self.protocol.client(session, 0, vector, random=RANDOM, memory=kept, update=update)
        )
        return runtime

    def hear(self, runtime: Runtime, trips: int) -> None:
        """Let the session advance, client 0 included, for some trips."""
        assert self.play is not None
        for _ in range(min(trips, len(self.play.stages))):
            for request in self.play.queue:
                number = request.recipient.number
                answers = self.play.tell(request) if number else runtime.handle(request)
                self.play.hear(*answers)
            self.play.close()

    def sessions(self) -> tuple[str, ...]:
        return self.store.names("session/")


@pytest.mark.parametrize("setup", ["fresh", "reuse"])
@pytest.mark.parametrize("trips", [0, 1, 2])
def test_a_newer_round_erases_what_an_abandoned_one_left(setup: str, trips: int) -> None:
    party = Party(setup)
    first = party.enter(1)
    party.hear(first, len(party.play.stages))  # type: ignore[union-attr]  # entered above
    assert party.sessions() == ()
    second = party.enter(2)
    party.hear(second, min(trips, len(party.play.stages) - 1))  # type: ignore[union-attr]  # as above
    assert len(party.sessions()) == 1
    party.enter(3)
    assert len(party.sessions()) == 1
    with pytest.raises(PolicyRefusal, match="it is over"):
        second.handle(party.play.queue[0])  # type: ignore[union-attr]  # as above


def test_an_earlier_round_does_not_bring_old_chains_back() -> None:
    """With 5 open, a session of round 3 began; once both were answered, the store had the chains of round 5 again."""
    party = Party("reuse")
    party.hear(party.enter(1), 2 + 1)
    first, fifth = party.play, party.enter(5)
    play, party.play = party.play, first  # a server that wound itself back
    with pytest.raises(PolicyRefusal, match="round 3 was used or passed already, the next one is 5"):
        party.enter(3)
    party.play = play
    party.hear(fifth, 1)
    kept = recall(party.store, party.protocol)
    assert kept is not None
    assert ClientMemory.decode(kept).next_round == 6


@pytest.mark.parametrize("update", [b"the same", b"another"])
@pytest.mark.parametrize("setup", ["fresh", "reuse"])
def test_what_leaves_in_a_session_closes_those_beside_it_that_would_send_it_too(
    setup: str, update: bytes
) -> None:
    """A decoy of the same round waited with that round's chains: whoever read the store opened the vector, and it
    answered the round a second time. With fresh keys it waited with the vector itself.
    """
    party = Party(setup)
    party.hear(party.enter(1, b"first"), 4)
    first = party.play
    real, own = party.enter(2, b"the same"), party.play
    party.play = first
    decoy = party.enter(2, update)
    state: Any = party.protocol.decode_state(party.store.get(decoy._key) or b"")
    asked, party.play = party.play.queue[0], own
    party.hear(real, 1 if setup == "reuse" else 3)
    if (setup, update) == ("fresh", b"another"):
        assert decoy.handle(asked)
        return
    assert [name.endswith(real._key) for name in party.store.names("open/")] == [True]
    with pytest.raises(PolicyRefusal, match="it is over"):
        decoy.handle(asked)
    secrets = items(state.memory.chains, 32) if setup == "reuse" else [state.vector.tobytes()]
    assert not [e for e in party.store.entries().values() if any(secret in e for secret in secrets)]


@pytest.mark.parametrize("setup", ["fresh", "reuse"])
def test_an_update_that_left_waits_in_no_other_series(setup: str) -> None:
    """A federation that the server named waited with the vector in clear."""
    party = Party(setup)
    party.hear(party.enter(1, b"first"), 4)
    other, real = SecAgg(), party.enter(2, b"the same")
    session = other.session([f"c{i}" for i in range(N)], 4, 100, random=RANDOM, round=2)
    step = other.client(session, 0, np.full(4, 2), random=RANDOM, update=b"the same")
    Runtime(other, session, party.store).begin(step, "another federation")
    assert len(party.sessions()) == 2
    party.hear(real, 1 if setup == "reuse" else 3)
    assert len(party.sessions()) == 1


@pytest.mark.parametrize("setup", ["fresh", "reuse"])
@pytest.mark.parametrize("make", [CKKSSum, PlainSum, SecAggPlus])
def test_an_update_that_left_waits_in_no_session_of_another_protocol(
    make: Callable[[], SecureSum], setup: str
) -> None:
    """A session of another kind on the same store waited with the vector in clear."""
    party = Party(setup)
    party.hear(party.enter(1, b"first"), 4)
    real, other = party.enter(2, b"the same"), make()
    session = other.session([f"c{i}" for i in range(N)], 4, 100, random=RANDOM, round=2)
    for update in (b"the same", b"another"):
        beside = replace(session, nonce=update.ljust(16, b"-"))
        step = other.client(beside, 0, np.full(4, 2), random=RANDOM, update=update)
        Runtime(other, beside, party.store).begin(step)
    assert len(party.sessions()) == 3
    party.hear(real, 1 if setup == "reuse" else 3)
    assert sorted(party.sessions()) == sorted([real._key, f"session/{beside.context.hex()}"])


def test_a_session_of_keys_that_were_forgotten_is_over() -> None:
    party = Party("reuse")
    party.hear(party.enter(1), 4)
    waiting = party.enter(2)
    forget(party.store, party.protocol)
    with pytest.raises(PolicyRefusal, match="has no keys for it"):
        waiting.handle(party.play.queue[0])  # type: ignore[union-attr]  # entered above


def test_sessions_of_one_round_and_of_another_series_stay() -> None:
    party = Party("fresh")
    for _ in range(2):
        party.enter(2)
    assert len(party.sessions()) == 2
    session = SecAgg().session(["a", "b", "c"], 1, 1, random=RANDOM, round=9)
    step = SecAgg().client(session, 0, np.zeros(1, np.int64), random=RANDOM)
    Runtime(SecAgg(), session, party.store).begin(step, "another federation")
    assert len(party.sessions()) == 3
    party.enter(3)
    assert len(party.sessions()) == 2


def test_a_session_whose_time_is_over_is_erased_and_cannot_go_on() -> None:
    party = Party("reuse")
    runtime = party.enter(1)
    runtime.abandon()
    assert party.sessions() == ()
    assert party.store.names("open/") == ()
    with pytest.raises(PolicyRefusal, match="it is over"):
        runtime.handle(party.play.queue[0])  # type: ignore[union-attr]  # entered above
    runtime.abandon()


def test_a_result_is_kept() -> None:
    play = Play(SecAgg(), N)
    store = MemoryStore()
    session = play.session
    runtime = Runtime(play.protocol, session, store)
    requests = list(runtime.begin(play.protocol.server(session, random=RANDOM)))
    while not runtime.result():
        for request in requests:
            for answer in play.tell(request):
                runtime.handle(answer)
        requests = list(runtime.close())
    runtime.abandon()
    later = SecAgg().session([f"c{i}" for i in range(N)], 4, 100, random=RANDOM, round=2)
    Runtime(play.protocol, later, store).begin(play.protocol.server(later, random=RANDOM))
    assert isinstance(runtime.total(), Total)


@pytest.mark.parametrize("setup", ["fresh", "reuse"])
def test_a_client_asked_before_it_has_its_vector_sends_and_spends_nothing(setup: str) -> None:
    """It had sent an empty vector, and moved on."""
    play = Play(SecAgg(setup=setup), N)
    state = play.protocol.client(play.session, 0, None, random=RANDOM).state
    play.clients[0] = state
    request = play.until("masked-input")[0]
    waiting = play.clients[0]
    with pytest.raises(Misuse, match="a vector that this client was not given"):
        waiting.receive(request, RANDOM)
    play.clients[0] = play.protocol.supply(play.session, waiting, play.inputs[0])
    assert play.finish().total.tolist() == play.expected(range(N))


def test_sessions_that_begin_at_the_same_moment_do_not_start_from_the_same_memory() -> None:
    """Eight threads begin forty sessions of one client: each is counted, whichever comes first."""
    names = [f"c{i}" for i in range(14)]
    credentials = Credentials.simulated(names)
    protocol = SecAggPlus(threat="malicious", neighbours=10, collusion=0.0, credentials=credentials)
    store = MemoryStore()

    def begin(number: int) -> None:
        session = protocol.session(names, 4, 9, random=RANDOM)
        runtime = Runtime(protocol, session, store)
        runtime.begin(
            lambda memory: protocol.client(session, 0, np.full(4, number % 9), random=RANDOM, memory=memory)
        )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(begin, range(40)))
    assert Tries.kept(recall(store, protocol)).count == 40
    assert list(map(refused_by(begin), range(40, MOST_TRIES + 2))) == [False] * (MOST_TRIES - 40) + [True] * 2


def refused_by(begin: Callable[[int], None]) -> Callable[[int], bool]:
    def refuses(number: int) -> bool:
        try:
            begin(number)
        except PolicyRefusal:
            return True
        return False

    return refuses
