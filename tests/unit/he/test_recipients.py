"""The key holder answers to the parties that the configuration names: the server, and named clients past the server."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from he import CKKSSum, KeyHolder, PaillierSum, SharedByClients
from he.arrangements import arrangement
from he.roles.messages import OpenedTotal, Received, TotalBox
from he.roles.recipients import DELIVER, AwaitsTotal
from protocols import SecureSum, simulate
from protocols.errors import (
    Aborted,
    Misuse,
    PeerError,
    PolicyRefusal,
    ProtocolViolation,
    StackError,
    WireError,
)
from protocols.identity import Identity, Member, Roster
from protocols.kernel import SERVER, Message, Party, State, client
from protocols.randomness import SystemRandom
from protocols.runtime import Runtime
from protocols.session import Session
from protocols.stack import Stack
from protocols.store import MemoryStore, Store
from protocols.summation import Total
from tests.contracts.protocol import RELAXED
from tests.contracts.secure_sum import exact, vectors
from tests.paillier_fixed import ring

RANDOM = SystemRandom()
NAMES = ("a", "b", "c", "d")
INPUTS = vectors(4, 5, 50, 11)
HOLDER = "key-holder"
Make = Callable[[tuple[str, ...]], SecureSum]


def paillier(recipients: tuple[str, ...]) -> SecureSum:
    chosen = KeyHolder(recipients=recipients)
    return PaillierSum(chosen, key_bits=2048, keys=ring(KeyHolder()), min_survivors=2)


def ckks(recipients: tuple[str, ...]) -> SecureSum:
    return CKKSSum(KeyHolder(recipients=recipients), min_survivors=2)


BOTH = pytest.mark.parametrize("make", [paillier, ckks])


# -- what a configuration may say --


@pytest.mark.parametrize(
    "bad",
    [(), ("",), ("server", " "), ("server", "a", "a"), ("server", "server"), "server", ("server", 3), None],
)
def test_recipients_are_distinct_names(bad: object) -> None:
    with pytest.raises(Misuse, match="recipients"):
        KeyHolder(recipients=bad)  # type: ignore[arg-type]  # what a caller might write


def test_the_server_is_always_one_of_them_and_the_refusal_says_why() -> None:
    with pytest.raises(Misuse, match="the server decodes the sum"):
        KeyHolder(recipients=("a",))


def test_their_order_says_nothing() -> None:
    assert KeyHolder(recipients=("b", "server", "a")) == KeyHolder(recipients=("server", "a", "b"))
    assert KeyHolder().recipients == ("server",)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("keyholder", ("server",)),
        ("keyholder-for-server", ("server",)),
        ("keyholder-for-server+site-1", ("server", "site-1")),
        ("keyholder-for-b+a+server", ("server", "a", "b")),
    ],
)
def test_the_command_line_names_them(text: str, names: tuple[str, ...]) -> None:
    chosen = arrangement(text)
    assert isinstance(chosen, KeyHolder)
    assert chosen.recipients == names


@pytest.mark.parametrize(
    "text", ["keyholder-for-", "keyholder-for-a", "keyholder-for-server+", "keyholder-to-a"]
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(Misuse):
        arrangement(text)


@BOTH
def test_a_session_without_a_named_client_is_refused(make: Make) -> None:
    with pytest.raises(Misuse, match="'x' to be given the sum"):
        make(("server", "x")).session(NAMES, 5, 50, random=RANDOM)


def test_a_roster_without_a_named_client_is_refused_at_once() -> None:
    roster = Roster.of("f", 1, [Member(n, "client", Identity.generate(n).public) for n in NAMES])
    chosen = KeyHolder(recipients=("server", "x"))
    with pytest.raises(Misuse, match="no such client"):
        PaillierSum(chosen, key_bits=2048, keys=ring(KeyHolder()), roster=roster)
    with pytest.raises(Misuse, match="no such client"):
        CKKSSum(chosen, roster=roster)


@BOTH
def test_who_was_configured_otherwise_refuses_the_session(make: Make) -> None:
    """A server that asks for delivery to another party asks for another session, which nobody joins."""
    session = make(("server", "a")).session(NAMES, 5, 50, random=RANDOM)
    other = make(("server",)).session(NAMES, 5, 50, random=RANDOM)
    assert session.parameters != other.parameters
    for party in (make(("server",)), make(("server", "b")), make(("server", "a", "b"))):
        with pytest.raises(Misuse, match="parameters"):
            party.client(session, 0, INPUTS[0], random=RANDOM)
        with pytest.raises(Misuse, match="parameters"):
            party.helper(session, Party(HOLDER), random=RANDOM)


@BOTH
def test_the_statement_names_them(make: Make) -> None:
    protocol = make(("server", "a"))
    told = protocol.protection(protocol.session(NAMES, 5, 50, random=RANDOM))
    assert "the sum" in told.learns["client a"]
    assert "server and a alone" in told.learns["key holder"]
    assert told.learns["other clients"] == "what the server publishes"
    assert told.parameters["recipients"] == ["server", "a"]
    alone = make(("server",))
    told = alone.protection(alone.session(NAMES, 5, 50, random=RANDOM))
    assert "server alone" in told.learns["key holder"]
    assert told.learns["clients"] == "what the server publishes"


# -- sums --


@BOTH
def test_named_clients_in_the_sum_end_with_it_whoever_leaves_when(make: Make) -> None:
    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        n = data.draw(st.integers(2, 6))
        names = [f"c{i}" for i in range(n)]
        chosen = data.draw(st.lists(st.sampled_from(names), unique=True, min_size=1))
        modulus = data.draw(st.sampled_from([0, 2, 1009, 1 << 64]))
        inputs = dict(zip(names, vectors(n, 3, 1000, data.draw(st.integers(0, 2**31))), strict=True))
        protocol = make(("server", *chosen))
        probe = protocol.session(names, 3, 1000, random=RANDOM, modulus=modulus)
        stages = [stage.name for stage in protocol.stages(probe) if stage.role == "client"]
        counting = next(stage.name for stage in protocol.stages(probe) if stage.counts)
        leaving = data.draw(st.dictionaries(st.sampled_from(names), st.sampled_from(stages), max_size=n - 2))
        drop = {stage: {c for c, s in leaving.items() if s == stage} for stage in stages}
        outcome = simulate(protocol, inputs, drop=drop, bound=1000, modulus=modulus, policy=RELAXED)
        early = {c for c, s in leaving.items() if stages.index(s) <= stages.index(counting)}
        survivors = tuple(i for i, c in enumerate(names) if c not in early)
        assert outcome.total.tolist() == exact(list(inputs.values()), survivors, modulus)
        assert set(outcome.received) == set(chosen) - set(leaving)
        for total in outcome.received.values():
            assert total.total.tolist() == outcome.total.tolist()
            assert total.survivors == survivors

    check()


@BOTH
def test_nothing_changes_where_no_client_is_named(make: Make) -> None:
    protocol = make(("server",))
    seen: list[Message] = []
    outcome = simulate(protocol, dict(zip(NAMES, INPUTS, strict=True)), observe=seen.append)
    assert outcome.received == {}
    assert DELIVER not in protocol.stages(outcome.session)
    assert {m.stage for m in seen} == {stage.name for stage in protocol.stages(outcome.session)}
    assert not protocol.recipients
    assert not protocol.clients_learn_sum


@BOTH
def test_with_all_named_clients_gone_the_server_has_the_sum_all_the_same(make: Make) -> None:
    protocol = make(("server", "a"))
    probe = protocol.session(NAMES, 5, 50, random=RANDOM)
    counting = next(stage.name for stage in protocol.stages(probe) if stage.counts)
    outcome = simulate(protocol, dict(zip(NAMES, INPUTS, strict=True)), drop={counting: {"a"}})
    assert outcome.total.tolist() == exact(INPUTS, (1, 2, 3))
    assert outcome.received == {}


# -- every step from stored state, and attacks --


class Played:
    """A session over stores, every step from stored bytes; stops before the sum is delivered."""

    def __init__(self, protocol: SecureSum) -> None:
        self.protocol, self.stores = protocol, {}
        self.session: Session = protocol.session(NAMES, 5, 50, random=RANDOM)
        self.runtimes: dict[Party, Runtime] = {}
        for i in range(len(NAMES)):
            self._begin(client(i), protocol.client(self.session, i, INPUTS[i], random=RANDOM))
        for party in protocol.helpers(self.session):
            self._begin(party, protocol.helper(self.session, party, random=RANDOM))
        step = protocol.server(self.session, random=RANDOM)
        self.server: State = step.state
        self.queue = step.send
        self.answers: list[Message] = []
        for stage in protocol.stages(self.session)[:-1]:
            assert stage != DELIVER
            self.deliver()
            self.close()

    def _begin(self, party: Party, step: object) -> None:
        store: Store = MemoryStore()
        self.stores[party] = store
        self.runtimes[party] = Runtime(self.protocol, self.session, store)
        self.runtimes[party].begin(step)  # type: ignore[arg-type]  # a Step

    def deliver(self) -> None:
        for request in self.queue:
            for answer in self.runtimes[request.recipient].handle(Message.from_wire(request.to_wire())):
                self.answers.append(answer)
                self._keep(self.server.receive(answer, RANDOM).state)

    def close(self) -> None:
        step = self.server.close(RANDOM)
        self.queue = step.send
        self._keep(step.state)

    def _keep(self, state: State) -> None:
        self.server = self.protocol.decode_state(self.protocol.encode_state(state))


@BOTH
def test_each_step_from_stored_state(make: Make) -> None:
    played = Played(make(("server", "b", "d")))
    assert [m.recipient for m in played.queue] == [client(1), client(3)]
    assert list(played.server.waiting_for()) == [client(1), client(3)]
    played.deliver()
    assert not list(played.server.waiting_for())
    played.close()
    assert isinstance(played.server, Total)
    whole = exact(INPUTS, (0, 1, 2, 3))
    assert played.server.total.tolist() == whole
    for i in (1, 3):
        total = played.runtimes[client(i)].total()
        assert total is not None
        assert total.total.tolist() == whole
    assert played.runtimes[client(0)].total() is None


@BOTH
def test_what_the_server_carries_shows_nothing_and_fits_nobody_else(make: Make) -> None:
    played = Played(make(("server", "b", "d")))
    to_b, to_d = played.queue
    plain = np.array(exact(INPUTS, (0, 1, 2, 3)), np.int64).tobytes()
    assert plain not in to_b.body
    assert plain not in to_d.body
    swapped = replace(to_d, body=to_b.body)
    with pytest.raises(ProtocolViolation, match="does not open"):
        played.runtimes[client(3)].handle(swapped)
    for body in (to_d.body[:-1], to_d.body + b"\0", TotalBox(b"").encode(), b""):
        with pytest.raises(PeerError):
            played.runtimes[client(3)].handle(replace(to_d, body=body))
    changed = bytearray(to_d.body)
    changed[-1] ^= 1
    with pytest.raises(ProtocolViolation, match="does not open"):
        played.runtimes[client(3)].handle(replace(to_d, body=bytes(changed)))
    assert played.runtimes[client(3)].handle(to_d)  # what was refused changed nothing
    with pytest.raises(PeerError):
        played.runtimes[client(3)].handle(to_d)  # once


@BOTH
def test_a_client_that_is_not_named_is_given_nothing(make: Make) -> None:
    played = Played(make(("server", "b")))
    (to_b,) = played.queue
    redirected = replace(to_b, recipient_index=0)
    with pytest.raises(PolicyRefusal, match="over"):
        played.runtimes[client(0)].handle(redirected)
    assert played.runtimes[client(0)].total() is None


@BOTH
def test_a_box_of_another_session_is_refused(make: Make) -> None:
    protocol = make(("server", "b"))
    one, other = Played(protocol), Played(protocol)
    with pytest.raises(ProtocolViolation, match="session"):
        one.runtimes[client(1)].handle(other.queue[0])
    moved = replace(other.queue[0], session=one.session.context)
    with pytest.raises(ProtocolViolation, match="does not open"):
        one.runtimes[client(1)].handle(moved)


@BOTH
def test_the_holder_answers_nobody_but_the_server(make: Make) -> None:
    """Not even a client that is to be given the sum may ask for it."""
    protocol = make(("server", "b"))
    session = protocol.session(NAMES, 5, 50, random=RANDOM)
    stop = next(stage.name for stage in reversed(protocol.stages(session)) if stage.role == HOLDER)

    def ask(sent: Message) -> Message:
        asked = sent.stage == stop and sent.sender == SERVER
        return replace(sent, sender_role="client", sender_index=1) if asked else sent

    with pytest.raises(Aborted) as caught:
        simulate(protocol, dict(zip(NAMES, INPUTS, strict=True)), tamper=ask)
    assert any("expected a message from a server, got one from client 1" in n for n in caught.value.__notes__)


@BOTH
@pytest.mark.parametrize("change", ["left out", "one more", "another's"])
def test_a_holder_that_answers_to_others_than_those_named_is_refused_by_the_server(
    make: Make, change: str
) -> None:
    def tamper(sent: Message) -> Message:
        if sent.stage != "open" or sent.sender.role != HOLDER:
            return sent
        opened = OpenedTotal.decode(sent.body)
        box = opened.boxes[1]
        boxes = {"left out": {}, "one more": {0: box, 1: box}, "another's": {0: box}}[change]
        return replace(sent, body=replace(opened, boxes=boxes).encode())

    with pytest.raises(Aborted) as caught:
        simulate(make(("server", "b")), dict(zip(NAMES, INPUTS, strict=True)), tamper=tamper)
    assert any("boxes for the clients" in note for note in caught.value.__notes__)


@BOTH
def test_wrong_receipts_are_refused_and_named(make: Make) -> None:
    played = Played(make(("server", "b")))
    (receipt,) = played.runtimes[client(1)].handle(played.queue[0])
    with pytest.raises(WireError, match=r"."):
        played.server.receive(replace(receipt, body=b"x"), RANDOM)
    with pytest.raises(ProtocolViolation, match="client 2 was not asked in stage 'total'"):
        played.server.receive(replace(receipt, sender_index=2), RANDOM)
    with pytest.raises(ProtocolViolation, match="expected a message from a client"):
        played.server.receive(replace(receipt, sender_role="server", sender_index=0), RANDOM)
    done = played.server.receive(receipt, RANDOM).state
    with pytest.raises(ProtocolViolation, match="has answered stage 'total' already"):
        done.receive(replace(receipt, body=Received().encode()), RANDOM)


def test_states_that_wait_for_a_sum_show_no_key() -> None:
    played = Played(paillier(("server", "b")))
    saved = played.stores[client(1)].get(f"session/{played.session.context.hex()}")
    assert saved is not None
    state = played.protocol.decode_state(saved)
    assert isinstance(state, AwaitsTotal)
    assert len(state.key) == 32
    assert repr(state.key) not in repr(state)
    assert played.protocol.encode_state(state) == saved


# -- with layers --


def test_noise_of_the_server_does_not_go_with_clients_that_see_the_sum() -> None:
    from dp import ClientDP, DistributedDP

    noisy = ClientDP(noise_multiplier=1.0)
    for sum_ in (
        paillier(("server", "a")),
        ckks(("server", "a")),
        CKKSSum(SharedByClients()),
        PaillierSum(SharedByClients(), key_bits=2048, keys=ring(SharedByClients())),
    ):
        with pytest.raises(StackError, match="shows clients the sum without it"):
            Stack([noisy, sum_])
    assert Stack([noisy, paillier(("server",))]).layers
    assert Stack([DistributedDP(noise_multiplier=1.0), paillier(("server", "a"))]).layers
