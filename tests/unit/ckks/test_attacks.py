"""Nobody opens anything but the sum of the named clients' ciphertexts, and that once: a server's attacks."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from he.arrangements import KeyHolder, SharedByClients, Threshold
from he.ckks import CKKSSum, SharedKey
from he.ckks.ciphertexts import Adder, Sum, Upload, encrypt
from he.ckks.keys import Context
from he.ckks.messages import KEY, ClientKeys, HolderKeys, Join, Joined
from he.ckks.parameters import CKKSParameters
from he.residues import pack, unpack
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
from he.roles.scheme import parameters
from protocols import Policy, simulate
from protocols.agreement import Certificate
from protocols.errors import Aborted, Misuse, PeerError, PolicyRefusal, ProtocolViolation, SecAggError
from protocols.kernel import Left, Message, Party
from protocols.randomness import SystemRandom
from protocols.runtime import Runtime
from tests.contracts.secure_sum import exact, vectors

N, DIMENSION, BOUND = 4, 6, 1000
INPUTS = vectors(N, DIMENSION, BOUND, 11)
SUMS = [CKKSSum(), CKKSSum(SharedByClients(), key=SharedKey(b"k" * 32))]


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


def upload_of(sent: Message) -> Upload:
    return Upload.decode(EncryptedInput.decode(sent.body).ciphertexts)


def words(total: Sum, p: CKKSParameters) -> np.ndarray:
    return unpack(total.first, p.coefficients, total.width[0])


def with_first(total: Sum, changed: np.ndarray) -> Sum:
    width = max(1, int(changed.max()).bit_length())
    return Sum((width, total.width[1]), pack(changed, width), total.second)


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
    twice = Sum((total.width[0], width), total.first, pack(second, width))
    return replace(request, ciphertexts=twice.encode())


def boxes_swapped(seen: Seen, request: OpenRequest) -> OpenRequest:
    return replace(request, tickets=request.tickets | {0: request.tickets[1], 1: request.tickets[0]})


def box_missing(seen: Seen, request: OpenRequest) -> OpenRequest:
    return replace(request, tickets={i: b for i, b in request.tickets.items() if i != 3})


def stranger(seen: Seen, request: OpenRequest) -> OpenRequest:
    return replace(request, tickets=request.tickets | {99: request.tickets[0]})


ATTACKS = [
    one_client, one_client_named_alone, one_client_in_place_of_all, all_but_one, plus(0), plus(-1), doubled,
    boxes_swapped, box_missing, stranger,
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

    with pytest.raises(Aborted, match="check values"):
        run(CKKSSum(), attack)


def test_the_sum_itself_rerandomised_opens_to_the_sum() -> None:
    """The control: what the refusals above turn on is the plaintext, not the ciphertext's bytes."""
    protocol = CKKSSum()
    seen: list[Seen] = []

    def attack(server: Seen, request: OpenRequest) -> OpenRequest:
        return replace(request, ciphertexts=server.sum_of(0, 1, 2, 3).finish().encode())

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


def holder_until_open(store: object) -> tuple[Runtime, Message]:
    """A real holder on a store, up to the request to open."""
    protocol, random = CKKSSum(), SystemRandom()
    session = protocol.session(["a", "b", "c"], DIMENSION, BOUND, random=random)
    holder = Runtime(protocol, session, store)  # type: ignore[arg-type]
    holder.begin(protocol.helper(session, Party(HOLDER), random=random))
    step = protocol.server(session, random=random)
    clients = [protocol.client(session, i, INPUTS[i], random=random).state for i in range(3)]
    server, queue = step.state, step.send
    for _ in range(3):
        for request in queue:
            if request.recipient.role == HOLDER:
                answers = holder.handle(request)
            else:
                taken = clients[request.recipient.number].receive(request, random)
                clients[request.recipient.number], answers = taken.state, taken.send
            for answer in answers:
                server = server.receive(answer, random).state
        closed = server.close(random)
        server, queue = closed.state, closed.send
    return holder, queue[0]


def test_a_holder_that_restarts_still_opens_once(tmp_path: object) -> None:
    from protocols.store import MemoryStore

    holder, request = holder_until_open(MemoryStore())
    assert len(holder.handle(request)) == 1
    with pytest.raises(SecAggError):
        holder.handle(request)


def test_malformed_requests_leave_the_holder_able_to_open() -> None:
    from protocols.store import MemoryStore

    holder, request = holder_until_open(MemoryStore())
    for body in (b"", request.body[:-1], request.body + b"\0", request.body[:100]):
        with pytest.raises(PeerError):
            holder.handle(replace(request, body=body))
    with pytest.raises(PeerError):
        holder.handle(replace(request, session=b"\7" * 32))
    assert len(holder.handle(request)) == 1


def test_a_holder_insists_on_its_own_least_number_of_contributions() -> None:
    protocol, random = CKKSSum(), SystemRandom()
    names, own = ["a", "b", "c"], Policy(min_survivors=3)
    fewer = protocol.session(names, DIMENSION, BOUND, random=random)
    with pytest.raises(PolicyRefusal, match="survivors: the policy demands at least 3"):
        protocol.helper(fewer, Party(HOLDER), random=random, policy=own)
    session = protocol.session(names, DIMENSION, BOUND, random=random, min_survivors=3)
    holder = protocol.helper(session, Party(HOLDER), random=random, policy=own).state
    joined = Joined({0: Join(bytes([1] * 32), b""), 1: Join(bytes([2] * 32), b"")})
    request = Message(session.context, KEY, "server", 0, HOLDER, 0, joined.encode())
    with pytest.raises(PolicyRefusal, match="at least 3"):
        holder.receive(request, random)


@pytest.mark.parametrize(
    "keys",
    [
        {0: bytes(32), 1: b"\1" + bytes(31)},
        {0: b"a" * 32, 1: b"a" * 32},
        {0: b"a" * 32, 7: b"b" * 32},
    ],
    ids=["low order", "one key twice", "not on the roster"],
)
def test_a_holder_refuses_bad_client_keys(keys: dict[int, bytes]) -> None:
    protocol, random = CKKSSum(), SystemRandom()
    session = protocol.session(["a", "b", "c"], DIMENSION, BOUND, random=random)
    holder = protocol.helper(session, Party(HOLDER), random=random).state
    request = Message(
        session.context,
        KEY,
        "server",
        0,
        HOLDER,
        0,
        Joined({i: Join(key, b"") for i, key in keys.items()}).encode(),
    )
    with pytest.raises((PeerError, Misuse)):
        holder.receive(request, random)


def test_a_server_cannot_swap_the_holders_context() -> None:
    """The context that the server chose is one whose secret key it knows."""

    def swap(sent: Message) -> Message:
        if sent.stage != INPUT or sent.sender.role != "server":
            return sent
        keys = ClientKeys.decode(sent.body)
        own = Context.make(Context.load(keys.published.context, "server").parameters)
        return replace(
            sent, body=replace(keys, published=replace(keys.published, context=own.dump())).encode()
        )

    with pytest.raises(Aborted):
        simulate(CKKSSum(), INPUTS, bound=BOUND, tamper=swap)


def test_a_context_with_a_secret_key_is_refused_by_the_server() -> None:
    def leak(sent: Message) -> Message:
        if sent.stage != KEY or sent.sender.role != HOLDER:
            return sent
        keys = HolderKeys.decode(sent.body)
        own = Context.make(Context.load(keys.published.context, "server").parameters)
        return replace(
            sent,
            body=replace(keys, published=replace(keys.published, context=own.dump(secret=True))).encode(),
        )

    with pytest.raises(Aborted) as caught:
        simulate(CKKSSum(), INPUTS, bound=BOUND, tamper=leak)
    assert "carries a secret key" in "".join(caught.value.__notes__)


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


def test_states_do_not_show_or_keep_secrets() -> None:
    protocol, random = SUMS[1], SystemRandom()
    session = protocol.session(["a", "b", "c"], DIMENSION, BOUND, random=random)
    ready = protocol.client(session, 0, INPUTS[0], random=random).state
    holder = CKKSSum()
    other = holder.session(["a", "b", "c"], DIMENSION, BOUND, random=random)
    waiting = holder.helper(other, Party(HOLDER), random=random).state
    joined = Joined({i: Join(bytes([i + 1]) * 32, b"") for i in range(3)})
    step = waiting.receive(Message(other.context, KEY, "server", 0, HOLDER, 0, joined.encode()), random)
    made = step.state.key.secrets
    for state, secrets in (
        (ready, [ready.key.root]),
        (step.state, [made.keys.secret, made.private, made.check_key]),
    ):
        shown = repr(state) + str(state)
        assert all(repr(secret)[2:20] not in shown and secret.hex()[:16] not in shown for secret in secrets)
    sent = b"".join(m.body for m in step.send)
    assert made.keys.secret[20:60] not in sent
    assert made.check_key not in sent
    text = str(protocol.protection(session)) + str(holder.protection(other))
    assert "secret" not in text


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


def test_a_total_ends_in_left_for_all_who_held_a_secret() -> None:
    from protocols.store import MemoryStore

    holder, request = holder_until_open(MemoryStore())
    holder.handle(request)
    assert CKKSSum().forgets(Left())
    with pytest.raises(PolicyRefusal, match="over"):
        holder.handle(request)
