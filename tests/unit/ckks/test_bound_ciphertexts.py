"""Every ciphertext is bound: a server that changes any of them, not the first alone, learns nothing from whether the
sum opens. And a check value says nothing to whoever opens.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import pytest

from he import CKKSSum, SharedByClients
from he.ckks import SharedKey
from he.ckks.ciphertexts import Adder, Sum, Upload, encrypt
from he.ckks.coefficients import pad_of
from he.ckks.keys import Context
from he.ckks.messages import KEY, HolderKeys
from he.ckks.parameters import CKKSParameters, scheme
from he.ckks.whole_key import check_pad, pad_for
from he.residues import pack, unpack
from he.roles.messages import HOLDER, INPUT, OPEN, EncryptedInput, OpenRequest
from protocols import simulate
from protocols.errors import Aborted
from protocols.kernel import Message
from protocols.randomness import SystemRandom

CLIENTS, BOUND = 5, 1000
SUMS = {
    "key holder": CKKSSum,
    "shared": lambda: CKKSSum(SharedByClients(), key=SharedKey(b"b" * 32)),
}
Block = tuple[np.ndarray, np.ndarray]


@cache
def parameters(name: str) -> CKKSParameters:
    """Three ciphertexts, or two, of which the last holds three values."""
    protocol, dimension = SUMS[name](), 5000
    while True:
        p = protocol.scheme_parameters(CLIENTS, dimension, BOUND, 0)
        if p.coefficients % p.degree == 3 and p.ciphertexts > 1:
            assert p.limbs == 1
            return p
        dimension = 2 * p.degree + 3


@dataclass
class Server:
    """Puts together what it has opened of what clients sent, ciphertext by ciphertext.

    choose: (client, ciphertext) -> whose ciphertext stands in its place; "guess" is the server's own encryption of
    `guess`, "nothing" is left out.
    """

    parameters: CKKSParameters
    choose: Callable[[int, int], int | str]
    guess: np.ndarray
    sent: dict[int, Upload] = field(default_factory=dict)
    context: bytes = b""

    def tamper(self, sent: Message) -> Message:
        if sent.stage == INPUT and sent.sender.role == "client":
            self.sent[sent.sender.number] = Upload.decode(EncryptedInput.decode(sent.body).ciphertexts)
        if sent.stage == KEY and sent.sender.role == HOLDER:
            self.context = HolderKeys.decode(sent.body).published.context
        if sent.stage != OPEN or sent.sender.role != "server":
            return sent
        asked = OpenRequest.decode(sent.body)
        return replace(sent, body=replace(asked, ciphertexts=self._made()).encode())

    def _made(self) -> bytes:
        p, adder = self.parameters, Adder.empty(self.parameters)
        whole: dict[int | str, Upload] = dict(self.sent)
        if self.context:
            public = Context.load(self.context, "server").public_key()
            whole["guess"] = encrypt(self.guess, p, public)
            whole["nothing"] = encrypt(np.zeros_like(self.guess), p, public)
        for i in self.sent:
            adder.add(self._mixed(whole, i, [self.choose(i, at) for at in range(p.ciphertexts)]))
        return adder.finish().encode()

    def _mixed(self, whole: dict[int | str, Upload], client: int, chosen: list[int | str]) -> Upload:
        p = self.parameters
        first, second = [], []
        for at, who in enumerate(chosen):
            own = slice(at * p.degree, (at + 1) * p.degree)
            first.append(unpack(whole[who].first, p.coefficients, p.widths[0])[own])
            if p.symmetric:
                second.append(whole[who].second[64 * at : 64 * (at + 1)])
            else:
                second.append(unpack(whole[who].second, p.ciphertexts * p.degree, p.widths[1])[own])
        seeds = b"".join(second) if p.symmetric else pack(np.concatenate(second), p.widths[1])
        return Upload(pack(np.concatenate(first), p.widths[0]), seeds, self.sent[client].checks)


def opens(name: str, vectors: np.ndarray, choose: Callable[[int, int], int | str]) -> bool:
    """Whether what the server puts together is opened; if it is, it must be the honest total."""
    p = parameters(name)
    server = Server(p, choose, vectors[0])
    try:
        outcome = simulate(SUMS[name](), list(vectors), bound=BOUND, tamper=server.tamper)
    except Aborted as refused:
        if "something else" not in refused.reason:
            raise
        return False
    assert outcome.total.tolist() == vectors.sum(axis=0).tolist()
    return True


def drawn(name: str) -> np.ndarray:
    return np.random.default_rng(3).integers(-BOUND, BOUND + 1, (CLIENTS, parameters(name).dimension))


def test_a_right_guess_of_one_ciphertext_opens_no_more_than_a_wrong_one() -> None:
    """No corrupt client is needed: the holder's yes would say that the guess of client 0's last values is exact."""
    vectors, at = drawn("key holder"), parameters("key holder").ciphertexts - 1
    for block in range(at + 1):
        assert not opens(
            "key holder", vectors, lambda i, b, block=block: "guess" if (i, b) == (0, block) else i
        )
    assert opens("key holder", vectors, lambda i, b: i)


@pytest.mark.parametrize("name", SUMS)
def test_equal_values_of_two_clients_are_not_told(name: str) -> None:
    """One client's ciphertext twice and another's not at all: a yes would say that they hold the same."""
    vectors, at = drawn(name), parameters(name).ciphertexts - 1
    vectors[1, -3:] = vectors[0, -3:]
    assert not opens(name, vectors, lambda i, b: 0 if (i, b) == (1, at) else i)
    assert opens(name, vectors, lambda i, b: {0: 1, 1: 0}.get(i, i) if b == at else i)  # the sum is the same


def test_values_of_zero_are_not_told() -> None:
    vectors, at = drawn("key holder"), parameters("key holder").ciphertexts - 1
    vectors[0, -3:] = 0
    assert not opens("key holder", vectors, lambda i, b: "nothing" if (i, b) == (0, at) else i)


@pytest.mark.parametrize("name", SUMS)
def test_the_opener_is_shown_no_single_clients_check_value(name: str) -> None:
    """It knows the linear function: one value would confirm a guess of a client's whole vector. Tickets are empty, and
    what it is shown is the sum, as the server added it.
    """
    vectors, asked, added = drawn(name), [], []

    def seen(message: Message) -> Message:
        if message.stage == INPUT and message.sender.role == "client":
            added.append(Upload.decode(EncryptedInput.decode(message.body).ciphertexts).checks)
        if message.stage == OPEN and message.sender.role == "server":
            asked.append(OpenRequest.decode(message.body))
        return message

    assert (
        simulate(SUMS[name](), list(vectors), bound=BOUND, tamper=seen).total.tolist()
        == vectors.sum(0).tolist()
    )
    assert set(asked[0].tickets.values()) == {b""}
    words = sum(np.frombuffer(checks, np.uint64) for checks in added)
    assert Sum.decode(asked[0].ciphertexts).checks == words.tobytes()
    assert len(set(added)) == CLIENTS


def test_equal_vectors_have_check_values_that_tell_nothing() -> None:
    """The pad of a check value is uniform modulo 2^64, a client's own, and the session's own."""
    sessions = [CKKSSum().session(["a", "b", "c"], 4, 5, random=SystemRandom()) for _ in range(2)]
    pads = [check_pad(b"k" * 32, session, i).tolist() for session in sessions for i in range(3)]
    assert all(len(pad) == scheme(sessions[0]).checks for pad in pads)
    assert len({word for pad in pads for word in pad}) == sum(map(len, pads))


@pytest.mark.parametrize("name", SUMS)
def test_a_check_value_that_the_server_changes_ends_the_session(name: str) -> None:
    def changed(message: Message) -> Message:
        if message.stage != OPEN or message.sender.role != "server":
            return message
        request = OpenRequest.decode(message.body)
        total = Sum.decode(request.ciphertexts)
        other = bytes([total.checks[0] ^ 1]) + total.checks[1:]
        return replace(
            message, body=replace(request, ciphertexts=replace(total, checks=other).encode()).encode()
        )

    with pytest.raises(Aborted, match="check values do not match"):
        simulate(SUMS[name](), list(drawn(name)), bound=BOUND, tamper=changed)


def test_pads_are_uniform_residues_and_each_client_has_its_own() -> None:
    p = parameters("key holder")
    for modulus in (p.modulus, 5, (1 << 31) + 11):
        pad = pad_of(b"s" * 32, 4000, modulus)
        assert len(pad) == 4000
        assert int(pad.max()) < modulus
        assert pad_of(b"s" * 32, 100, modulus).tolist() != pad_of(b"t" * 32, 100, modulus).tolist()
    assert sorted(set(pad_of(b"s" * 32, 4000, 5).tolist())) == [0, 1, 2, 3, 4]
    session = CKKSSum().session(["a", "b", "c"], 4, 5, random=SystemRandom())
    other = CKKSSum().session(["a", "b", "c"], 4, 5, random=SystemRandom())
    pads = [pad_for(b"k" * 32, s, i).tolist() for s in (session, other) for i in range(3)]
    assert all(one != two for i, one in enumerate(pads) for two in pads[:i])


@pytest.mark.parametrize("values, several", [(3, True), (20_000, False)])
def test_the_statement_says_where_digits_are_summed(values: int, several: bool) -> None:
    """Of (0, 0) and (100, -100) whoever opens tells the sums apart, though both are nought."""
    protocol = CKKSSum()
    session = protocol.session(["a", "b", "c"], values, 100, random=SystemRandom())
    assert (scheme(session).limbs > 1) is several
    assert any("travels as" in limit for limit in protocol.protection(session).limits) is several
