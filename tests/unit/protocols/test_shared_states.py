"""What the states of every protocol share: who may answer, what is read of a message, and who is named for what."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import ClassVar

import pytest

from protocols import PlainSum
from protocols.codec import Record
from protocols.errors import ProtocolViolation, WireError
from protocols.kernel import SERVER, Message, Party, Step, client, message
from protocols.randomness import SecureRandom, SystemRandom
from protocols.roles import Ask, Asked, Asking, naming, read, requests
from protocols.session import Session

RANDOM = SystemRandom()


@dataclass(frozen=True)
class Number(Record):
    value: int


@dataclass(frozen=True)
class Counting(Asking):
    """Asks keepers 1 and 2."""

    STAGE: ClassVar[str] = "count"
    ROLE: ClassVar[str] = "keeper"

    session: Session
    answers: dict[int, int] = field(default_factory=dict)

    def asked(self) -> Collection[int]:
        return (1, 2)

    def receive(self, sent: Message, random: SecureRandom) -> Step:
        number, body = self.take(Number, sent)
        self.answers[number] = body.value
        return Step(self)


@dataclass(frozen=True)
class Keeping(Asked):
    """A keeper that answers at two stages."""

    STAGE: ClassVar[str] = "count"

    session: Session
    index: int

    @property
    def party(self) -> Party:
        return Party("keeper", self.index)


@pytest.fixture
def session() -> Session:
    return PlainSum().session(["a", "b", "c"], 1, 5, random=RANDOM)


def from_keeper(session: Session, number: int, body: bytes) -> Message:
    return message(session.context, "count", Party("keeper", number), SERVER, body)


def test_only_who_was_asked_may_answer_and_only_once(session: Session) -> None:
    state = Counting(session)
    assert state.waiting_for() == [Party("keeper", 1), Party("keeper", 2)]
    one = from_keeper(session, 1, Number(7).encode())
    state.receive(one, RANDOM)
    assert state.waiting_for() == [Party("keeper", 2)]
    with pytest.raises(ProtocolViolation, match="keeper 1 has answered stage 'count' already") as twice:
        state.receive(one, RANDOM)
    with pytest.raises(ProtocolViolation, match="keeper 3 was not asked in stage 'count'") as stranger:
        state.receive(from_keeper(session, 3, Number(7).encode()), RANDOM)
    assert (twice.value.party, stranger.value.party, state.answers) == ("keeper 1", "keeper 3", {1: 7})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"session": bytes(32)}, "expected session"),
        ({"stage": "other"}, "expected stage 'count'"),
        ({"sender_role": "client"}, "expected a message from a keeper"),
        ({"recipient_role": "client"}, "expected a message to server"),
    ],
)
def test_what_is_meant_for_another_state_changes_nothing(
    session: Session, change: dict[str, object], said: str
) -> None:
    state = Counting(session)
    with pytest.raises(ProtocolViolation, match=said):
        state.receive(replace(from_keeper(session, 1, Number(7).encode()), **change), RANDOM)  # type: ignore[arg-type]
    assert state.answers == {}


def test_a_body_that_is_none_names_its_sender_and_counts_as_no_answer(session: Session) -> None:
    state = Counting(session)
    with pytest.raises(WireError, match=r"^keeper 2: ") as caught:
        state.receive(from_keeper(session, 2, b"\0"), RANDOM)
    assert caught.value.party == "keeper 2"
    assert state.waiting_for() == [Party("keeper", 1), Party("keeper", 2)]


def test_without_a_list_of_its_own_a_state_waits_for_the_whole_roster(session: Session) -> None:
    state = PlainSum().server(session, random=RANDOM).state
    assert list(state.waiting_for()) == [client(0), client(1), client(2)]


def test_whoever_is_asked_takes_a_request_of_its_own_and_answers_the_server(session: Session) -> None:
    state = Keeping(session, 2)
    (asked,) = requests(session, "count", {state.party: Ask()})
    assert state.take(Ask, asked) == Ask()
    (answer,) = state.answer(Number(3))
    assert (answer.sender, answer.recipient, answer.stage) == (Party("keeper", 2), SERVER, "count")
    with pytest.raises(ProtocolViolation, match="expected a message to keeper 1"):
        Keeping(session, 1).take(Ask, asked)
    with pytest.raises(ProtocolViolation, match="expected stage 'tell'"):
        state.take(Ask, asked, "tell")
    (told,) = state.answer(Number(3), "tell")
    assert told.stage == "tell"


def test_what_goes_to_everybody_is_encoded_once(session: Session) -> None:
    class Counted(Ask):
        times = 0

        def encode(self) -> bytes:
            type(self).times += 1
            return super().encode()

    same = Counted()
    sent = requests(session, "count", {client(0): same, client(1): same, client(2): Number(1)})
    assert [m.recipient for m in sent] == [client(0), client(1), client(2)]
    assert [m.body for m in sent] == [b"", b"", Number(1).encode()]
    assert Counted.times == 1


def test_errors_of_bytes_within_name_who_sent_them_and_others_pass() -> None:
    with pytest.raises(WireError, match=r"^the total of x: wrong") as caught, naming("x", "the total of "):
        raise WireError("wrong")
    assert caught.value.party == "x"
    with pytest.raises(ProtocolViolation, match=r"^other"), naming("x"):
        raise ProtocolViolation("other")
    with pytest.raises(WireError, match="client 1"):
        read(Number, message(bytes(32), "count", client(1), SERVER, b""))
