"""The agreement primitive: quorums intersect in an honest voter; certificates are verified strictly."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.agreement import Certificate, agreed, cast, certify, check_certificate, quorum, tolerated
from protocols.errors import Misuse, PeerError, ProtocolViolation, TooFewSurvivors, WireError
from protocols.identity import Identity

CONTEXT = bytes(range(32))
FACTS = {"dealers": b"\x1f", "survivors": b"\x0f"}
VOTERS = {i: Identity.generate(str(i)) for i in range(5)}
KEYS = {i: voter.public for i, voter in VOTERS.items()}


def votes(facts: dict[str, bytes] = FACTS, context: bytes = CONTEXT) -> dict[int, bytes]:
    return {i: cast(voter, context, facts).signature for i, voter in VOTERS.items()}


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1))))
def test_two_quorums_share_more_voters_than_are_corrupt_and_no_fewer_signatures_would_do(
    sizes: tuple[int, int],
) -> None:
    n, c = sizes
    q = quorum(n, c)
    assert 2 * q - n > c >= 2 * (q - 1) - n
    assert tolerated(n, q) in (c, c + 1)


@pytest.mark.parametrize("n, c", [(0, 0), (3, 3), (3, -1)])
def test_sizes_without_a_quorum_are_refused(n: int, c: int) -> None:
    with pytest.raises(Misuse, match="corrupt"):
        quorum(n, c)


def test_a_certificate_of_a_quorum_is_accepted_and_survives_the_wire() -> None:
    found = certify(votes(), quorum(5, 1))
    assert len(found.voters) == 4
    check_certificate(Certificate.decode(found.encode()), KEYS, 4, agreed(CONTEXT, FACTS))


def test_fewer_votes_than_a_quorum_make_no_certificate() -> None:
    some = dict(list(votes().items())[:3])
    with pytest.raises(TooFewSurvivors, match="4 votes, got 3"):
        certify(some, 4)
    for few in (certify(some, 3), Certificate(np.empty(0, np.uint32), b"")):
        with pytest.raises(ProtocolViolation, match="4 signatures"):
            check_certificate(few, KEYS, 4, agreed(CONTEXT, FACTS))


@pytest.mark.parametrize(
    "context, facts",
    [
        (bytes(32), FACTS),
        (CONTEXT, {**FACTS, "survivors": b"\x0d"}),
        (CONTEXT, {"dealers": FACTS["survivors"], "survivors": FACTS["dealers"]}),
        (CONTEXT, {"dealers": FACTS["dealers"]}),
        (CONTEXT, {**FACTS, "graph": b""}),
        (CONTEXT, {"dealers": b"", "survivors": b"\x1f\x0f"}),
    ],
)
def test_a_vote_for_anything_else_does_not_count(context: bytes, facts: dict[str, bytes]) -> None:
    one_off = {**votes(), 2: votes(facts, context)[2]}
    with pytest.raises(PeerError, match="vote of client 2") as caught:
        check_certificate(certify(one_off, 4), KEYS, 4, agreed(CONTEXT, FACTS))
    assert caught.value.party == "client 2"


def test_another_purpose_or_key_does_not_count() -> None:
    digest = agreed(CONTEXT, FACTS)
    found = certify({**votes(), 1: VOTERS[1].sign("something else", digest)}, 4)
    with pytest.raises(PeerError, match="client 1"):
        check_certificate(found, KEYS, 4, digest)
    with pytest.raises(PeerError, match="holder 3"):
        check_certificate(certify(votes(), 4), {**KEYS, 3: KEYS[4]}, 4, digest, "holder")


def test_a_strangers_vote_does_not_count() -> None:
    with pytest.raises(ProtocolViolation, match="client 0 has no vote"):
        check_certificate(certify(votes(), 4), {i: KEYS[i] for i in (1, 2, 3, 4)}, 4, agreed(CONTEXT, FACTS))


def test_one_vote_does_not_count_twice() -> None:
    found = certify(votes(), 4)
    again = np.array([0, 1, 2, 2], np.uint32)
    with pytest.raises(Misuse, match="ascending"):
        replace(found, voters=again)
    forged = bytearray(found.encode())
    forged[9 + 12 : 9 + 16] = forged[9 + 8 : 9 + 12]
    with pytest.raises(WireError, match="ascending"):
        Certificate.decode(bytes(forged))


def test_more_signatures_than_the_quorum_are_refused_too() -> None:
    """A certificate has one size, so that a request costs a client no more than it was planned to."""
    with pytest.raises(ProtocolViolation, match="4 signatures, got 5"):
        check_certificate(certify(votes(), 5), KEYS, 4, agreed(CONTEXT, FACTS))


def test_facts_and_context_are_demanded() -> None:
    for context, facts in ((b"short", FACTS), (CONTEXT, {})):
        with pytest.raises(Misuse, match="expected a context of 32 bytes and facts"):
            agreed(context, facts)


def test_the_mark_is_one_per_session_whatever_is_signed() -> None:
    first, second = (cast(VOTERS[0], CONTEXT, {"survivors": s}) for s in (b"a", b"b"))
    assert first.mark == second.mark != cast(VOTERS[0], bytes(32), FACTS).mark
