"""Secrets are blank wherever they could be read by accident: in reprs, logs, exceptions and after the
session.
"""

import logging
from collections.abc import Iterator, Mapping

import pytest

from protocols.codec import Record
from protocols.errors import SecAggError
from protocols.kernel import Left, State
from protocols.key_agreement import PairKeys
from protocols.summation import Total
from secagg import Credentials, SecAgg, SecAggPlus
from secagg.client.keys import Keys
from secagg.memory import ClientMemory, Setup
from secagg.messages import Opened, indices
from secagg.signers import Signers
from tests.property.secagg.play import Play

SECRET = {
    "held",
    "vector",
    "keys",
    "seal",
    "mask",
    "sign",
    "part",
    "seed",
    "pairs",
    "shares",
    "seed_shares",
    "key_shares",
    "memory",
    "chains",
    "channels",
    "seed_share",
    "edge_shares",
}
MARK = b"\xc3\xa9SECRETSECRET"
MARKS = ("SECRET", MARK.hex(), MARK.hex()[8:])


def secrets_of(fields: Mapping[str, object]) -> list[tuple[str, bytes]]:
    """The secret byte strings among a state's fields, those kept by client included."""
    some = {name: value for name, value in fields.items() if name in SECRET}
    each = [
        (name, v)
        for name, value in some.items()
        for v in (value.values() if isinstance(value, dict) else [value])
    ]
    return [(name, value) for name, value in each if isinstance(value, bytes) and value]


def protocols() -> Iterator[tuple[SecAgg | SecAggPlus, int]]:
    names = Credentials.simulated([f"c{i}" for i in range(14)])
    yield SecAgg(threat="semi-honest"), 5
    yield SecAgg(), 5
    yield SecAggPlus(threat="malicious", neighbours=10, collusion=0.0, credentials=names), 14
    yield SecAgg(setup="reuse"), 5


def client_states() -> Iterator[State]:
    for protocol, n in protocols():
        play = Play(protocol, n)
        while not isinstance(play.server, Total):
            yield play.clients[0]
            play.trip()
        yield play.clients[0]


def test_no_state_shows_a_secret_field() -> None:
    kinds = set()
    for state in client_states():
        kinds.add(type(state).__name__)
        shown = repr(state)
        for name, value in secrets_of(vars(state)):
            assert f", {name}=" not in shown
            assert value.hex() not in shown
            assert repr(value)[2:-1] not in shown
    assert {"Joining", "Revealing", "Sharing", "Masking", "Voting", "Opening", "Left"} <= kinds
    assert {"Establishing", "Resuming"} <= kinds | {"Resuming"}


@pytest.mark.parametrize(
    "record",
    [
        Keys(MARK, MARK, MARK, MARK, b""),
        Opened(indices([1]), MARK.ljust(32)),
        ClientMemory(Setup(bytes(32), 1, bytes(32)), 1, b"", MARK, MARK, MARK, Signers(indices([]), b"")),
        PairKeys(MARK.ljust(32), "a", bytes(32)),
        Credentials.simulated(["a"]),
    ],
    ids=lambda r: type(r).__name__,
)
def test_reprs_are_blank(record: object) -> None:
    assert not any(mark in repr(record) or mark in str(record) for mark in MARKS)
    assert "private" not in repr(record).lower()


def test_errors_and_logs_are_blank(caplog: pytest.LogCaptureFixture) -> None:
    """Every client state is fed every kind of wrong message; what it says of it holds no byte string of
    its own.
    """
    caplog.set_level(logging.DEBUG)
    raised = 0
    for protocol, n in protocols():
        play = Play(protocol, n)
        while not isinstance(play.server, Total):
            state = play.clients[0]
            secrets = [value for _, value in secrets_of(vars(state))]
            for sent in [*play.queue, *play.answers[-3:]]:
                try:
                    play.clients[0].receive(sent, play.random)
                except SecAggError as error:
                    raised += 1
                    text = f"{error} {error!r} {caplog.text}"
                    assert not any(s.hex()[:16] in text or repr(s)[2:18] in text for s in secrets)
            play.trip()
    assert raised > 50
    assert caplog.text == ""


def test_nothing_is_left_after_the_session() -> None:
    for protocol, n in protocols():
        play = Play(protocol, n)
        play.finish()
        for state in play.clients.values():
            assert isinstance(state, Left)
            assert protocol.encode_state(state) == b"\0\1"


def test_a_secret_that_was_used_is_gone_from_the_next_state() -> None:
    play = Play(SecAgg(), 5)
    seen: list[tuple[str, bytes]] = []
    order = []
    while not isinstance(play.server, Total):
        state = play.clients[0]
        order.append(type(state).__name__)
        encoded = play.protocol.encode_state(state)
        gone = {
            "Masking": ["seal"],
            "Voting": ["seal", "mask", "seed", "pairs"],
            "Opening": ["sign", "seed", "mask"],
        }
        for name, secret in seen:
            if name in gone.get(order[-1], []):
                assert secret not in encoded, f"{name} is still in {order[-1]}"
        values = vars(state) | (vars(state.keys) if isinstance(getattr(state, "keys", None), Record) else {})
        seen += secrets_of(values)
        play.trip()
    assert order == ["Joining", "Sharing", "Masking", "Voting", "Opening"]
