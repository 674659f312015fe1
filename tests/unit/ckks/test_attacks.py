"""Nobody opens anything but the sum of the named clients' ciphertexts, and that once: a server's attacks."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from he.arrangements import KeyHolder, Threshold
from he.ckks import CKKSSum, SharedKey
from he.ckks.ciphertexts import Adder, Sum, Upload, encrypt
from he.ckks.keys import Context
from he.ckks.messages import KEY, HolderKeys
from he.ckks.parameters import CKKSParameters
from he.residues import pack, unpack
from he.roles.messages import (
    HOLDER,
    INPUT,
    OPEN,
    OpenRequest,
)
from he.roles.scheme import parameters
from protocols import simulate
from protocols.errors import Aborted, Misuse, ProtocolViolation
from protocols.kernel import Message
from protocols.randomness import SystemRandom
from tests.contracts.secure_sum import exact
from tests.unit.ckks.sessions import BOUND, DIMENSION, INPUTS, SUMS, N, upload_of


@dataclass
class Seen:
    """What a server sees of a session, and what it makes of it: `attack` rewrites its request to open."""

    attack: Callable[["Seen", OpenRequest], OpenRequest]
    inputs: dict[int, Upload] = field(default_factory=dict)
    context: bytes = b""

    def tamper(self, sent: Message) -> Message:
        if sent.sender.role == "client" and sent.stage == INPUT:
            self.inputs[sent.sender.number] = upload_of(sent)
        if sent.stage == KEY and sent.sender.role == HOLDER:
            self.context = HolderKeys.decode(sent.body).published.context
        if sent.stage == OPEN and sent.sender.role == "server":
            return replace(sent, body=self.attack(self, OpenRequest.decode(sent.body)).encode())
        return sent

    def sum_of(self, *indices: int) -> Adder:
        adder = Adder.empty(self.parameters)
        for index in indices:
            adder.add(self.inputs[index])
        return adder

    parameters: CKKSParameters = field(default=None)  # type: ignore[assignment]  # set per protocol


def run(protocol: CKKSSum, attack: Callable[[Seen, OpenRequest], OpenRequest]) -> None:
    """Run a session under attack. Raises what the honest parties make of it; no total may come of it."""
    chosen = protocol.scheme_parameters(N, DIMENSION, BOUND, 0)
    outcome = simulate(protocol, INPUTS, bound=BOUND, tamper=Seen(attack, parameters=chosen).tamper)
    raise AssertionError(f"opened {outcome.total}")


def words(total: Sum, p: CKKSParameters) -> np.ndarray:
    return unpack(total.first, p.coefficients, total.width[0])


def with_first(total: Sum, changed: np.ndarray) -> Sum:
    width = max(1, int(changed.max()).bit_length())
    return replace(total, width=(width, total.width[1]), first=pack(changed, width))


def one_client(seen: Seen, request: OpenRequest) -> OpenRequest:
    return replace(request, ciphertexts=seen.sum_of(0).finish().encode())


def one_client_named_alone(seen: Seen, request: OpenRequest) -> OpenRequest:
    return replace(request, ciphertexts=seen.sum_of(0).finish().encode(), tickets={0: request.tickets[0]})


def one_client_in_place_of_all(seen: Seen, request: OpenRequest) -> OpenRequest:
    return replace(request, ciphertexts=seen.sum_of(0, 0, 0, 0).finish().encode())


def all_but_one(seen: Seen, request: OpenRequest) -> OpenRequest:
    return replace(request, ciphertexts=seen.sum_of(0, 1, 2).finish().encode())


def plus(coefficient: int) -> Callable[[Seen, OpenRequest], OpenRequest]:
    def attack(seen: Seen, request: OpenRequest) -> OpenRequest:
        p = seen.parameters
        total = Sum.decode(request.ciphertexts)
        changed = words(total, p)
        changed[coefficient] += np.uint64(round(p.scale / (1 << p.dropped[0])))
        return replace(request, ciphertexts=with_first(total, changed).encode())

    return attack


def doubled(seen: Seen, request: OpenRequest) -> OpenRequest:
    p, given = seen.parameters, Sum.decode(request.ciphertexts)
    changed = words(given, p) * np.uint64(2)
    second = unpack(given.second, p.ciphertexts * p.degree, given.width[1]) * np.uint64(2)
    width = max(1, int(second.max()).bit_length())
    total = with_first(given, changed)
    twice = replace(total, width=(total.width[0], width), second=pack(second, width))
    return replace(request, ciphertexts=twice.encode())


def client_left_out(seen: Seen, request: OpenRequest) -> OpenRequest:
    return replace(request, tickets={i: b for i, b in request.tickets.items() if i != 3})


def stranger(seen: Seen, request: OpenRequest) -> OpenRequest:
    return replace(request, tickets=request.tickets | {99: request.tickets[0]})


ATTACKS = [
    one_client, one_client_named_alone, one_client_in_place_of_all, all_but_one, plus(0), plus(-1), doubled,
    client_left_out, stranger,
]  # fmt: skip


@pytest.mark.parametrize("protocol", SUMS, ids=["keyholder", "shared"])
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.__name__)
def test_what_is_not_the_sum_is_not_opened(
    protocol: CKKSSum, attack: Callable[[Seen, OpenRequest], OpenRequest]
) -> None:
    with pytest.raises(Aborted):
        run(protocol, attack)


def test_a_rerandomised_ciphertext_is_not_opened() -> None:
    def attack(seen: Seen, request: OpenRequest) -> OpenRequest:
        p = seen.parameters
        adder = seen.sum_of(0)
        adder.add(
            encrypt(np.zeros(p.coefficients, np.int64), p, Context.load(seen.context, "server").public_key())
        )
        return replace(request, ciphertexts=adder.finish().encode())

    with pytest.raises(Aborted, match="something else than the sum"):
        run(CKKSSum(), attack)


def test_the_sum_itself_rerandomised_opens_to_the_sum() -> None:
    """The control: what the refusals above turn on is the plaintext, not the ciphertext's bytes."""
    protocol = CKKSSum()
    seen: list[Seen] = []

    def attack(server: Seen, request: OpenRequest) -> OpenRequest:
        p, own = server.parameters, server.inputs[0]
        public = Context.load(server.context, "server").public_key()
        zeros = encrypt(np.zeros(p.coefficients, np.int64), p, public)

        def added(half: int, count: int) -> bytes:
            both = [unpack((one.first, one.second)[half], count, p.widths[half]) for one in (own, zeros)]
            return pack(
                (both[0] + both[1]) % np.uint64(((p.modulus - 1) >> p.dropped[half]) + 1), p.widths[half]
            )

        halves = added(0, p.coefficients), added(1, p.ciphertexts * p.degree)
        server.inputs[0] = Upload(*halves, own.checks)
        changed = server.sum_of(0, 1, 2, 3).finish().encode()
        assert changed != request.ciphertexts
        return replace(request, ciphertexts=changed)

    seen.append(Seen(attack, parameters=protocol.scheme_parameters(N, DIMENSION, BOUND, 0)))
    outcome = simulate(protocol, INPUTS, bound=BOUND, tamper=seen[0].tamper)
    assert outcome.total.tolist() == exact(INPUTS, (0, 1, 2, 3))


@pytest.mark.parametrize("protocol", SUMS, ids=["keyholder", "shared"])
def test_a_second_opening_is_refused(protocol: CKKSSum) -> None:
    opened: list[Message] = []

    def twice(sent: Message) -> list[Message]:
        if sent.stage == OPEN and sent.sender.role == "server" and sent.recipient.number == 0:
            return [sent, sent]
        if sent.stage == OPEN and sent.sender.role != "server" and sent.sender.number == 0:
            opened.append(sent)
        return [sent]

    outcome = simulate(protocol, INPUTS, bound=BOUND, tamper=twice)
    assert len(opened) == 1
    assert any(isinstance(error, ProtocolViolation) for error in outcome.refusals.values())


def test_arrangements_are_part_of_the_session() -> None:
    random = SystemRandom()
    session = CKKSSum().session(["a", "b", "c", "d"], 3, 5, random=random)
    for other in (CKKSSum("shared"), CKKSSum(KeyHolder("someone else")), CKKSSum(min_survivors=2)):
        with pytest.raises(Misuse, match="parameters"):
            other.server(session, random=random)
    assert parameters(session).holder == "key holder"
    with pytest.raises(Misuse, match="threshold"):
        CKKSSum(Threshold())
    with pytest.raises(Misuse, match="min_survivors"):
        CKKSSum(min_survivors=1)
    with pytest.raises(Misuse, match="SharedByClients"):
        CKKSSum(key=SharedKey.generate())
