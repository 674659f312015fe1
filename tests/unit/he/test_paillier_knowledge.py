"""What a client encrypts for decryptors it proves to know: nobody's ciphertext goes into a sum under another's name.

The attacks are those of a client in league with the server, under its own valid signature: a power of another client's
ciphertext, its inverse, a copy, a copy out of another session.
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace

import gmpy2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from he import PaillierSum, Threshold
from he.paillier.cipher import encrypt_knowing, parse, serialise
from he.paillier.keys import PublicKey
from he.paillier.knowledge import Knowledge, KnownPlaintexts, check, prove
from he.paillier.messages import PURPOSE, DecryptRequest, Ticket
from he.paillier.randomisers import Randomisers
from he.paillier.threshold import ThresholdKey
from he.roles.messages import INPUT, EncryptedInput
from protocols import simulate
from protocols.codec import BigInt
from protocols.errors import Misuse, PeerError, ProtocolViolation, WireError
from protocols.identity import Identity, Member, Roster
from protocols.kernel import Message, Party, client
from protocols.randomness import SystemRandom
from protocols.session import Session
from tests.paillier_fixed import certificate, ring, secret_key

RANDOM, CONTEXT = SystemRandom(), b"s" * 32
PUBLIC = secret_key().public
SOURCE = Randomisers(PUBLIC)
NAMES = ("a", "b", "mallory")
INPUTS = [np.array([7, -9]), np.array([1, 1]), np.array([0, 0])]


def proven(values: list[int], context: bytes = CONTEXT, index: int = 1) -> tuple[KnownPlaintexts, Knowledge]:
    data, exponents = encrypt_knowing(values, SOURCE, RANDOM)
    statement = KnownPlaintexts(
        PUBLIC, context, index, parse(data, len(values), PUBLIC), SOURCE.exponent_bits or 0
    )
    return statement, prove(statement, values, exponents, RANDOM)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.integers(-(1 << 2040), 1 << 2040), min_size=1, max_size=70))
def test_what_is_known_is_proven(values: list[int]) -> None:
    statement, proof = proven(values)
    check(statement, proof)
    assert len(Knowledge.decode(proof.encode()).encode()) < 1000  # however long the vector


def test_prepared_randomisers_are_proven_too() -> None:
    source = Randomisers(PUBLIC)
    source.prepare(3)
    data, exponents = encrypt_knowing([1, -2, 3], source, RANDOM)
    statement = KnownPlaintexts(PUBLIC, CONTEXT, 0, parse(data, 3, PUBLIC), source.exponent_bits or 0)
    check(statement, prove(statement, [1, -2, 3], exponents, RANDOM))


def test_a_proof_is_good_for_one_session_place_and_vector() -> None:
    statement, proof = proven([5, -6])
    first, second = statement.ciphertexts
    longer = replace(PUBLIC, h=BigInt(pow(int(PUBLIC.h or 0), 3, int(PUBLIC.n))))
    for other in (
        replace(statement, context=b"t" * 32),
        replace(statement, index=2),
        replace(statement, ciphertexts=[second, first]),
        replace(statement, ciphertexts=[first]),
        replace(statement, ciphertexts=[first, first]),
        replace(statement, exponent_bits=statement.exponent_bits + 8),
        replace(statement, public=longer),
    ):
        with pytest.raises(ProtocolViolation, match=r"does not verify|out of range"):
            check(other, proof)
    check(statement, proof)


def test_wrong_answers_and_missing_proofs_are_refused_and_named() -> None:
    statement, proof = proven([5, -6])
    plain, exponent = (int.from_bytes(answer, "big") for answer in (proof.plain, proof.exponent))
    for other in (
        replace(proof, plain=(plain ^ 1).to_bytes(256, "big")),
        replace(proof, exponent=(exponent ^ 1).to_bytes(len(proof.exponent), "big")),
        replace(proof, digest=hashlib.sha256(b"").digest()),
        replace(proof, plain=(plain + PUBLIC.n).to_bytes(257, "big")),
        replace(proof, plain=bytes([255] * 256)),
        replace(proof, plain=b"\0" + proof.plain),
        replace(proof, exponent=b"\0" + proof.exponent),
        replace(proof, exponent=proof.exponent[1:]),
        replace(proof, exponent=b""),
        replace(proof, digest=proof.digest[:-1]),
        None,
    ):
        with pytest.raises(ProtocolViolation) as caught:
            check(statement, other)
        assert caught.value.party == "client 1"


def test_a_wrong_plaintext_cannot_be_proven() -> None:
    data, exponents = encrypt_knowing([5], SOURCE, RANDOM)
    statement = KnownPlaintexts(PUBLIC, CONTEXT, 0, parse(data, 1, PUBLIC), SOURCE.exponent_bits or 0)
    with pytest.raises(ProtocolViolation):
        check(statement, prove(statement, [6], exponents, RANDOM))


def test_a_proof_shows_no_secret_and_differs_each_time() -> None:
    data, exponents = encrypt_knowing([5], SOURCE, RANDOM)
    statement = KnownPlaintexts(PUBLIC, CONTEXT, 0, parse(data, 1, PUBLIC), SOURCE.exponent_bits or 0)
    one, two = (prove(statement, [5], exponents, RANDOM) for _ in range(2))
    assert one != two
    assert repr(one.exponent) not in repr(one)
    hidden = int.from_bytes(one.exponent, "big").bit_length()
    assert hidden > statement.exponent_bits + 128 + 64  # the mask's length, not that of what it hides
    assert len(one.encode()) == len(two.encode())


def test_a_key_without_a_base_is_no_threshold_key() -> None:
    bare = PublicKey(PUBLIC.n)
    with pytest.raises(Misuse, match="base"):
        KnownPlaintexts(bare, CONTEXT, 0, [], 8)
    key = ring(Threshold(2, 3)).public
    assert isinstance(key, ThresholdKey)
    with pytest.raises(Misuse, match="base"):
        replace(key, public=bare)


# -- a client in league with the server --


class League:
    """Three clients on a signed roster; the last one, mallory, sends what the attack makes, signed by itself."""

    def __init__(self) -> None:
        arrangement, self.identities = Threshold(2, 3), [Identity.generate(name) for name in NAMES]
        roster = Roster.of("f", 1, [Member(i.name, "client", i.public) for i in self.identities])
        keys = ring(arrangement)
        self.own = [PaillierSum(arrangement, keys=keys, identity=i, roster=roster) for i in self.identities]
        self.other = PaillierSum(arrangement, keys=keys, roster=roster)
        self.public = keys.encryption
        self.session: Session = self.other.session(NAMES, 2, 50, random=RANDOM)

    def honest(self, session: Session) -> list[EncryptedInput]:
        server = self.other.server(session, random=RANDOM)
        found = []
        for i, ask in enumerate(server.send):
            state = self.own[i].client(session, i, INPUTS[i], random=RANDOM).state
            found.append(EncryptedInput.decode(state.receive(ask, RANDOM).send[0].body))
        return found

    def signed(self, ciphertexts: bytes, knowledge: Knowledge | None) -> EncryptedInput:
        """Mallory's own signature under anything."""
        ticket = Ticket(b"", hashlib.sha256(ciphertexts).digest(), b"")
        signature = self.identities[2].sign(PURPOSE, ticket.signed(self.session, 2))
        ticket = replace(ticket, signature=signature, knowledge=knowledge)
        return EncryptedInput(ciphertexts, ticket.encode())

    def asked(self, inputs: dict[int, EncryptedInput]) -> DecryptRequest:
        """What decryptors are asked for who agreed to these inputs."""
        return DecryptRequest(inputs, certificate(self.other.keys, self.session.context, inputs))

    def powers(self, victim: EncryptedInput, exponent: int) -> bytes:
        n2 = gmpy2.mpz(self.public.n) ** 2
        values = parse(victim.ciphertexts, 1, self.public)
        return serialise([gmpy2.powmod(value, exponent, n2) for value in values], self.public)


def knowledge(sent: EncryptedInput) -> Knowledge | None:
    return Ticket.decode(sent.ticket).knowledge


ATTACKS: dict[str, Callable[[League, list[EncryptedInput], list[EncryptedInput]], EncryptedInput]] = {
    "a power that moves the value aside": lambda it, now, _: it.signed(
        it.powers(now[0], 1 << 64), knowledge(now[0])
    ),
    "the inverse, which takes it out": lambda it, now, _: it.signed(it.powers(now[0], -1), knowledge(now[0])),
    "a copy": lambda it, now, _: it.signed(now[0].ciphertexts, knowledge(now[0])),
    "a copy out of an earlier session": lambda it, _, then: it.signed(
        then[0].ciphertexts, knowledge(then[0])
    ),
    "its own, out of an earlier session": lambda it, _, then: it.signed(
        then[2].ciphertexts, knowledge(then[2])
    ),
    "no proof": lambda it, now, _: it.signed(now[2].ciphertexts, None),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=list(ATTACKS))
def test_neither_server_nor_decryptors_take_what_is_made_of_anothers(
    attack: Callable[[League, list[EncryptedInput], list[EncryptedInput]], EncryptedInput],
) -> None:
    it = League()
    then, now = it.honest(it.other.session(NAMES, 2, 50, random=RANDOM)), it.honest(it.session)
    forged = attack(it, now, then)
    server = it.other.server(it.session, random=RANDOM).state
    body = Message(it.session.context, INPUT, *client(2), "server", 0, forged.encode())
    with pytest.raises(PeerError) as caught:
        server.receive(body, RANDOM)
    assert caught.value.party == "client 2"
    decryptor = it.other.helper(it.session, Party("decryptor", 0), random=RANDOM).state
    for chosen in ({0: now[0], 1: now[1], 2: forged}, {0: now[0], 2: forged}, {1: now[1], 2: forged}):
        request = it.asked(chosen)
        ask = Message(it.session.context, "decrypt", "server", 0, "decryptor", 0, request.encode())
        with pytest.raises(PeerError, match="client 2"):
            decryptor.receive(ask, RANDOM)
    whole = it.asked(dict(enumerate(now)))
    assert decryptor.receive(replace(ask, body=whole.encode()), RANDOM).send


def test_a_sum_goes_on_without_a_client_whose_proof_is_wrong() -> None:
    def tamper(sent: Message) -> Message:
        if sent.stage != INPUT or sent.sender != client(2):
            return sent
        given = EncryptedInput.decode(sent.body)
        ticket = Ticket.decode(given.ticket)
        assert ticket.knowledge is not None
        wrong = replace(ticket, knowledge=replace(ticket.knowledge, plain=bytes(256)))
        return replace(sent, body=replace(given, ticket=wrong.encode()).encode())

    outcome = simulate(
        PaillierSum(Threshold(2, 3), keys=ring(Threshold(2, 3))), [[1], [2], [4], [8]], tamper=tamper
    )
    assert outcome.total.tolist() == [11]
    assert outcome.survivors == (0, 1, 3)
    (error,) = outcome.refusals.values()
    assert isinstance(error, ProtocolViolation)
    assert not isinstance(error, WireError)
