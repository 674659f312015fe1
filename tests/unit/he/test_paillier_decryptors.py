"""Decryptors add what clients contributed and nothing else; a wrong decryption is named, a missing one replaced."""

from collections.abc import Callable
from dataclasses import replace

import gmpy2
import pytest

from he import PaillierSum, Threshold
from he.paillier.cipher import encrypt, parse_residues, serialise_residues
from he.paillier.messages import DECRYPT, DecryptRequest, Partial
from he.paillier.randomisers import Randomisers
from he.roles.messages import (
    EncryptedInput,
)
from protocols import Outcome, simulate
from protocols.errors import (
    TooFewSurvivors,
)
from protocols.kernel import Message, Party
from tests.paillier_fixed import certificate, ring, threshold
from tests.unit.he.oracle import INPUTS, POLICY, RANDOM, forged, plus, rerandomised


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
