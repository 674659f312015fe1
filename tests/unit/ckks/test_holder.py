"""A key holder opens once, for keys and contexts that it may trust, and shows no secret."""

from dataclasses import replace

import pytest

from he.ckks import CKKSSum
from he.ckks.keys import Context
from he.ckks.messages import KEY, ClientKeys, HolderKeys, Join, Joined
from he.roles.messages import (
    HOLDER,
    INPUT,
)
from protocols import Policy, simulate
from protocols.errors import Aborted, Misuse, PeerError, PolicyRefusal, SecAggError
from protocols.kernel import Left, Message, Party
from protocols.randomness import SystemRandom
from protocols.runtime import Runtime
from tests.unit.ckks.sessions import BOUND, DIMENSION, INPUTS, SUMS


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


def test_a_total_ends_in_left_for_all_who_held_a_secret() -> None:
    from protocols.store import MemoryStore

    holder, request = holder_until_open(MemoryStore())
    holder.handle(request)
    assert CKKSSum().forgets(Left())
    with pytest.raises(PolicyRefusal, match="over"):
        holder.handle(request)
