"""What a sum hands to its parties: policy, memory and messages, also to helpers; shown by a toy with a helper."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest

from protocols import simulate
from protocols.codec import tags
from protocols.errors import Misuse, PeerError
from protocols.kernel import SERVER, Left, Message, Party, State, Step, client
from protocols.plain import INPUT, PlainSum, Ready, Waiting
from protocols.policy import Policy
from protocols.protocol import ClientStart
from protocols.randomness import SecureRandom, SystemRandom
from protocols.session import Session
from protocols.store import MemoryStore
from protocols.summation import IntVector, Total
from secagg import SecAgg

KEEPER = Party("keeper", 0)
RANDOM = SystemRandom()
VECTORS = {"ann": np.array([1]), "bob": np.array([2]), "cat": np.array([4])}


class Idle(State):
    """A helper that waits."""

    TAG: ClassVar[int | None] = 99


class Kept(PlainSum):
    """PlainSum with a helper that does nothing but remember what it was started with."""

    name = "kept"

    def __init__(self, recipients: tuple[str, ...] = ()) -> None:
        self.started: list[tuple[Policy, bytes | None]] = []
        self._recipients = recipients

    @property
    def recipients(self) -> tuple[str, ...]:
        return self._recipients

    @property
    def kinds(self) -> Mapping[int, type[State]]:
        return tags(Waiting, Ready, Idle)

    def helpers(self, session: Session) -> tuple[Party, ...]:
        return (KEEPER,)

    def _helper(
        self, session: Session, party: Party, random: SecureRandom, policy: Policy, memory: bytes | None
    ) -> Step:
        self.started.append((policy, memory))
        return Step(Idle(), memory=b"kept by the keeper")


def test_a_helper_gets_the_policy_and_its_memory() -> None:
    protocol, stores = Kept(), {"keeper 0": MemoryStore()}
    given = Policy(min_cohort=2, min_survivors=1)
    assert simulate(protocol, VECTORS, policy=given, stores=stores).total.tolist() == [7]
    changed = {name: v + 8 for name, v in VECTORS.items()}
    assert simulate(protocol, changed, stores=stores).total.tolist() == [31]
    simulated = [replace(p, allow_simulated=True) for p in (given, protocol.default_policy)]
    assert protocol.started == [(simulated[0], None), (simulated[1], b"kept by the keeper")]


def test_a_helper_is_started_with_what_it_is_given() -> None:
    protocol = Kept()
    session = protocol.session(["a", "b"], 1, 3, random=RANDOM)
    own = Policy(min_cohort=2, min_survivors=1)
    protocol.helper(session, KEEPER, random=RANDOM, policy=own, memory=b"before")
    protocol.helper(session, KEEPER, random=RANDOM)
    assert protocol.started == [(own, b"before"), (protocol.default_policy, None)]
    with pytest.raises(Misuse, match=r"kept/1 has no keeper 1; its helpers are \['keeper 0'\]"):
        protocol.helper(session, Party("keeper", 1), random=RANDOM)


def test_named_recipients_are_clients_of_the_session() -> None:
    assert simulate(Kept(("bob", "cat")), VECTORS).total.tolist() == [7]
    with pytest.raises(Misuse, match="names 'dan' to be given the sum"):
        simulate(Kept(("bob", "dan")), VECTORS)


def test_a_policy_that_is_given_is_held() -> None:
    with pytest.raises(Exception, match="cohort"):
        simulate(Kept(), VECTORS, policy=Policy(min_cohort=4, min_survivors=1))


def redirected(sent: Message, recipient: Party) -> Message:
    return replace(sent, recipient_role=recipient.role, recipient_index=recipient.number)


@pytest.mark.parametrize("stray", [client(9), SERVER, Party("nobody", 0)])
def test_a_message_to_nobody_is_lost_and_holds_up_no_other(stray: Party) -> None:
    def tamper(sent: Message) -> list[Message]:
        return [redirected(sent, stray), sent] if sent.sender == SERVER else [sent]

    assert simulate(PlainSum(), VECTORS, tamper=tamper).total.tolist() == [7]


def test_a_message_of_nobody_is_refused_by_that_name() -> None:
    def tamper(sent: Message) -> list[Message]:
        stranger = replace(sent, sender_index=9)
        return [stranger, sent] if sent.recipient == SERVER and sent.sender.number == 1 else [sent]

    outcome = simulate(PlainSum(), VECTORS, tamper=tamper)
    assert outcome.total.tolist() == [7]
    assert list(outcome.refusals) == ["server about client 9"]
    assert isinstance(outcome.refusals["server about client 9"], PeerError)


def test_what_a_plain_sum_asks_clients_to_accept() -> None:
    for simulated in (False, True):
        session = PlainSum().session(["a", "b"], 1, 3, random=RANDOM, simulated=simulated, min_survivors=2)
        demands = PlainSum().demands(session)
        assert (demands.cohort, demands.survivors, demands.ring_bits) == (2, 2, 64)
        assert (demands.threat, demands.simulated) == ("none", simulated)
    assert [stage.name for stage in PlainSum().stages(session)] == [INPUT]
    assert isinstance(Left(), State)


def test_a_single_vector_shape_is_asked_for() -> None:
    bad: list[Any] = [
        [np.ones(2, int), np.ones(3, int)],
        [np.ones((2, 2), int)] * 2,
        [np.ones(2, int), np.ones((2, 2), int)],
    ]
    for vectors in bad:
        with pytest.raises(Misuse, match="vectors of one length"):
            simulate(PlainSum(), vectors)


class Telling(Ready):
    """A client that ends with a total of its own."""

    TAG: ClassVar[int | None] = 98

    def receive(self, request: Message, random: SecureRandom) -> Step:
        step = super().receive(request, random)
        return replace(step, state=Total(self.vector, (self.index,)))


class Told(PlainSum):
    """PlainSum whose first client is told something."""

    def _client(self, start: ClientStart[IntVector]) -> Step:
        made = Ready if start.index else Telling
        return Step(made(start.session, start.index, start.vector, start.update))


def test_what_clients_received_comes_back_by_their_names() -> None:
    received = simulate(Told(), VECTORS).received
    assert list(received) == ["ann"]
    assert received["ann"].total.tolist() == [1]
    assert simulate(PlainSum(), VECTORS).received == {}


def test_a_session_is_the_first_and_opens_for_anybody_unless_it_is_said() -> None:
    for made in (
        PlainSum().session(["a", "b"], 1, 3, random=RANDOM),
        simulate(PlainSum(), VECTORS).session,
        SecAgg().session(["a", "b", "c"], 1, 3, random=RANDOM),
    ):
        assert (made.round, made.min_survivors, made.modulus, made.simulated) == (1, 1, 0, False)
    demand = SecAgg().wishes.demand
    assert (demand.security, demand.correctness, demand.dropout) == (40, 20, 0.2)
