"""A protocol whose result is no sum is audited too: what needs no total is checked, and defects of it are found."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import pytest

from protocols.audit import PROPERTIES, ProtocolBox, Report, audit, subject_of
from protocols.audit.other_results import ABOUT_ANY_RESULT, NO_SUM
from protocols.codec import tags
from protocols.errors import Misuse
from protocols.kernel import Message, State, Step, client
from protocols.policy import Demands
from protocols.protocol import ClientStart
from protocols.randomness import SecureRandom, SystemRandom
from protocols.session import Session
from tests.toys.coin import COMMIT, REVEAL, Coin, Collecting, Committing, JointCoin


class SealedCoin(JointCoin):
    """The toy in the model of a server that lies: so that the properties of that model are checked."""

    def demands(self, session: Session) -> Demands:
        return replace(super().demands(session), threat="malicious")

    def protection(self, session: Session) -> Any:
        return replace(super().protection(session), threat="malicious")


def of(protocol: type[JointCoin]) -> ProtocolBox:
    return ProtocolBox(
        protocol,
        session=lambda names, random: JointCoin().open(names, random),
        given=lambda vector: hashlib.sha256(vector.tobytes()).digest(),
    )


def statuses(report: Report) -> dict[str, str]:
    return {p.name: p.status.value for p in report.properties}


def test_what_needs_no_total_is_checked_and_the_rest_says_why_it_is_not() -> None:
    report = audit(of(SealedCoin), examples=5)
    said = statuses(report)
    found = {"one-answer-per-session", "abandoned-sessions-leave-nothing"}  # the toy marks nothing as sent
    assert {name for name, status in said.items() if status == "failed"} == found
    assert {name for name, status in said.items() if status == "passed"} == ABOUT_ANY_RESULT - found
    others = [p.reason for p in report.properties if p.name not in ABOUT_ANY_RESULT]
    assert len(others) > 30
    assert all(NO_SUM in reason for reason in others)


def test_every_name_of_the_list_is_a_property() -> None:
    assert {p.name for p in PROPERTIES} >= ABOUT_ANY_RESULT


def test_without_the_box_the_refusal_names_it() -> None:
    with pytest.raises(Misuse, match="toy-coin: its result is no sum; give a ProtocolBox"):
        subject_of(JointCoin)


# -- planted defects --


@dataclass(frozen=True)
class Talkative(Committing):
    """Client: its value stands in its repr."""

    value: bytes = field()


@dataclass(frozen=True)
class Deaf(Committing):
    """Client: looks at no session and no recipient."""

    def receive(self, request: Message, random: SecureRandom) -> Step:
        stage = REVEAL if self.committed else COMMIT
        there = (self.session.context, stage, *request.sender, *client(self.index), request.body)
        return super().receive(Message(*there), random)


@dataclass(frozen=True)
class Hoarding(Committing):
    """Client: its value stays in the process."""

    def receive(self, request: Message, random: SecureRandom) -> Step:
        HOARD.append(self.value)
        return super().receive(request, random)


@dataclass(frozen=True)
class Guessable(Committing):
    """Client: what it draws comes from a generator for statistics."""

    def receive(self, request: Message, random: SecureRandom) -> Step:
        np.random.bytes(16)
        return super().receive(request, random)


HOARD: list[bytes] = []


class Broken(SealedCoin):
    """The toy with other clients."""

    states: ClassVar[type[Committing]] = Committing

    def _client(self, start: ClientStart[bytes]) -> Step:
        return Step(self.states(start.session, start.index, start.vector))

    @property
    def kinds(self) -> Mapping[int, type[State]]:
        return tags(Coin, self.states, Collecting)


class TalkativeCoin(Broken):
    states = Talkative


class DeafCoin(Broken):
    states = Deaf


class HoardingCoin(Broken):
    states = Hoarding


class GuessableCoin(Broken):
    states = Guessable


class ForgetfulCoin(Broken):
    """A client's value is not written down."""

    def decode_state(self, data: bytes) -> State:
        state = super().decode_state(data)
        return replace(state, value=bytes(32)) if isinstance(state, Committing) else state


class BlankCoin(SealedCoin):
    """The result is not written down."""

    def decode_state(self, data: bytes) -> State:
        state = super().decode_state(data)
        return Coin(bytes(32)) if isinstance(state, Coin) else state


@pytest.mark.parametrize(
    ("protocol", "name"),
    [
        (TalkativeCoin, "secrets-are-blank"),
        (DeafCoin, "mixed-sessions-refused"),
        (DeafCoin, "swapped-recipients-refused"),
        (HoardingCoin, "nothing-lingers-in-memory"),
        (GuessableCoin, "no-statistical-generators"),
        (ForgetfulCoin, "state-is-data"),
        (BlankCoin, "state-is-data"),
    ],
)
def test_a_planted_defect_is_found(protocol: type[JointCoin], name: str) -> None:
    try:
        assert statuses(audit(of(protocol), examples=3, only=[name])) == {name: "failed"}
    finally:
        HOARD.clear()


# -- sound ones --


@dataclass(frozen=True)
class Bound(Collecting):
    """Server: its result is the session's alone."""

    def close(self, random: SecureRandom) -> Step:
        step = super().close(random)
        if isinstance(step.state, Coin):
            return Step(Coin(hashlib.sha256(self.session.context + step.state.value).digest()))
        return replace(step, state=Bound(self.session, self.commitments, {}, True))


class BoundCoin(SealedCoin):
    """The toy whose result follows from the session's nonce."""

    def _server(self, session: Session, random: SecureRandom, memory: bytes | None) -> Step:
        return replace(super()._server(session, random, memory), state=Bound(session, {}, {}))

    @property
    def kinds(self) -> Mapping[int, type[State]]:
        return tags(Coin, Committing, Bound)


def test_a_session_may_be_opened_with_randomness_of_its_own() -> None:
    box = ProtocolBox(
        BoundCoin,
        session=lambda names, random: JointCoin().open(names, SystemRandom()),
        given=lambda vector: hashlib.sha256(vector.tobytes()).digest(),
    )
    assert statuses(audit(box, examples=2, only=["state-is-data"])) == {"state-is-data": "passed"}


class ShortCoin(SealedCoin):
    """Clients bring a byte each."""

    @staticmethod
    def checked_input(session: Session, vector: Any) -> bytes:
        return bytes(vector)


def test_inputs_that_are_found_in_anything_are_not_looked_for() -> None:
    box = ProtocolBox(
        ShortCoin,
        session=lambda names, random: JointCoin().open(names, random),
        given=lambda vector: bytes([int(vector[0]) % 256]),
    )
    names = ["secrets-are-blank", "nothing-lingers-in-memory", "secrets-die-with-the-session"]
    assert statuses(audit(box, examples=1, only=names)) == dict.fromkeys(names, "passed")
