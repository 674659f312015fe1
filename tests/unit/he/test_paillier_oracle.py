"""Nobody is a decryption oracle: what a server might ask for beyond the one sum of a session is refused.

The attacks: one client's ciphertext, the same re-randomised, the sum plus one, a contribution doubled or left
out, tickets of fewer clients, a second opening, a second session's request; and clients that the server invents.
"""

from dataclasses import replace

import gmpy2
import numpy as np
import pytest

from he import KeyHolder, SharedByClients, Threshold
from he.arrangements import Arrangement
from he.paillier.cipher import add, encrypt, parse, serialise
from he.paillier.parameters import scheme
from he.paillier.randomisers import Randomisers
from he.roles.messages import (
    AGREE,
    INPUT,
    OPEN,
    EncryptedInput,
    Listed,
    OpenedTotal,
    OpenRequest,
    pack_total,
)
from protocols import simulate
from protocols.agreement import Certificate
from protocols.errors import (
    Aborted,
    PeerError,
    PolicyRefusal,
    ProtocolViolation,
    TooFewSurvivors,
    WireError,
)
from protocols.kernel import SERVER, Message, client, message
from protocols.runtime import Runtime
from protocols.store import MemoryStore
from tests.paillier_fixed import fixed, keyholder, shared
from tests.unit.he.oracle import HELD, INPUTS, RANDOM, opening, plus, rerandomised, scene


@HELD
def test_the_honest_request_opens(arrangement: Arrangement) -> None:
    s = opening(arrangement)
    assert s.asked.stage == OPEN
    answer = OpenedTotal.decode(s.opener.receive(s.asked, RANDOM).send[0].body)
    assert answer.checked(s.session, "opener").tolist() == sum(INPUTS).tolist()


@HELD
def test_single_and_altered_ciphertexts_do_not_open(arrangement: Arrangement) -> None:
    s = opening(arrangement)
    honest = OpenRequest.decode(s.asked.body)
    one = s.contributions[1].ciphertexts
    public = s.protocol.keys.encryption
    both = serialise(add(parse(one, 1, public), parse(honest.ciphertexts, 1, public), public), public)
    attacks = {
        "one client's": one,
        "one client's, re-randomised": rerandomised(one, s.protocol),
        "the sum plus one": plus(honest.ciphertexts, s.protocol, 1),
        "the sum with one client's doubled": both,
        "one client's times the number of clients": rerandomised(
            serialise([parse(one, 1, public)[0] ** 4 % gmpy2.mpz(public.n) ** 2], public), s.protocol
        ),
        "an encryption of zero": encrypt([0], Randomisers(public), RANDOM),
    }
    for name, ciphertexts in attacks.items():
        step = s.opener.receive(s.ask(replace(honest, ciphertexts=ciphertexts)), RANDOM)
        answer = OpenedTotal.decode(step.send[0].body)
        assert "something else than the sum" in answer.refusal, name
        assert len(answer.total) == 0
        # One refusal is one bit, and the last: the session is over for this opener.
        assert step.state.finished
        assert step.marks == (f"answered/{s.session.context.hex()}",)


@HELD
def test_the_sum_re_randomised_is_still_the_sum(arrangement: Arrangement) -> None:
    s = opening(arrangement)
    honest = OpenRequest.decode(s.asked.body)
    again = rerandomised(honest.ciphertexts, s.protocol)
    assert again != honest.ciphertexts
    step = s.opener.receive(s.ask(replace(honest, ciphertexts=again)), RANDOM)
    assert OpenedTotal.decode(step.send[0].body).checked(s.session, "opener").tolist() == sum(INPUTS).tolist()


@HELD
def test_fewer_other_or_damaged_tickets_do_not_open(arrangement: Arrangement) -> None:
    s = opening(arrangement)
    honest = OpenRequest.decode(s.asked.body)
    for tickets in (
        {1: honest.tickets[1]},
        {},
        {0: honest.tickets[0], 1: honest.tickets[1], 2: honest.tickets[2], 7: honest.tickets[3]},
    ):
        with pytest.raises(PeerError):
            s.opener.receive(s.ask(replace(honest, tickets=tickets)), RANDOM)
    with pytest.raises(WireError):
        s.opener.receive(replace(s.asked, body=s.asked.body[:-1]), RANDOM)
    alone = OpenRequest(s.contributions[1].ciphertexts, {1: honest.tickets[1]}, honest.certificate)
    with pytest.raises(PeerError, match=r"at least 3|agreed to"):
        s.opener.receive(s.ask(alone), RANDOM)


@HELD
@pytest.mark.parametrize("position", [0, -1])
def test_a_guess_of_the_values_in_one_ciphertext_is_not_confirmed(
    arrangement: Arrangement, position: int
) -> None:
    """Every plaintext has a tag, the last one, filled in part, too: a right guess opens no more than a wrong one."""
    protocol, vectors = fixed(arrangement), [np.full(900, i) for i in range(4)]
    public, sent = protocol.keys.encryption, {}

    def tamper(message: Message) -> Message:
        if message.stage == INPUT and message.sender.role == "client":
            sent[message.sender.number] = EncryptedInput.decode(message.body).ciphertexts
        if message.stage != OPEN or message.sender != SERVER:
            return message
        asked = OpenRequest.decode(message.body)
        count = len(asked.ciphertexts) // public.ciphertext_bytes
        assert count > 2
        packing = scheme(session).packing
        guess = parse(encrypt(packing.pack([1] * 900), Randomisers(public), RANDOM), count, public)
        total, own = parse(asked.ciphertexts, count, public), parse(sent[1], count, public)
        n2 = gmpy2.mpz(public.n) ** 2
        total[position] = total[position] * gmpy2.invert(own[position], n2) * guess[position] % n2
        return replace(message, body=replace(asked, ciphertexts=serialise(total, public)).encode())

    session = protocol.session(["a", "b", "c", "d"], 900, 3, random=RANDOM)
    with pytest.raises(Aborted, match="something else than the sum"):
        simulate(protocol, dict(zip("abcd", vectors, strict=True)), session=session, tamper=tamper)


def test_a_ticket_left_out_does_not_open() -> None:
    s = opening(KeyHolder())
    honest = OpenRequest.decode(s.asked.body)
    three = {i: honest.tickets[i] for i in (0, 1, 2)}
    answer = s.opener.receive(s.ask(replace(honest, tickets=three)), RANDOM).send[0]
    assert "something else" in OpenedTotal.decode(answer.body).refusal


def test_a_refusal_ends_the_run_with_its_reason() -> None:
    def tamper(sent: Message) -> Message:
        if sent.stage != OPEN or sent.sender.role != "server":
            return sent
        request = OpenRequest.decode(sent.body)
        return replace(
            sent, body=replace(request, ciphertexts=plus(request.ciphertexts, keyholder(), 1)).encode()
        )

    for arrangement in (KeyHolder(), SharedByClients()):
        with pytest.raises(Aborted, match="refused to open: this is something else than the sum"):
            simulate(fixed(arrangement), INPUTS, tamper=tamper)


# -- clients that share the key agree who is in the sum --


def test_a_client_agrees_to_one_list_of_survivors_only() -> None:
    protocol = fixed(SharedByClients())
    session = protocol.session(["a", "b", "c", "d"], 3, 50, random=RANDOM)
    server = protocol.server(session, random=RANDOM)
    first = protocol.client(session, 0, INPUTS[0], random=RANDOM).state.receive(server.send[0], RANDOM)
    sent, ticket = first.state, EncryptedInput.decode(first.send[0].body).ticket

    def ask(*clients: int, own: bytes = ticket) -> Message:
        body = Listed.of({i: own if i == 0 else b"another's" for i in clients}).encode()
        return message(session.context, AGREE, SERVER, client(0), body)

    for bad in ((1, 2), (0, 9), (0,), ()):
        with pytest.raises(PeerError):
            sent.receive(ask(*bad), RANDOM)
    with pytest.raises(ProtocolViolation, match="this client's own contribution"):
        sent.receive(ask(0, 1, 2, own=b"one that the server made"), RANDOM)
    descending = bytearray(ask(0, 1).body)
    descending[4:12], descending[48:56] = descending[48:56], descending[4:12]
    with pytest.raises(WireError):
        sent.receive(replace(ask(0, 1), body=bytes(descending)), RANDOM)
    step = sent.receive(ask(0, 1, 2), RANDOM)
    assert step.marks == (f"voted/{session.context.hex()}",)
    with pytest.raises(ProtocolViolation):
        step.state.receive(ask(0, 1, 2, 3), RANDOM)


def test_clients_open_only_what_more_than_half_of_the_roster_agreed_to() -> None:
    s = opening(SharedByClients())
    honest = OpenRequest.decode(s.asked.body)
    assert honest.certificate is not None
    voters, signatures = honest.certificate.voters, honest.certificate.signatures
    assert voters.tolist() == [0, 1, 2]  # of four
    bad = {
        "expected a certificate of 3": Certificate(voters[:2], signatures[:128]),
        "vote of client 2 does not": Certificate(voters, signatures[:128] + bytes(64)),
        "vote of client 3 does not": Certificate(np.array([0, 1, 3], np.uint32), signatures),
        "vote of client 0 does not": Certificate(
            voters, signatures[64:128] + signatures[:64] + signatures[128:]
        ),
        "client 4 has no vote": Certificate(np.array([0, 1, 4], np.uint32), signatures),
    }
    for text, other in bad.items():
        with pytest.raises(PeerError, match=text):
            s.opener.receive(s.ask(replace(honest, certificate=other)), RANDOM)
    with pytest.raises(ProtocolViolation, match="expected a certificate"):
        s.opener.receive(s.ask(replace(honest, certificate=None)), RANDOM)
    fewer = {i: honest.tickets[i] for i in (0, 1, 2)}
    with pytest.raises(ProtocolViolation, match="agreed to"):
        s.opener.receive(s.ask(replace(honest, tickets=fewer)), RANDOM)


def test_a_server_cannot_have_two_different_sums_opened() -> None:
    """It shows half of the clients another list: no list gets more than half, so nothing opens."""

    def tamper(sent: Message) -> Message:
        if sent.stage != AGREE or sent.recipient not in (client(0), client(1)):
            return sent
        tickets = Listed.decode(sent.body).tickets
        return replace(sent, body=Listed({i: tickets[i] for i in (0, 1, 2)}).encode())

    with pytest.raises(Aborted):
        simulate(fixed(SharedByClients()), INPUTS, tamper=tamper)


@HELD
def test_a_holder_opens_for_no_fewer_than_the_session_asks(arrangement: Arrangement) -> None:
    s = scene(fixed(arrangement), min_survivors=4)
    public = s.protocol.keys.encryption
    three = [s.contributions[i] for i in range(3)]
    total = parse(three[0].ciphertexts, 1, public)
    for c in three[1:]:
        total = add(total, parse(c.ciphertexts, 1, public), public)
    agreed = OpenRequest.decode(s.asked.body).certificate
    request = OpenRequest(serialise(total, public), {i: c.ticket for i, c in enumerate(three)}, agreed)
    with pytest.raises(PeerError, match=r"at least 4|agreed to"):
        s.opener.receive(s.ask(request), RANDOM)


@pytest.mark.parametrize("arrangement", [KeyHolder(), SharedByClients(), Threshold(2, 3)], ids=str)
def test_a_second_opening_is_refused_even_after_a_restart(arrangement: Arrangement) -> None:
    s = opening(arrangement)
    step = s.opener.receive(s.asked, RANDOM)
    with pytest.raises(ProtocolViolation):
        step.state.receive(s.asked, RANDOM)
    assert step.marks == (f"answered/{s.session.context.hex()}",)
    store = MemoryStore()
    helpers = s.protocol.helpers(s.session)
    if not helpers:
        return
    first = Runtime(s.protocol, s.session, store)
    first.begin(s.protocol.helper(s.session, s.asked.recipient, random=RANDOM))
    assert first.handle(s.asked)
    with pytest.raises(PolicyRefusal):
        first.handle(s.asked)
    with pytest.raises(PolicyRefusal, match="begun"):
        Runtime(s.protocol, s.session, store).begin(
            s.protocol.helper(s.session, s.asked.recipient, random=RANDOM)
        )


@HELD
def test_a_request_of_another_session_is_refused(arrangement: Arrangement) -> None:
    s, other = opening(arrangement), opening(arrangement)
    with pytest.raises(ProtocolViolation, match="session"):
        s.opener.receive(other.asked, RANDOM)
    moved = replace(other.asked, session=s.session.context)
    try:
        answer = OpenedTotal.decode(s.opener.receive(moved, RANDOM).send[0].body)
    except ProtocolViolation as error:
        assert "agreed to" in str(error)  # noqa: PT017  one arrangement raises, the other answers
    else:
        assert "something else" in answer.refusal


def test_a_key_holder_that_leaves_ends_the_session_without_a_total() -> None:
    with pytest.raises(TooFewSurvivors, match="key holder"):
        simulate(keyholder(), INPUTS, drop={OPEN: {"key-holder 0"}})


def test_clients_that_open_differently_are_outvoted_and_named() -> None:
    probe = shared().session(["0", "1", "2", "3"], 3, 63, random=RANDOM)

    def tamper(sent: Message) -> Message:
        if sent.stage != OPEN or sent.sender != client(2):
            return sent
        return replace(sent, body=OpenedTotal(pack_total(sum(INPUTS) + 1, probe)).encode())

    outcome = simulate(fixed(SharedByClients()), INPUTS, tamper=tamper)
    assert outcome.total.tolist() == sum(INPUTS).tolist()
    assert outcome.blamed == ("client 2",)
