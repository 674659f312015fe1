"""Clients that share the key: they open one list of survivors, and the majority's total counts."""

from dataclasses import replace

import numpy as np
import pytest

from he.ckks import CKKSSum
from he.ckks.ciphertexts import Adder, Upload
from he.roles.messages import (
    AGREE,
    HOLDER,
    INPUT,
    OPEN,
    EncryptedInput,
    Listed,
    OpenedTotal,
    OpenRequest,
    pack_total,
    unpack_total,
)
from protocols import simulate
from protocols.agreement import Certificate
from protocols.errors import Aborted, PeerError
from protocols.kernel import Message
from protocols.randomness import SystemRandom
from tests.contracts.secure_sum import exact
from tests.unit.ckks.sessions import BOUND, DIMENSION, INPUTS, SUMS, N, upload_of


def test_instances_without_a_common_key_open_nothing() -> None:
    protocol, random = CKKSSum("shared"), SystemRandom()
    session = protocol.session(["a", "b", "c"], DIMENSION, BOUND, random=random)
    step = protocol.server(session, random=random)
    own = [CKKSSum("shared").client(session, i, INPUTS[i], random=random).state for i in range(3)]
    server = step.state
    for i, request in enumerate(step.send):
        taken = own[i].receive(request, random)
        own[i] = taken.state
        server = server.receive(taken.send[0], random).state
    closed = server.close(random)
    server = closed.state
    for i, request in enumerate(closed.send):
        taken = own[i].receive(request, random)
        own[i] = taken.state
        server = server.receive(taken.send[0], random).state
    for i, request in enumerate(server.close(random).send):
        with pytest.raises(PeerError, match=r"vote of client . does not verify"):
            own[i].receive(request, random)


def test_two_lists_of_survivors_are_never_both_opened() -> None:
    """A server asks some for the sum of all, others for the sum of all but one: the difference would be one update."""
    seen: dict[int, Upload] = {}
    tickets: dict[int, bytes] = {}
    chosen = SUMS[1].scheme_parameters(N, DIMENSION, BOUND, 0)

    def split(sent: Message) -> Message:
        if sent.stage == INPUT and sent.sender.role == "client":
            seen[sent.sender.number] = upload_of(sent)
            tickets[sent.sender.number] = EncryptedInput.decode(sent.body).ticket
        if sent.stage == AGREE and sent.recipient.role == "client" and sent.recipient.number in (0, 1):
            return replace(sent, body=Listed.of({i: tickets[i] for i in (0, 1, 2)}).encode())
        if sent.stage == OPEN and sent.recipient.role == "client" and sent.recipient.number in (0, 1):
            request, adder = OpenRequest.decode(sent.body), Adder.empty(chosen)
            for index in (0, 1, 2):
                adder.add(seen[index])
            fewer = {i: request.tickets[i] for i in (0, 1, 2)}
            assert request.certificate is not None
            voters, signatures = request.certificate.voters[:2], request.certificate.signatures[:128]
            assert voters.tolist() == [0, 1]
            half = Certificate(voters, signatures)
            return replace(sent, body=OpenRequest(adder.finish().encode(), fewer, half).encode())
        return sent

    with pytest.raises(Aborted) as caught:
        simulate(SUMS[1], INPUTS, bound=BOUND, tamper=split)
    notes = "".join(caught.value.__notes__)
    assert "expected a certificate of 3 signatures, got 2" in notes
    assert "does not verify" in notes


def lie(sent: Message, liars: tuple[int, ...]) -> Message:
    """The client changes the first value of the sum that it opened by one."""
    if sent.stage != OPEN or sent.sender.role != "client" or sent.sender.number not in liars:
        return sent
    total = bytearray(OpenedTotal.decode(sent.body).total)
    total[0] ^= 1
    return replace(sent, body=OpenedTotal(bytes(total)).encode())


def test_a_lying_opener_is_outvoted_and_blamed() -> None:
    for liar in range(N):
        outcome = simulate(SUMS[1], INPUTS, bound=BOUND, tamper=lambda m, liar=liar: lie(m, (liar,)))
        assert outcome.total.tolist() == exact(INPUTS, (0, 1, 2, 3))
        assert outcome.blamed == (f"client {liar}",)


@pytest.mark.parametrize("modulus", [0, 2, 3, 1 << 20, (1 << 61) - 1, 1 << 63, 1 << 64])
def test_totals_come_back_at_their_extremes(modulus: int) -> None:
    session = CKKSSum().session("abcd", 3, 1 << 60, modulus=modulus, random=SystemRandom())
    least, most = (-(modulus // 2), (modulus - 1) // 2) if modulus else (-(1 << 62), 1 << 62)
    values = np.array([least, most, 0], np.int64)
    assert unpack_total(pack_total(values, session), session, "x").tolist() == values.tolist()


def test_openers_without_a_majority_give_no_total() -> None:
    with pytest.raises(Aborted, match="disagree"):
        simulate(SUMS[1], INPUTS, bound=BOUND, tamper=lambda m: lie(m, (1, 2)))


def test_a_total_of_another_shape_or_range_is_refused() -> None:
    session = CKKSSum().session("abcd", DIMENSION, BOUND, random=SystemRandom())
    good = len(pack_total(np.zeros(DIMENSION, np.int64), session))
    for bad in (bytes(good - 1), bytes(good + 1), b"\xff" * good, b""):

        def answer(sent: Message, bad: bytes = bad) -> Message:
            if sent.stage != OPEN or sent.sender.role != HOLDER:
                return sent
            return replace(sent, body=OpenedTotal(bad).encode())

        with pytest.raises(Aborted):
            simulate(SUMS[0], INPUTS, bound=BOUND, tamper=answer)
