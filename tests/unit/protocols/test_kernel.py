"""Messages, parties, and what a state refuses; PlainSum's server names the party whose message was wrong."""

from dataclasses import replace

import numpy as np
import pytest

from protocols import simulate
from protocols.errors import Misuse, PeerError, ProtocolViolation, WireError
from protocols.kernel import SERVER, Finished, Message, Party, client, expect, message
from protocols.plain import INPUT, PlainInput, PlainSum, Waiting
from protocols.randomness import SystemRandom
from protocols.session import Session

CONTEXT = b"c" * 32
RANDOM = SystemRandom()


def test_parties_are_written_as_people_say_them() -> None:
    assert [str(SERVER), str(client(3)), str(Party("decryptor", 0))] == ["server", "client 3", "decryptor 0"]


@pytest.mark.parametrize("index", [0, 2**32 - 1])
def test_indices_of_32_bits(index: int) -> None:
    assert message(CONTEXT, "s", client(index), SERVER, b"").sender.number == index


@pytest.mark.parametrize("index", [-1, 2**32, 2**33 - 1])
def test_no_other_indices(index: int) -> None:
    with pytest.raises(Misuse, match="index below"):
        message(CONTEXT, "s", client(index), SERVER, b"")
    with pytest.raises(Misuse, match="index below"):
        message(CONTEXT, "s", SERVER, client(index), b"")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"session": b"d" * 32}, "expected session"),
        ({"stage": "other"}, "expected stage 's'"),
        ({"recipient_index": 2}, "expected a message to client 1, got one to client 2"),
        ({"recipient_role": "server"}, "expected a message to client 1, got one to server"),
    ],
)
def test_a_message_that_does_not_belong_here_blames_its_sender(change: dict[str, object], words: str) -> None:
    good = message(CONTEXT, "s", client(7), client(1), b"")
    expect(good, CONTEXT, "s", "client", client(1))
    with pytest.raises(ProtocolViolation, match=words) as caught:
        expect(replace(good, **change), CONTEXT, "s", "client", client(1))  # type: ignore[arg-type]  # one field each
    assert caught.value.party == "client 7"


def test_a_message_from_another_role_is_refused() -> None:
    with pytest.raises(ProtocolViolation) as caught:
        expect(message(CONTEXT, "s", SERVER, client(1), b""), CONTEXT, "s", "client", client(1))
    assert caught.value.party == "server"


def test_a_final_state_accepts_nothing_and_closes_nothing() -> None:
    with pytest.raises(ProtocolViolation, match="accepts no message") as caught:
        Finished().receive(message(CONTEXT, "s", client(2), SERVER, b""), RANDOM)
    assert caught.value.party == "client 2"
    with pytest.raises(Misuse, match="no stage to close"):
        Finished().close(RANDOM)
    assert list(Finished().waiting_for()) == []


def opened() -> tuple[Session, Waiting]:
    protocol = PlainSum()
    session = protocol.session(["a", "b", "c"], 2, 9, random=RANDOM)
    state = protocol.server(session, random=RANDOM).state
    assert isinstance(state, Waiting)
    return session, state


def sent(session: Session, index: int, body: bytes) -> Message:
    return message(session.context, INPUT, client(index), SERVER, body)


@pytest.mark.parametrize(
    ("index", "body", "kind"),
    [
        (3, PlainInput(np.zeros(2, np.int64)).encode(), ProtocolViolation),
        (1, PlainInput(np.zeros(3, np.int64)).encode(), PeerError),
        (1, PlainInput(np.full(2, 10, np.int64)).encode(), PeerError),
        (1, b"\0", WireError),
    ],
    ids=["not on the roster", "another length", "beyond the bound", "no record"],
)
def test_a_wrong_input_blames_its_sender_and_is_not_added(
    index: int, body: bytes, kind: type[PeerError]
) -> None:
    session, state = opened()
    with pytest.raises(kind) as caught:
        state.receive(sent(session, index, body), RANDOM)
    assert caught.value.party == f"client {index}"
    assert caught.value.args[0] != f"client {index}"
    assert (state.total.tolist(), len(list(state.waiting_for()))) == ([0, 0], 3)


def test_a_second_input_blames_its_sender_and_counts_once() -> None:
    session, state = opened()
    one = sent(session, 2, PlainInput(np.array([1, -2], np.int64)).encode())
    state.receive(one, RANDOM)
    with pytest.raises(ProtocolViolation, match="has answered stage 'input' already") as caught:
        state.receive(one, RANDOM)
    assert caught.value.party == "client 2"
    assert state.total.view(np.int64).tolist() == [1, -2]


@pytest.mark.parametrize(
    ("bound", "modulus", "width"),
    [(1, 0, 4), (2**31 - 1, 0, 4), (2**31, 0, 8), (2**32 - 1, 0, 8), (9, 64, 8)],
)
def test_inputs_travel_in_32_bits_where_all_of_them_fit(bound: int, modulus: int, width: int) -> None:
    sizes = []
    vectors = [np.full(50, bound, np.int64), np.full(50, 0 if modulus else -bound, np.int64)]
    outcome = simulate(
        PlainSum(),
        vectors,
        bound=bound,
        modulus=modulus,
        observe=lambda m: sizes.append(len(m.body)) if m.recipient == SERVER else None,
    )
    assert outcome.total.tolist() == [bound if modulus else 0] * 50
    assert sizes == [9 + 50 * width] * 2
