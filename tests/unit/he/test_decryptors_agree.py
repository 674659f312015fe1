"""Decryptors agree on the contributions before any of them decrypts: two lists are never opened, nor a mixture.

The attacks are played against the real states by a server that shows each decryptor another list. With the one rule
taken away they give exact vectors; with it nothing opens.
"""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

import gmpy2
import numpy as np
import pytest

from he import PaillierSum, Threshold
from he.paillier.cipher import add_all, centre, parse, parse_residues
from he.paillier.decryptors import decryptor
from he.paillier.knowledge import KnownPlaintexts, prove
from he.paillier.messages import DECRYPT, DecryptRequest, Partial, Ticket, ciphertexts_of
from he.paillier.parameters import scheme, total_of
from he.paillier.threshold import ThresholdKey, combine, lagrange_at_zero, partial_decrypt
from he.roles import voting
from he.roles.messages import AGREE, EncryptedInput, Listed
from protocols import simulate
from protocols.agreement import Certificate, Vote, certify
from protocols.errors import Aborted, Misuse, PeerError, PolicyRefusal, ProtocolViolation, TooFewSurvivors
from protocols.kernel import SERVER, Message, State, message
from protocols.policy import Policy
from protocols.randomness import SystemRandom
from protocols.runtime import Runtime
from protocols.store import MemoryStore
from tests.paillier_fixed import certificate, fixed, ring

RANDOM = SystemRandom()
NAMES = tuple("abcdefgh")
Lists = Mapping[int, dict[int, EncryptedInput]]


class Server:
    """A server that shows every decryptor what it likes, and collects what honest ones answer."""

    def __init__(self, arrangement: Threshold, vectors: dict[int, list[int]], bound: int = 50) -> None:
        keys = ring(replace(arrangement, corrupt=-1))
        self.protocol = PaillierSum(arrangement, key_bits=2048, keys=keys, min_survivors=2)
        self.session = self.protocol.session(NAMES, len(vectors[0]), bound, random=RANDOM)
        assert isinstance(self.protocol.keys.public, ThresholdKey)
        self.key = self.protocol.keys.public
        asks = self.protocol.server(self.session, random=RANDOM).send
        self.inputs = {}
        for i, vector in vectors.items():
            state = self.protocol.client(self.session, i, np.array(vector), random=RANDOM).state
            self.inputs[i] = EncryptedInput.decode(state.receive(asks[i], RANDOM).send[0].body)
        self.states: dict[int, State] = {
            n: self.protocol.helper(self.session, decryptor(n), random=RANDOM).state
            for n in range(arrangement.n)
        }

    def ask(self, number: int, stage: str, body: bytes) -> Message:
        return message(self.session.context, stage, SERVER, decryptor(number), body)

    def vote(self, number: int, inputs: dict[int, EncryptedInput]) -> bytes:
        listed = Listed.of({i: sent.ticket for i, sent in inputs.items()})
        step = self.states[number].receive(self.ask(number, AGREE, listed.encode()), RANDOM)
        self.states[number] = step.state
        return Vote.decode(step.send[0].body).signature

    def corrupt_vote(self, number: int, inputs: dict[int, EncryptedInput]) -> bytes:
        """As often as one likes, for anything."""
        listed = Listed.of({i: sent.ticket for i, sent in inputs.items()})
        share = self.protocol.keys.shares[number]
        return voting.vote(voting.voter(share.vote, "x"), self.session.context, listed).signature

    def part(self, number: int, inputs: dict[int, EncryptedInput], agreed: Certificate) -> list[object]:
        """An honest decryptor's answer. Raises what it refuses with."""
        body = DecryptRequest(inputs, agreed).encode()
        step = self.states[number].receive(self.ask(number, DECRYPT, body), RANDOM)
        self.states[number] = step.state
        sent = Partial.decode(step.send[0].body)
        return parse_residues(sent.partials, ciphertexts_of(self.session), self.key.public)

    def sum(self, inputs: dict[int, EncryptedInput]) -> list[object]:
        count = ciphertexts_of(self.session)
        return add_all(
            (parse(sent.ciphertexts, count, self.key.public) for sent in inputs.values()), self.key.public
        )

    def opened(self, inputs: dict[int, EncryptedInput], parts: dict[int, list[object]]) -> list[int]:
        plain = combine(self.key, self.sum(inputs), {n + 1: part for n, part in parts.items()})
        digits = scheme(self.session).packing.unpack(plain, self.session.dimension)
        return total_of(digits, self.session).tolist()


def difference(server: Server, corrupt: int) -> list[int]:
    """Two lists that differ by client 2, each for half of the honest decryptors and for the corrupt ones."""
    t, n = server.protocol.arrangement.t, server.protocol.arrangement.n  # type: ignore[union-attr]
    honest, bad = range(n - corrupt), range(n - corrupt, n)
    lists = (server.inputs, {i: sent for i, sent in server.inputs.items() if i != 2})
    totals = []
    for inputs, group in zip(lists, (honest[: len(honest) // 2], honest[len(honest) // 2 :]), strict=True):
        votes = {number: server.vote(number, inputs) for number in group}
        votes |= {number: server.corrupt_vote(number, inputs) for number in bad}
        agreed = certify(votes, min(len(votes), server.protocol.arrangement.quorum))  # type: ignore[union-attr]
        parts = {number: server.part(number, inputs, agreed) for number in group}
        shares = server.protocol.keys.shares
        parts |= {number: partial_decrypt(shares[number], server.sum(inputs)) for number in bad}
        totals.append(server.opened(inputs, dict(list(parts.items())[:t])))
    return [one - other for one, other in zip(*totals, strict=True)]


VECTORS = {0: [1, 2], 1: [3, 4], 2: [41, -17]}


@pytest.mark.parametrize("arrangement", [Threshold(2, 3, corrupt=1), Threshold(3, 5, corrupt=1)], ids=str)
def test_two_lists_through_honest_halves_and_corrupt_decryptors(
    arrangement: Threshold, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ProtocolViolation, match="expected a certificate of"):
        difference(Server(arrangement, VECTORS), arrangement.corrupt)
    monkeypatch.setattr(voting, "expect_agreement", lambda *_: None)
    assert difference(Server(arrangement, VECTORS), arrangement.corrupt) == VECTORS[2]


def test_lists_of_the_same_clients_are_two_lists_where_a_contribution_was_replaced() -> None:
    """A server that encrypts zeros in a client's name for half of the decryptors subtracts that client's vector: so
    what is signed is every contribution, not who contributed.
    """
    server = Server(Threshold(2, 3, corrupt=1), VECTORS)
    lists = {0: server.inputs, 1: server.inputs | {2: without_randomness(server, 2)}}
    votes = {number: server.vote(number, inputs) for number, inputs in lists.items()}
    for number, inputs in lists.items():
        found = certify(votes | {2: server.corrupt_vote(2, inputs)}, 3)
        with pytest.raises(PeerError, match="does not verify"):
            server.part(number, inputs, found)


def test_more_corrupt_decryptors_than_stated_do_open_two_lists() -> None:
    """The number in the statement is the exact one: at one more the attack succeeds."""
    assert Threshold(2, 3).corrupt == 0
    assert difference(Server(Threshold(2, 3), VECTORS), 1) == VECTORS[2]


def without_randomness(server: Server, index: int) -> EncryptedInput:
    """A corrupt client's proven encryption of zeros, (1 + n)^0 1^n: it fills up a list and adds nothing."""
    public, count = server.key.public, ciphertexts_of(server.session)
    statement = KnownPlaintexts(
        public, server.session.context, index, [gmpy2.mpz(1)] * count, scheme(server.session).exponent_bits
    )
    proof = prove(statement, [0] * count, [b"\0"] * count, RANDOM)
    data = b"".join((1).to_bytes(public.ciphertext_bytes, "big") for _ in range(count))
    return EncryptedInput(data, Ticket(b"", hashlib.sha256(data).digest(), b"", proof).encode())


def mixture(server: Server, lists: Lists, certificates: Mapping[int, Certificate]) -> int:
    """What the parts of {a, b}, {a} and {b} combine to with no corrupt decryptor: w_a times a's plaintext and w_b times
    b's, w_a : w_b = 3 : 4.
    """
    n, delta = gmpy2.mpz(server.key.public.n), server.key.delta
    parts = [server.part(number, lists[number], certificates[number])[0] for number in range(3)]
    weight_a, weight_b = lagrange_at_zero(1, [1, 3], delta), lagrange_at_zero(1, [1, 2], delta)
    exponents = (
        weight_a * lagrange_at_zero(1, [1, 2], delta),
        weight_a * lagrange_at_zero(2, [1, 2], delta),
        weight_b * lagrange_at_zero(3, [1, 3], delta),
    )
    root = gmpy2.mpz(1)
    for part, exponent in zip(parts, exponents, strict=True):
        root = root * gmpy2.powmod(part, 2 * exponent, n) % n
    (a,), (b,) = (server.sum({i: server.inputs[i]}) for i in (0, 1))
    c = gmpy2.powmod(a, weight_a, n * n) * gmpy2.powmod(b, weight_b, n * n) % (n * n)
    factor = 8 * gmpy2.mpz(delta) ** 2
    power, raised = gmpy2.powmod(root, n, n * n), gmpy2.powmod(c, factor, n * n)
    assert power % n == raised % n, "the parts do not open the mixture"
    opened = (raised * gmpy2.invert(power, n * n) % (n * n) - 1) // n
    common = gmpy2.gcd(weight_a, weight_b)
    return centre(opened * gmpy2.invert(factor * common, n) % n, n)


def test_three_lists_do_not_mix_without_any_corrupt_decryptor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of different sums multiply: an answer is no vote for its list, so 2t > n + corrupt would not be enough."""
    vectors = {0: [1, -1, 0, 1], 1: [-1, -1, 1, 0]}
    server = Server(Threshold(2, 3), vectors, bound=1)
    extra = without_randomness(server, 2)
    a, b = server.inputs[0], server.inputs[1]
    lists = {0: {0: a, 1: b, 2: extra}, 1: {0: a, 2: extra}, 2: {1: b, 2: extra}}
    votes = {number: server.vote(number, inputs) for number, inputs in lists.items()}
    alone = {number: certify({number: vote}, 1) for number, vote in votes.items()}
    together = dict.fromkeys(range(3), certify(votes, 2))
    for certificates in (alone, together):
        for number, inputs in lists.items():
            with pytest.raises(PeerError, match=r"certificate|does not verify"):
                server.part(number, inputs, certificates[number])
    monkeypatch.setattr(voting, "expect_agreement", lambda *_: None)
    found = scheme(server.session).packing.unpack([mixture(server, lists, alone)], 4).tolist()
    assert found == [3 * x + 4 * y for x, y in zip(*vectors.values(), strict=True)]
    # Values of one trit each follow from 3 x + 4 y: both clients' vectors, exactly.
    solved = [next((x, y) for x in (-1, 0, 1) for y in (-1, 0, 1) if 3 * x + 4 * y == z) for z in found]
    assert [list(v) for v in zip(*solved, strict=True)] == list(vectors.values())


# -- votes --


def test_a_decryptor_votes_once_and_for_no_list_that_it_would_not_open() -> None:
    server = Server(Threshold(2, 3), VECTORS)
    for bad in ({0: server.inputs[0]}, {}, {0: server.inputs[0], 99: server.inputs[1]}):
        with pytest.raises(PeerError):
            server.vote(0, bad)
    server.vote(0, server.inputs)
    for again in (server.inputs, {i: server.inputs[i] for i in (0, 1)}):
        with pytest.raises(ProtocolViolation, match="expected stage 'decrypt'"):
            server.vote(0, again)


def test_a_decryptor_that_restarts_has_still_voted() -> None:
    server = Server(Threshold(2, 3), VECTORS)
    store, listed = MemoryStore(), Listed.of({i: sent.ticket for i, sent in server.inputs.items()})
    runtime = Runtime(server.protocol, server.session, store)
    runtime.begin(server.protocol.helper(server.session, decryptor(1), random=RANDOM))
    asked = server.ask(1, AGREE, listed.encode())
    assert runtime.handle(asked)
    again = Runtime(server.protocol, server.session, store)
    with pytest.raises(PeerError):
        again.handle(asked)
    with pytest.raises(PolicyRefusal, match="begun"):
        again.begin(server.protocol.helper(server.session, decryptor(1), random=RANDOM))
    # a state restored from a copy still meets its mark
    fresh = Runtime(server.protocol, server.session, store)
    with store.transaction() as transaction:
        state = server.protocol.helper(server.session, decryptor(1), random=RANDOM).state
        transaction.put(f"session/{server.session.context.hex()}", server.protocol.encode_state(state))
    with pytest.raises(PolicyRefusal, match="voted"):
        fresh.handle(asked)


def test_who_did_not_vote_still_opens_what_a_quorum_voted_for() -> None:
    server = Server(Threshold(2, 3), VECTORS)
    agreed = certify({n: server.vote(n, server.inputs) for n in (0, 1)}, 2)
    parts = {n: server.part(n, server.inputs, agreed) for n in (1, 2)}
    assert server.opened(server.inputs, parts) == [45, -11]


def test_a_certificate_is_good_for_one_session_and_list() -> None:
    one, other = Server(Threshold(2, 3), VECTORS), Server(Threshold(2, 3), VECTORS)
    foreign = certificate(other.protocol.keys, other.session.context, one.inputs)
    with pytest.raises(PeerError, match="does not verify"):
        one.part(0, one.inputs, foreign)
    agreed = certificate(one.protocol.keys, one.session.context, one.inputs)
    for inputs in (
        {i: one.inputs[i] for i in (0, 1)},
        one.inputs | {3: one.inputs[2]},
        one.inputs | {2: replace(one.inputs[2], ticket=one.inputs[1].ticket)},
        one.inputs | {2: other.inputs[2]},
    ):
        with pytest.raises(PeerError):
            one.part(0, inputs, agreed)
    with pytest.raises(PeerError):
        one.part(0, one.inputs | {2: replace(one.inputs[2], ciphertexts=one.inputs[1].ciphertexts)}, agreed)
    assert one.part(0, one.inputs, agreed)


def test_a_contribution_of_another_session_is_not_opened_even_by_a_quorum() -> None:
    """A retry, or a session beside it: what was sent there counts there."""
    one, other = Server(Threshold(2, 3), VECTORS), Server(Threshold(2, 3), VECTORS)
    moved = {**one.inputs, 2: other.inputs[2]}
    agreed = certificate(one.protocol.keys, one.session.context, moved)
    with pytest.raises(ProtocolViolation, match="client 2: its proof"):
        one.part(0, moved, agreed)


# -- whole sessions --


def test_decryptors_may_be_silent_at_either_stage() -> None:
    inputs = [np.array([i, -i]) for i in range(1, 5)]
    for drop in ({AGREE: {"decryptor 3"}}, {DECRYPT: {"decryptor 0"}}):
        assert simulate(fixed(Threshold(3, 4)), inputs, drop=drop).total.tolist() == [10, -10]
    with pytest.raises(TooFewSurvivors, match="expected 3 votes, got 2: nothing is opened"):
        simulate(fixed(Threshold(3, 4)), inputs, drop={AGREE: {"decryptor 0", "decryptor 1"}})
    with pytest.raises(TooFewSurvivors, match="got 2"):
        simulate(fixed(Threshold(3, 4)), inputs, drop={DECRYPT: {"decryptor 0", "decryptor 1"}})


def test_a_wrong_vote_is_named_and_counts_as_none() -> None:
    def forge(sent: Message) -> Message:
        if sent.stage != AGREE or sent.sender != decryptor(1):
            return sent
        return replace(sent, body=Vote(bytes(64)).encode())

    inputs = [np.array([i, -i]) for i in range(1, 5)]
    outcome = simulate(fixed(Threshold(3, 4)), inputs, tamper=forge)
    assert outcome.total.tolist() == [10, -10]
    assert "vote of decryptor 1" in str(next(iter(outcome.refusals.values())))
    with pytest.raises(TooFewSurvivors):
        simulate(fixed(Threshold(3, 4)), inputs, tamper=forge, drop={AGREE: {"decryptor 0"}})


def test_a_server_that_shows_decryptors_different_lists_gets_nothing() -> None:
    def split(sent: Message) -> Message:
        if sent.stage != AGREE or sent.recipient not in (decryptor(0), decryptor(1)):
            return sent
        tickets = Listed.decode(sent.body).tickets
        return replace(sent, body=Listed({i: tickets[i] for i in (0, 1, 2)}).encode())

    with pytest.raises(Aborted):
        simulate(fixed(Threshold(3, 4)), [np.array([i]) for i in range(4)], tamper=split)


# -- whose choice it is --


@pytest.mark.parametrize(
    ("t", "n", "corrupt", "quorum"),
    [
        (2, 3, 0, 2),
        (3, 4, 1, 3),
        (3, 3, 2, 3),
        (1, 1, 0, 1),
        (3, 5, 0, 3),
        (4, 5, 2, 4),
        (1, 3, 0, 2),
        (2, 5, 0, 3),
        (2, 4, 1, 3),
    ],
)
def test_what_an_arrangement_withstands(t: int, n: int, corrupt: int, quorum: int) -> None:
    chosen = Threshold(t, n)
    assert (chosen.corrupt, chosen.quorum) == (corrupt, quorum)
    assert 2 * chosen.quorum > n + chosen.corrupt


@pytest.mark.parametrize("corrupt", [2, -2, 3, True, 1.0, None])
def test_as_many_corrupt_decryptors_as_open_by_themselves_are_refused(corrupt: object) -> None:
    with pytest.raises(Misuse, match="corrupt decryptors"):
        Threshold(2, 3, corrupt=corrupt)  # type: ignore[arg-type]  # what a caller might write


def test_neither_threshold_nor_corrupt_nor_keys_are_the_servers_choice() -> None:
    keys = ring(Threshold(2, 3))
    strict = PaillierSum(Threshold(2, 3, corrupt=1), key_bits=2048, keys=keys)
    session = PaillierSum(Threshold(2, 3), key_bits=2048, keys=keys).session(NAMES, 2, 50, random=RANDOM)
    other = Server(Threshold(3, 4), VECTORS).session
    for offered in (session, other):
        with pytest.raises(Misuse, match="give every party the same"):
            strict.client(offered, 0, np.array([1, 2]), random=RANDOM)
        with pytest.raises(Misuse, match="give every party the same"):
            strict.helper(offered, decryptor(0), random=RANDOM)


def test_a_decryptor_holds_the_list_to_its_own_least_sum() -> None:
    server, own = Server(Threshold(2, 3), VECTORS), Policy(min_survivors=4)
    with pytest.raises(PolicyRefusal, match="survivors: the policy demands at least 4"):
        server.protocol.helper(server.session, decryptor(0), random=RANDOM, policy=own)
    promised = replace(server.session, min_survivors=4)
    strict = server.protocol.helper(promised, decryptor(0), random=RANDOM, policy=own).state
    server.session = promised
    agreed = certificate(server.protocol.keys, server.session.context, server.inputs)
    for stage, body in (
        (AGREE, Listed.of({i: sent.ticket for i, sent in server.inputs.items()}).encode()),
        (DECRYPT, DecryptRequest(server.inputs, agreed).encode()),
    ):
        with pytest.raises(PeerError, match="at least 4"):
            strict.receive(server.ask(0, stage, body), RANDOM)


def test_the_default_passes_its_own_statement() -> None:
    chosen = PaillierSum().arrangement
    assert isinstance(chosen, Threshold)
    assert (chosen.t, chosen.n, chosen.corrupt) == (3, 4, 1)
    for arrangement, words in (
        (Threshold(3, 4), "at most 1 decryptor"),
        (Threshold(2, 3), "no decryptor may"),
        (Threshold(2, 3, corrupt=1), "at most 1 decryptor"),
    ):
        server = Server(arrangement, VECTORS)
        told = server.protocol.protection(server.session)
        assert words in told.collusion
        assert told.parameters["corrupt"] == arrangement.corrupt
        with suppress(TooFewSurvivors), pytest.raises(PeerError):
            difference(Server(arrangement, VECTORS), arrangement.corrupt)
