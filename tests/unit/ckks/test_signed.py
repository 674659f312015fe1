"""With a roster every key that the server relays is signed: a server in the middle is found out."""

from dataclasses import replace

import numpy as np
import pytest

from he.arrangements import SharedByClients
from he.ckks import CKKSSum
from he.ckks.joining import published
from he.ckks.keys import Context
from he.ckks.messages import JOIN, KEY, ClientKeys, HolderKeys, Join, Joined
from he.ckks.whole_key import Secrets
from he.roles.messages import HOLDER, INPUT
from he.sealing import agree, seal
from protocols.errors import Misuse, PeerError, PolicyRefusal
from protocols.identity import BadSignature, Identity, Member, Roster
from protocols.kernel import SERVER, Message, Party, State, client
from protocols.key_agreement import public_key
from protocols.policy import Policy
from protocols.randomness import SystemRandom
from protocols.session import Session
from protocols.summation import Total
from tests.contracts.secure_sum import exact, vectors

NAMES = ("a", "b", "c")
RANDOM = SystemRandom()
PEOPLE = {name: Identity.generate(name) for name in (*NAMES, "key holder")}
ROSTER = Roster.of(
    "test", 1, [Member(n, HOLDER if n == "key holder" else "client", one.public) for n, one in PEOPLE.items()]
)
INPUTS = vectors(3, 4, 50, 3)
STRICT = Policy(threat="malicious", signed_roster=True)


def of(name: str) -> CKKSSum:
    return CKKSSum(identity=PEOPLE[name], roster=ROSTER)


def parties() -> tuple[Session, dict[Party, State], tuple[Message, ...]]:
    server = CKKSSum(roster=ROSTER)
    session = server.session(NAMES, 4, 50, random=RANDOM)
    states: dict[Party, State] = {
        client(i): of(name).client(session, i, INPUTS[i], random=RANDOM, policy=STRICT).state
        for i, name in enumerate(NAMES)
    }
    states[Party(HOLDER)] = of("key holder").helper(session, Party(HOLDER), random=RANDOM).state
    step = server.server(session, random=RANDOM)
    states[SERVER] = step.state
    return session, states, step.send


def stage(states: dict[Party, State], queue: tuple[Message, ...]) -> tuple[Message, ...]:
    for request in queue:
        step = states[request.recipient].receive(request, RANDOM)
        states[request.recipient] = step.state
        for answer in step.send:
            states[SERVER] = states[SERVER].receive(answer, RANDOM).state
    closed = states[SERVER].close(RANDOM)
    states[SERVER] = closed.state
    return closed.send


def test_a_signed_session_is_exact_and_says_malicious() -> None:
    session, states, queue = parties()
    for _ in range(4):
        queue = stage(states, queue)
    assert isinstance(states[SERVER], Total)
    assert states[SERVER].total.tolist() == exact(INPUTS, (0, 1, 2))
    protection = of("a").protection(session)
    assert protection.threat == "malicious"
    assert any("roster" in text for text in protection.assumptions)
    unsigned = CKKSSum().session(NAMES, 4, 50, random=RANDOM)
    with pytest.raises(PolicyRefusal, match="threat"):
        CKKSSum().client(unsigned, 0, INPUTS[0], random=RANDOM, policy=STRICT)
    with pytest.raises(Misuse, match="parameters"):
        of("a").client(unsigned, 0, INPUTS[0], random=RANDOM)


def test_a_holder_finds_a_key_that_its_client_did_not_sign() -> None:
    _, states, queue = parties()
    (request,) = stage(states, queue)
    joined = Joined.decode(request.body)
    mine = public_key(RANDOM.bytes(32))
    swaps = [
        joined.clients | {1: Join(mine, joined.clients[1].signature)},
        joined.clients | {1: Join(mine, b"")},
        joined.clients | {1: joined.clients[0], 0: joined.clients[1]},
        joined.clients
        | {1: Join(mine, PEOPLE["a"].sign("ckks join", Join.signed(request.session, 1, mine)))},
        joined.clients | {1: Join(mine, PEOPLE["b"].sign("other", Join.signed(request.session, 1, mine)))},
        joined.clients | {1: Join(mine, PEOPLE["b"].sign("ckks join", Join.signed(b"x" * 32, 1, mine)))},
    ]
    holder = states[Party(HOLDER)]
    for clients in swaps:
        with pytest.raises(BadSignature):
            holder.receive(replace(request, body=Joined(clients).encode()), RANDOM)
    assert holder.receive(request, RANDOM).send


def test_a_client_finds_a_holder_that_is_the_server() -> None:
    """The server runs the holder's part itself, boxes included: all but the signature is right."""
    session, states, queue = parties()
    asked = {r.recipient.number: states[r.recipient].receive(r, RANDOM) for r in queue}
    join = Join.decode(asked[0].send[0].body)
    own = Secrets.make(session, RANDOM)
    shown = published(own, session, None)
    box_key = agree(own.private, join.key, session.context, "to client", "client 0")
    box = seal(box_key, own.check_key + shown.digest, session.context, HOLDER, RANDOM)
    for signature in (b"", PEOPLE["a"].sign("ckks holder", shown.signed(session.context))):
        keys = ClientKeys(replace(shown, signature=signature), box)
        request = Message(session.context, INPUT, "server", 0, "client", 0, keys.encode())
        with pytest.raises(BadSignature):
            asked[0].state.receive(request, RANDOM)
    unsigned = CKKSSum().session(NAMES, 4, 50, random=RANDOM)
    trusting = CKKSSum().client(unsigned, 0, INPUTS[0], random=RANDOM).state
    assert trusting.receive(
        Message(unsigned.context, JOIN, "server", 0, "client", 0, queue[0].body), RANDOM
    ).send, "without a roster nothing is signed, and the statement says so"


def test_a_context_under_the_holders_signature_cannot_be_changed() -> None:
    _, states, queue = parties()
    queue = stage(states, queue)
    answer = states[Party(HOLDER)].receive(queue[0], RANDOM).send[0]
    keys = HolderKeys.decode(answer.body)
    other = Context.make(Context.load(keys.published.context, "server").parameters)
    changed = HolderKeys(replace(keys.published, context=other.dump()), keys.boxes)
    server = states[SERVER].receive(replace(answer, body=changed.encode(), stage=KEY), RANDOM).state
    for request in server.close(RANDOM).send:
        with pytest.raises(PeerError):
            states[request.recipient].receive(request, RANDOM)


def test_only_the_right_identity_plays_a_party() -> None:
    server = CKKSSum(roster=ROSTER)
    session = server.session(NAMES, 4, 50, random=RANDOM)
    zeros = np.zeros(4, np.int64)
    for other in (of("b"), server):
        with pytest.raises(Misuse, match="identity of 'a'"):
            other.client(session, 0, zeros, random=RANDOM)
    with pytest.raises(Misuse, match="identity of 'key holder'"):
        of("a").helper(session, Party(HOLDER), random=RANDOM)
    stranger = server.session(("a", "b", "z"), 4, 50, random=RANDOM)
    with pytest.raises(Misuse, match="no client 'z'"):
        of("key holder").helper(stranger, Party(HOLDER), random=RANDOM)
    with pytest.raises(Misuse, match="roster"):
        CKKSSum(identity=PEOPLE["a"])
    with pytest.raises(Misuse, match="key holder"):
        CKKSSum(SharedByClients(), roster=ROSTER)
