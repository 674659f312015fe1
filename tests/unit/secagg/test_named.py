"""Whose fault it is: a wrong deposit, request, box or pledge names the party that made it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from protocols import simulate
from protocols.errors import Aborted, PeerError, ProtocolViolation
from protocols.kernel import SERVER, Message, client
from protocols.randomness import SystemRandom
from protocols.sealing import OVERHEAD, unseal
from protocols.simulate import Outcome
from protocols.store import MemoryStore
from secagg import Credentials, SecAgg, SecAggPlus
from secagg.messages import (
    ADVERTISE,
    INPUT,
    UNMASK,
    Advertisement,
    Dealing,
    Masked,
    Opened,
    Pledge,
    Unmask,
    indices,
)

VECTORS = [np.array([i, -i]) for i in range(1, 9)]
RANDOM = SystemRandom()


def reused(tamper: Callable[[Message], Message]) -> Outcome:
    protocol = SecAgg(setup="reuse", threat="semi-honest", dropout=0.3, collusion=0.1)
    stores = {str(i): MemoryStore() for i in range(8)} | {"server": MemoryStore()}
    return simulate(protocol, VECTORS, stores=stores, tamper=tamper, bound=15)


def deposit_of_2(change: Callable[[Masked], Masked]) -> Callable[[Message], Message]:
    def tamper(sent: Message) -> Message:
        if sent.recipient != SERVER or sent.stage != INPUT or sent.sender != client(2):
            return sent
        return replace(sent, body=change(Masked.decode(sent.body)).encode())

    return tamper


def dealing_of_2(change: Callable[[Dealing], Dealing]) -> Callable[[Message], Message]:
    def changed(given: Masked) -> Masked:
        assert given.dealing is not None
        return replace(given, dealing=change(given.dealing))

    return deposit_of_2(changed)


def one_holder_less(given: Dealing) -> Dealing:
    """Seven holders, each of eight secrets."""
    boxes, digests = given.boxes[: len(given.boxes) // 7 * 6], given.digests[: 6 * 8 * 16]
    return replace(given, holders=given.holders[:6], boxes=boxes, digests=digests)


def one_neighbour_less(given: Dealing) -> Dealing:
    return replace(given, digests=given.digests[: 7 * 7 * 16], pledges=given.pledges[:-32])


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (dealing_of_2(one_holder_less), "others than those who hold its shares"),
        (dealing_of_2(one_neighbour_less), "expected shares of 8 secrets for 7 holders"),
        (deposit_of_2(lambda given: replace(given, dealing=None)), "expected shares with the masked vector"),
        (deposit_of_2(lambda given: replace(given, complaints=indices([1]))), "dealt nothing to it"),
        (deposit_of_2(lambda given: replace(given, vector=given.vector + b"\0")), "packed bytes, got"),
    ],
)
def test_a_wrong_deposit_names_its_client(tamper: Callable[[Message], Message], said: str) -> None:
    outcome = reused(tamper)
    assert outcome.survivors == (0, 1, 3, 4, 5, 6, 7)
    error = outcome.refusals["server about 2"]
    assert isinstance(error, PeerError)
    assert error.party == "client 2"
    assert said in str(error)


def test_a_release_that_does_not_fit_names_the_server() -> None:
    def tamper(sent: Message) -> Message:
        if sent.sender != SERVER or sent.stage != UNMASK or sent.recipient != client(3):
            return sent
        asked = Unmask.decode(sent.body)
        return replace(sent, body=replace(asked, survivors=asked.survivors + b"\0").encode())

    outcome = reused(tamper)
    error = outcome.refusals[3]
    assert isinstance(error, PeerError)
    assert (error.party, str(error) != "server") == ("server", True)


def test_a_box_that_is_too_short_names_its_sender() -> None:
    for size in (0, OVERHEAD - 1):
        with pytest.raises(ProtocolViolation, match=f"at least {OVERHEAD} bytes, got {size}") as caught:
            unseal(bytes(32), bytes(size), b"", "client 4")
        assert caught.value.party == "client 4"


def test_a_pledge_is_found_by_its_holder_alone() -> None:
    digests = b"".join(bytes([i]) * 16 for i in range(4))
    pledge = Pledge(indices([2, 5]), digests, bytes(32))
    assert [pledge.digest(2, place) for place in (0, 1)] == [b"\0" * 16, b"\1" * 16]
    assert [pledge.digest(5, place) for place in (0, 1)] == [b"\2" * 16, b"\3" * 16]
    for stranger in (0, 3, 6):
        assert (pledge.digest(stranger, 1), pledge.row(stranger)) == (b"", -1)


def test_a_session_asks_for_what_it_was_made_with() -> None:
    known = Credentials.simulated([str(i) for i in range(14)])
    made: dict[str, Any] = {"neighbours": 6, "threshold": 5, "collusion": 0.0}
    for simulated in (False, True):
        for threat in ("semi-honest", "malicious"):
            protocol = SecAggPlus(threat=threat, credentials=known if threat == "malicious" else None, **made)
            names = [str(i) for i in range(14)]
            session = protocol.session(names, 2, 3, random=RANDOM, simulated=simulated, modulus=256, round=3)
            demands = protocol.demands(session)
            assert (demands.signed_roster, demands.simulated) == (threat == "malicious", simulated)
            assert (session.modulus, session.round, session.min_survivors) == (256, 3, 1)
            assert (demands.cohort, demands.threshold, demands.degree, demands.ring_bits) == (14, 5, 6, 8)
            assert [stage.counts for stage in protocol.stages(session)].count(True) == 1


def test_a_client_with_another_beacon_refuses() -> None:
    known = Credentials.simulated([str(i) for i in range(14)])

    def lit(beacon: bytes) -> SecAggPlus:
        return SecAggPlus(
            threat="malicious", credentials=known, beacon=beacon, neighbours=6, threshold=5, collusion=0.0
        )

    names = [str(i) for i in range(14)]
    session = lit(b"one").session(names, 2, 3, random=RANDOM)
    assert lit(b"one").client(session, 0, np.zeros(2, np.int64), random=RANDOM).state
    with pytest.raises(Exception, match="beacon"):
        lit(b"two").client(session, 0, np.zeros(2, np.int64), random=RANDOM)


def test_a_forged_certificate_names_its_client() -> None:
    known = Credentials.simulated([str(i) for i in range(8)])
    protocol = SecAgg(setup="reuse", threat="malicious", credentials=known, dropout=0.3, collusion=0.0)

    def tamper(sent: Message) -> Message:
        if sent.recipient != SERVER or sent.stage != ADVERTISE or sent.sender != client(2):
            return sent
        keys = Advertisement.decode(sent.body).keys
        return replace(sent, body=Advertisement(keys[:-1] + bytes([keys[-1] ^ 1])).encode())

    outcome = simulate(protocol, VECTORS, tamper=tamper, bound=15)
    error = outcome.refusals["server about 2"]
    assert isinstance(error, PeerError)
    assert error.party == "client 2"


def test_a_box_that_does_not_open_keeps_no_other_closed() -> None:
    released: list[Opened] = []

    def damaged(given: Dealing) -> Dealing:
        return replace(given, boxes=bytes(b ^ 1 for b in given.boxes))

    def tamper(sent: Message) -> Message:
        if sent.recipient == SERVER and sent.stage == UNMASK and sent.sender == client(5):
            released.append(Opened.decode(sent.body))
        return dealing_of_2(damaged)(sent)

    with pytest.raises(Aborted):
        reused(tamper)
    assert [one.owners.tolist() for one in released] == [[0, 1, 3, 4, 6, 7]]


def test_a_pledge_that_the_shares_do_not_open_names_its_dealer() -> None:
    """Client 3 leaves, so the seed of its edge to client 2 is opened, and is not what client 2 pledged."""

    def other_edges(given: Dealing) -> Dealing:
        seed, edges = given.pledges[:32], given.pledges[32:]
        return replace(given, pledges=seed + bytes(b ^ 1 for b in edges))

    protocol = SecAgg(setup="reuse", threat="semi-honest", dropout=0.3, collusion=0.1)
    with pytest.raises(Aborted, match="client 2"):
        simulate(protocol, VECTORS, tamper=dealing_of_2(other_edges), drop={INPUT: {3}}, bound=15)
