"""Set-ups that serve many rounds: what the server keeps before it asks, which set-up it goes on with, and for whom."""

from dataclasses import replace

import numpy as np
import pytest

from protocols import simulate
from protocols.errors import Misuse, PeerError, TooFewSurvivors
from protocols.kernel import SERVER, Message, client
from protocols.randomness import SystemRandom
from protocols.runtime import recall
from protocols.store import MemoryStore
from secagg import SecAgg
from secagg.memory import FIRST_PATIENCE, ServerMemory
from secagg.messages import ADVERTISE, INPUT, Advertisement, indices
from secagg.server.advertising import Advertising, start
from secagg.session_rules import Rules, rules_of

RANDOM = SystemRandom()
NAMES = [str(i) for i in range(8)]


def protocol(threat: str = "semi-honest") -> SecAgg:
    return SecAgg(setup="reuse", threat=threat, dropout=0.3, collusion=0.1)


def stores() -> dict[str, MemoryStore]:
    return {name: MemoryStore() for name in [*NAMES, "server"]}


def vectors(round: int) -> dict[str, np.ndarray]:
    return {name: np.array([i + 1, round]) for i, name in enumerate(NAMES)}


def test_what_is_kept_is_kept_before_the_next_request_leaves() -> None:
    kept, seen = stores(), list[int]()

    def observe(sent: Message) -> None:
        if sent.sender == SERVER and sent.stage == INPUT:
            memory = recall(kept["server"], protocol())
            assert memory is not None
            seen.append(ServerMemory.decode(memory).last_round)

    for number in (1, 2):
        simulate(protocol(), vectors(number), stores=kept, round=number, observe=observe, bound=15)
    assert seen == [1] * 8 + [2] * 8


def test_the_server_goes_on_with_the_set_up_of_the_session_alone() -> None:
    kept = stores()
    simulate(protocol(), vectors(1), stores=kept, bound=15)
    memory = ServerMemory.decode(recall(kept["server"], protocol()) or b"")
    session = protocol().session(NAMES, 2, 15, random=RANDOM, round=2, memory=memory.encode())
    assert start(session, memory.encode()).send
    for other in (
        replace(memory, setup=replace(memory.setup, epoch=bytes(32))),
        replace(memory, setup=replace(memory.setup, pins=bytes(32))),
        None,
    ):
        with pytest.raises(Misuse, match="a set-up that this server does not keep"):
            start(session, other and other.encode())
    with pytest.raises(Misuse, match="round 2 was begun already"):
        start(session, replace(memory, last_round=2).encode())
    fresh = protocol().session(NAMES, 2, 15, random=RANDOM, round=2)
    patient = replace(memory, patience=4 * FIRST_PATIENCE, established=memory.established[:2])
    for given, patience in ((None, FIRST_PATIENCE), (patient.encode(), patient.next_patience(fresh))):
        state = start(fresh, given).state
        assert isinstance(state, Advertising)
        assert state.patience == patience
    assert patient.next_patience(fresh) == 8 * FIRST_PATIENCE


def test_a_set_up_serves_a_hundred_rounds_unless_it_is_said() -> None:
    assert protocol().renew == 100
    assert SecAgg(setup="reuse", renew=7).renew == 7


def test_keys_of_another_length_name_their_client() -> None:
    def tamper(sent: Message) -> Message:
        if sent.recipient != SERVER or sent.stage != ADVERTISE or sent.sender != client(2):
            return sent
        keys = Advertisement.decode(sent.body).keys
        return replace(sent, body=Advertisement(keys + b"\0").encode())

    error = simulate(protocol(), vectors(1), tamper=tamper, bound=15).refusals["server about 2"]
    assert isinstance(error, PeerError)
    assert error.party == "client 2"


@pytest.mark.parametrize("threat", ["semi-honest", "semi-malicious"])
def test_a_total_needs_as_many_as_are_sure_to_be_in_it(threat: str) -> None:
    """Two of eight leave: without a vote a lying server could leave out more than those two."""
    made, gone = protocol(threat), {INPUT: {"3", "5"}}
    sure = rules_of(made.session(NAMES, 2, 15, random=RANDOM)).sure(6)
    assert sure == (6 if threat == "semi-honest" else 5)
    assert len(simulate(made, vectors(1), drop=gone, bound=15, min_survivors=sure).survivors) == 6
    if threat == "semi-honest":
        with pytest.raises(TooFewSurvivors, match="expected at least 7"):
            simulate(made, vectors(1), drop=gone, bound=15, min_survivors=sure + 1)
        return
    few = SecAgg(setup="reuse", threat=threat, dropout=0.2, collusion=0.1)
    with pytest.raises(TooFewSurvivors, match="expected at least 7"):
        simulate(few, vectors(1), drop=gone, bound=15, min_survivors=sure + 1)
    with pytest.raises(Misuse, match=r"shown 7 survivors, and 6 stay at drop-out 0\.3; use fresh keys"):
        made.session(NAMES, 2, 15, random=RANDOM, min_survivors=sure + 1)


def test_points_are_indices_while_the_field_has_enough_and_ranks_beyond() -> None:
    parameters = rules_of(protocol().session(NAMES, 2, 15, random=RANDOM)).parameters

    def points(clients: int, *holders: int) -> list[int]:
        return Rules(parameters, clients, 3, 8, bytes(32), 1).points(indices(holders)).tolist()

    assert points(8, 0, 3, 7) == [1, 4, 8]
    assert points(65_535, 0, 65_534) == [1, 65_535]
    assert points(65_536, 0, 9, 65_535) == [1, 2, 3]
    assert points(70_000, 5, 69_999) == [1, 2]
