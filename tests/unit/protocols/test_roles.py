"""What every role does by default, and what a party may do twice."""

import numpy as np
import pytest

from protocols import PlainSum
from protocols.errors import Misuse, ProtocolViolation, SpentUpdate, WireError
from protocols.kernel import SERVER, Left, Party, Step, client, message
from protocols.randomness import SystemRandom
from protocols.runtime import Runtime, recall, remember
from protocols.store import MemoryStore
from protocols.summation import Total

RANDOM = SystemRandom()


def test_a_state_that_waits_for_nothing_refuses_everything_and_names_the_sender() -> None:
    sent = message(bytes(32), "input", client(3), SERVER, b"")
    with pytest.raises(ProtocolViolation, match=r"Left accepts no message.*'input'.*client 3") as caught:
        Left().receive(sent, RANDOM)
    assert caught.value.party == "client 3"
    with pytest.raises(Misuse, match="no stage to close"):
        Left().close(RANDOM)
    assert list(Left().waiting_for()) == []


def test_the_server_waits_for_those_who_have_not_answered() -> None:
    protocol = PlainSum()
    session = protocol.session(["a", "b", "c"], 2, 5, random=RANDOM)
    state = protocol.server(session, random=RANDOM).state
    assert list(state.waiting_for()) == [client(0), client(1), client(2)]
    one = protocol.client(session, 1, np.array([1, 2]), random=RANDOM).state
    asked = protocol.server(session, random=RANDOM).send[1]
    state = state.receive(one.receive(asked, RANDOM).send[0], RANDOM).state
    assert list(state.waiting_for()) == [client(0), client(2)]


def test_a_sum_without_helpers_refuses_to_start_one() -> None:
    protocol = PlainSum()
    session = protocol.session(["a", "b"], 1, 1, random=RANDOM)
    with pytest.raises(Misuse, match="has no holder 0"):
        protocol.helper(session, Party("holder", 0), random=RANDOM)


def test_final_states_keep_their_tags() -> None:
    protocol = PlainSum()
    total = Total(np.array([1, -2], np.int64), (0, 2), ("client 1",))
    for state, tag in ((Left(), 1), (total, 2)):
        data = protocol.encode_state(state)
        assert tag in data[:4]
        back = protocol.decode_state(data)
        assert type(back) is type(state)
        assert protocol.encode_state(back) == data
    with pytest.raises(WireError):
        protocol.decode_state(b"\x03\0\0\0")


class TestMarks:
    def remember(self, store: MemoryStore, *marks: str, allow_resend: bool = False) -> None:
        with store.transaction() as transaction:
            remember(transaction, PlainSum(), Step(Left(), marks=marks), allow_resend=allow_resend)

    def test_a_mark_is_set_once(self) -> None:
        store = MemoryStore()
        self.remember(store, "spent/01")
        with pytest.raises(SpentUpdate, match=r"^spent: "):
            self.remember(store, "spent/01")

    def test_who_may_send_an_update_again_may_not_answer_again(self) -> None:
        store = MemoryStore()
        self.remember(store, "spent/01", "answered/02")
        self.remember(store, "spent/01", "answered/03", allow_resend=True)
        assert store.marked("answered/03")
        with pytest.raises(SpentUpdate, match=r"^answered: "):
            self.remember(store, "spent/01", "answered/02", allow_resend=True)

    def test_memory_is_kept_beyond_the_session(self) -> None:
        store, protocol = MemoryStore(), PlainSum()
        assert recall(store, protocol) is None
        with store.transaction() as transaction:
            remember(transaction, protocol, Step(Left(), memory=b"kept"))
        assert recall(store, protocol) == b"kept"
        self.remember(store, "spent/01")
        assert recall(store, protocol) == b"kept"


class TestRuntime:
    def test_a_client_and_a_server_over_their_stores(self) -> None:
        protocol = PlainSum()
        session = protocol.session(["a", "b"], 2, 5, random=RANDOM)
        server = Runtime(protocol, session, MemoryStore())
        asks = server.begin(protocol.server(session, random=RANDOM))
        assert server.total() is None
        for i, vector in enumerate(([1, 2], [3, -4])):
            party = Runtime(protocol, session, store := MemoryStore(), random=RANDOM)
            assert party.random is RANDOM
            party.begin(protocol.client(session, i, np.array(vector), random=RANDOM))
            assert store.names("session/") == (f"session/{session.context.hex()}",)
            server.handle(party.handle(asks[i])[0])
            assert store.names("session/") == ()  # nothing is left of a session that is over
            assert party.total() is None
        server.close()
        total = server.total()
        assert total is not None
        assert total.total.tolist() == [4, -2]

    def test_a_session_is_begun_once(self) -> None:
        protocol = PlainSum()
        session = protocol.session(["a", "b"], 1, 5, random=RANDOM)
        party = Runtime(protocol, session, MemoryStore(), allow_resend=True)
        party.begin(protocol.client(session, 0, np.array([1]), random=RANDOM))
        with pytest.raises(SpentUpdate, match="begun"):
            party.begin(protocol.client(session, 0, np.array([1]), random=RANDOM))
