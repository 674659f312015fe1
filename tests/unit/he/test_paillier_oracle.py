"""Nobody is a decryption oracle: what a server might ask for beyond the one sum of a session is refused.

The attacks: one client's ciphertext, the same re-randomised, the sum plus one, a contribution doubled or left
out, tickets of fewer clients, a second opening, a second session's request; and clients that the server invents.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import gmpy2
import numpy as np
import pytest

from he import KeyHolder, PaillierSum, SharedByClients, Threshold
from he.arrangements import Arrangement
from he.paillier.cipher import add, encrypt, parse, parse_residues, serialise, serialise_residues
from he.paillier.messages import DECRYPT, DecryptRequest, Partial, Ticket
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
from protocols import Outcome, simulate
from protocols.agreement import Certificate
from protocols.errors import (
    Aborted,
    Misuse,
    PeerError,
    PolicyRefusal,
    ProtocolViolation,
    TooFewSurvivors,
    WireError,
)
from protocols.identity import Identity, Member, Roster
from protocols.kernel import SERVER, Message, Party, State, client, message
from protocols.policy import Policy
from protocols.randomness import SystemRandom
from protocols.runtime import Runtime
from protocols.session import Session
from protocols.store import MemoryStore
from tests.paillier_fixed import certificate, fixed, keyholder, ring, shared, threshold

RANDOM = SystemRandom()
INPUTS = [np.array([10 * i, -i, 3]) for i in range(1, 5)]
POLICY = Policy(min_survivors=2)


@dataclass
class Scene:
    """A session up to the moment at which the server asks for the opening."""

    protocol: PaillierSum
    session: Session
    opener: State
    asked: Message
    contributions: dict[int, EncryptedInput]

    def ask(self, request: OpenRequest | DecryptRequest) -> Message:
        return replace(self.asked, body=request.encode())


def scene(protocol: PaillierSum, **options: int) -> Scene:
    session = protocol.session(["a", "b", "c", "d"], 3, 50, random=RANDOM, **options)
    server = protocol.server(session, random=RANDOM)
    parties: dict[Party, State] = {
        client(i): protocol.client(session, i, INPUTS[i], random=RANDOM, policy=POLICY).state
        for i in range(4)
    }
    parties |= {
        p: protocol.helper(session, p, random=RANDOM, policy=POLICY).state for p in protocol.helpers(session)
    }
    step, contributions = server, {}
    while step.send[0].stage not in (OPEN, DECRYPT):
        state = step.state
        for request in step.send:
            answered = parties[request.recipient].receive(request, RANDOM)
            parties[request.recipient] = answered.state
            if request.stage == INPUT:
                contributions[request.recipient.number] = EncryptedInput.decode(answered.send[0].body)
            state = state.receive(answered.send[0], RANDOM).state
        step = state.close(RANDOM)
    asked = step.send[0]
    return Scene(protocol, session, parties[asked.recipient], asked, contributions)


def opening(arrangement: Arrangement) -> Scene:
    return scene(fixed(arrangement))


HELD = pytest.mark.parametrize("arrangement", [KeyHolder(), SharedByClients()], ids=str)


def rerandomised(data: bytes, protocol: PaillierSum) -> bytes:
    public = protocol.keys.encryption
    values = parse(data, len(data) // public.ciphertext_bytes, public)
    zeros = parse(encrypt([0] * len(values), Randomisers(public), RANDOM), len(values), public)
    return serialise(add(values, zeros, public), public)


def plus(data: bytes, protocol: PaillierSum, amount: int) -> bytes:
    public = protocol.keys.encryption
    values = parse(data, len(data) // public.ciphertext_bytes, public)
    n = gmpy2.mpz(public.n)
    return serialise([values[0] * (1 + amount * n) % n**2, *values[1:]], public)


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


# -- decryptors --


def doubled(partials: bytes) -> bytes:
    public = threshold().keys.encryption
    values = parse_residues(partials, len(partials) * 8 // public.bits, public)
    return serialise_residues([v * 2 % gmpy2.mpz(public.n) for v in values], public)


def tampered(
    edit: Callable[[dict[int, EncryptedInput]], dict[int, EncryptedInput]], protocol: PaillierSum
) -> Outcome:
    def tamper(sent: Message) -> Message:
        if sent.stage != DECRYPT or sent.sender.role != "server":
            return sent
        given = edit(dict(DecryptRequest.decode(sent.body).inputs))
        agreed = certificate(protocol.keys, sent.session, given)  # even where decryptors voted for it
        return replace(sent, body=DecryptRequest(given, agreed).encode())

    return simulate(protocol, INPUTS, tamper=tamper, policy=POLICY)


def forged(c: EncryptedInput, ciphertexts: bytes) -> EncryptedInput:
    given = Ticket.decode(c.ticket)
    digest = hashlib.sha256(ciphertexts).digest()
    return EncryptedInput(ciphertexts, Ticket(given.tag, digest, given.signature).encode())


@pytest.fixture
def signed(monkeypatch: pytest.MonkeyPatch) -> PaillierSum:
    """A sum whose simulated parties sign; its keys are the committed ones."""
    monkeypatch.setattr("he.paillier.keyring.simulated", lambda arrangement, bits: ring(arrangement))
    return PaillierSum(Threshold(2, 3), key_bits=2048)


def test_decryptors_add_signed_contributions_only(signed: PaillierSum) -> None:
    public = signed.keys.encryption
    zero = encrypt([0], Randomisers(public), RANDOM)
    attacks: dict[str, Callable[[dict[int, EncryptedInput]], dict[int, EncryptedInput]]] = {
        "one client's": lambda given: {1: given[1]},
        "one client's and zeros": lambda given: {
            i: c if i == 1 else forged(c, zero) for i, c in given.items()
        },
        "re-randomised": lambda given: {
            i: forged(c, rerandomised(c.ciphertexts, signed)) for i, c in given.items()
        },
        "the sum plus one": lambda given: (
            given | {0: forged(given[0], plus(given[0].ciphertexts, signed, 1))}
        ),
        "one under another's name": lambda given: given | {0: given[1]},
        "digest that does not fit": lambda given: given | {0: replace(given[0], ciphertexts=zero)},
        "one from nowhere": lambda given: given | {9: given[1]},
    }
    assert simulate(signed, INPUTS, policy=POLICY).total.tolist() == sum(INPUTS).tolist()
    for name, edit in attacks.items():
        with pytest.raises(TooFewSurvivors) as caught:
            tampered(edit, signed)
        assert "decryptor" in "".join(caught.value.__notes__), name


def test_without_signatures_the_statement_says_what_a_server_could_do(signed: PaillierSum) -> None:
    names = ["a", "b"]
    unsigned = threshold()
    told = unsigned.protection(unsigned.session(names, 1, 1, random=RANDOM))
    assert any("not authenticated" in limit for limit in told.limits)
    assert told.threat == "semi-honest"


def test_a_wrong_partial_decryption_is_named_and_the_others_open() -> None:
    def tamper(sent: Message) -> Message:
        if sent.stage != DECRYPT or sent.sender != Party("decryptor", 1):
            return sent
        part = Partial.decode(sent.body)
        return replace(sent, body=replace(part, partials=doubled(part.partials)).encode())

    outcome = simulate(threshold(), INPUTS, tamper=tamper)
    assert outcome.blamed == ("decryptor 1",)
    assert outcome.total.tolist() == sum(INPUTS).tolist()


def test_too_many_wrong_partial_decryptions_end_the_session_by_name() -> None:
    def tamper(sent: Message) -> Message:
        if sent.stage != DECRYPT or sent.sender.role != "decryptor" or sent.sender.number == 2:
            return sent
        part = Partial.decode(sent.body)
        return replace(sent, body=replace(part, partials=doubled(part.partials)).encode())

    with pytest.raises(TooFewSurvivors, match="decryptor 0, decryptor 1"):
        simulate(threshold(), INPUTS, tamper=tamper)


@pytest.mark.parametrize("gone, fine", [({"decryptor 2"}, True), ({"decryptor 0", "decryptor 1"}, False)])
def test_decryptors_may_leave_down_to_the_threshold(gone: set[str], fine: bool) -> None:
    if fine:
        assert simulate(threshold(), INPUTS, drop={DECRYPT: gone}).total.tolist() == sum(INPUTS).tolist()
    else:
        for stage in (DECRYPT, threshold().stages(threshold().session(["a"], 1, 1, random=RANDOM))[0].name):
            with pytest.raises(TooFewSurvivors):
                simulate(threshold(), INPUTS, drop={stage: gone})


def test_a_key_holder_that_leaves_ends_the_session_without_a_total() -> None:
    with pytest.raises(TooFewSurvivors, match="key holder"):
        simulate(keyholder(), INPUTS, drop={OPEN: {"key-holder 0"}})


# -- signed roster --


def with_roster(arrangement: Arrangement, names: list[str]) -> tuple[list[PaillierSum], PaillierSum]:
    """One instance per client with its own identity, and one for everybody else."""
    identities = [Identity.generate(name) for name in names]
    roster = Roster.of("f", 1, [Member(i.name, "client", i.public) for i in identities])
    keys = ring(arrangement)
    own = [PaillierSum(arrangement, key_bits=2048, keys=keys, identity=i, roster=roster) for i in identities]
    return own, PaillierSum(arrangement, key_bits=2048, keys=keys, roster=roster)


@pytest.mark.parametrize("arrangement", [KeyHolder(), Threshold(2, 3)], ids=str)
def test_contributions_are_signed_under_a_roster(arrangement: Arrangement) -> None:
    names = ["a", "b", "c"]
    clients, other = with_roster(arrangement, names)
    session = other.session(names, 3, 50, random=RANDOM)
    assert other.demands(session).threat == "malicious"
    assert other.demands(session).signed_roster
    server = other.server(session, random=RANDOM)
    steps = [clients[i].client(session, i, INPUTS[i], random=RANDOM) for i in range(3)]
    answers = [s.state.receive(m, RANDOM).send[0] for s, m in zip(steps, server.send, strict=True)]
    stolen = replace(answers[1], sender_index=2)
    with pytest.raises(PeerError, match="not signed by it"):
        server.state.receive(stolen, RANDOM)
    unsigned = EncryptedInput.decode(answers[0].body)
    bare = replace(unsigned, ticket=replace(Ticket.decode(unsigned.ticket), signature=bytes(64)).encode())
    with pytest.raises(PeerError, match="not signed by it"):
        server.state.receive(replace(answers[0], body=bare.encode()), RANDOM)
    state = server.state
    for answer in answers:
        state = state.receive(answer, RANDOM).state
    requests = state.close(RANDOM).send
    holder = other.helper(session, requests[0].recipient, random=RANDOM).state
    assert holder.receive(requests[0], RANDOM).send  # a key holder opens, a decryptor votes
    with pytest.raises(Misuse, match="identity of 'b'"):
        clients[0].client(session, 1, INPUTS[1], random=RANDOM)


# -- a client's own messages --


def test_a_client_of_another_key_is_refused_before_anything_leaves() -> None:
    session = keyholder().session(["a", "b"], 3, 50, random=RANDOM)
    other = PaillierSum(KeyHolder(), key_bits=2048)
    with pytest.raises(Misuse, match="follow from this party's key"):
        other.client(session, 0, INPUTS[0], random=RANDOM)


@pytest.mark.parametrize("make", [keyholder, threshold])
def test_bad_ciphertexts_are_refused_and_named_by_the_server(make: Callable[[], PaillierSum]) -> None:
    protocol = make()
    size = protocol.keys.encryption.ciphertext_bytes
    bad = {1: lambda c: c[:-1], 2: lambda c: c + c[:size], 3: lambda c: b"\xff" * size}

    def tamper(sent: Message) -> Message:
        if sent.stage != INPUT or sent.sender.number not in bad or sent.sender.role != "client":
            return sent
        given = EncryptedInput.decode(sent.body)
        return replace(sent, body=forged(given, bad[sent.sender.number](given.ciphertexts)).encode())

    inputs = [*INPUTS, *(np.array([1, 2, i]) for i in range(3))]
    outcome = simulate(protocol, inputs, tamper=tamper)
    assert outcome.survivors == (0, 4, 5, 6)
    assert outcome.total.tolist() == (inputs[0] + inputs[4] + inputs[5] + inputs[6]).tolist()
    for index in bad:
        assert isinstance(outcome.refusals[f"server about {index}"], WireError)
        assert outcome.refusals[f"server about {index}"].party == f"client {index}"


def test_clients_that_open_differently_are_outvoted_and_named() -> None:
    probe = shared().session(["0", "1", "2", "3"], 3, 63, random=RANDOM)

    def tamper(sent: Message) -> Message:
        if sent.stage != OPEN or sent.sender != client(2):
            return sent
        return replace(sent, body=OpenedTotal(pack_total(sum(INPUTS) + 1, probe)).encode())

    outcome = simulate(fixed(SharedByClients()), INPUTS, tamper=tamper)
    assert outcome.total.tolist() == sum(INPUTS).tolist()
    assert outcome.blamed == ("client 2",)
