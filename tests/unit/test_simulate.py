"""simulate: the caller's names, drop-outs at any stage, observers, tampering, counts as encoded."""

import builtins
import hashlib
from collections.abc import Callable
from itertools import count
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

from protocols import PlainSum, simulate
from protocols.errors import Misuse, PolicyRefusal, ProtocolViolation, SpentUpdate, TooFewSurvivors
from protocols.kernel import SERVER, Message
from protocols.randomness import SecureRandom, SystemRandom
from protocols.session import Session
from protocols.store import MemoryStore
from protocols.summation import SecureSum
from secagg import SecAgg, SecAggPlus


def three() -> dict[str, np.ndarray]:
    return {name: np.arange(4) * k for k, name in enumerate(["ann", "bob", "cat"], start=1)}


def test_names_may_be_strings_or_numbers_and_come_back() -> None:
    assert simulate(PlainSum(), three(), drop={"input": {"bob"}}).survivors == ("ann", "cat")
    assert simulate(PlainSum(), list(three().values()), drop={"input": [0]}).survivors == (1, 2)
    assert simulate(PlainSum(), {7: np.ones(2, int), 3: np.ones(2, int)}).survivors == (7, 3)


def test_stages_may_be_written_with_blanks_or_underscores() -> None:
    for stage in ("masked-input", "masked input", "masked_input"):
        outcome = simulate(SecAgg(), [np.ones(3, int)] * 5, drop={stage: {2}})
        assert outcome.survivors == (0, 1, 3, 4)
        assert outcome.total.tolist() == [4, 4, 4]


@pytest.mark.parametrize(
    "drop, said", [({"tea": {0}}, "no stage 'tea'"), ({"input": {"dan"}}, "unknown parties")]
)
def test_what_is_not_there_cannot_be_dropped(drop: dict, said: str) -> None:
    with pytest.raises(Misuse, match=said):
        simulate(PlainSum(), three(), drop=drop)


@pytest.mark.parametrize("vectors", [{}, [np.ones(2, int), np.ones(3, int)], [np.ones((2, 2), int)]])
def test_vectors_of_different_or_no_shape_are_misuse(vectors: object) -> None:
    with pytest.raises(Misuse):
        simulate(PlainSum(), vectors)  # type: ignore[arg-type]


def test_bytes_are_those_on_the_wire() -> None:
    sizes: dict[str, int] = {"client": 0, "server": 0}

    def observe(message: Message) -> None:
        sizes[message.sender.role] += len(message.to_wire())

    outcome = simulate(SecAgg(), [np.ones(3, int)] * 5, observe=observe)
    assert {role: outcome.bytes_of(role) for role in sizes} == sizes
    assert set(outcome.seconds) == set(outcome.bytes)
    assert all(s > 0 for by_role in outcome.seconds.values() for s in by_role.values())


def test_a_tampered_message_is_the_senders_silence_and_is_reported() -> None:
    def drop_first(message: Message) -> Message | None:
        return None if message.recipient == SERVER and message.sender.number == 0 else message

    assert simulate(PlainSum(), three(), tamper=drop_first).survivors == ("bob", "cat")

    def shorten(message: Message) -> Message:
        if message.recipient != SERVER or message.sender.number != 1:
            return message
        return Message(message.session, message.stage, *message.sender, *message.recipient, message.body[:-1])

    outcome = simulate(PlainSum(), three(), tamper=shorten)
    assert outcome.survivors == ("ann", "cat")
    assert "truncated" in str(outcome.refusals["server about bob"])


def test_stores_make_an_update_leave_only_once() -> None:
    stores = {name: MemoryStore() for name in three()}
    simulate(PlainSum(), three(), stores=stores)
    with pytest.raises(TooFewSurvivors) as caught:
        simulate(PlainSum(), three(), stores=stores)
    assert "not sent a second time" in "".join(caught.value.__notes__)
    again = simulate(PlainSum(), {**three(), "ann": np.full(4, 9)}, stores=stores)
    assert again.survivors == ("ann",)
    assert isinstance(again.refusals["bob"], SpentUpdate)


def test_least_survivors_hold_for_every_sum() -> None:
    for protocol in (PlainSum(), SecAgg()):
        with pytest.raises(TooFewSurvivors):
            simulate(
                protocol, [np.ones(3, int)] * 6, drop={protocol_input(protocol): {0, 1}}, min_survivors=5
            )


def protocol_input(protocol: PlainSum | SecAgg) -> str:
    return "input" if isinstance(protocol, PlainSum) else "masked-input"


class Injected:
    """A stream that repeats; no module that a statistical generator comes from."""

    def __init__(self) -> None:
        self.count = 0

    def bytes(self, count: int) -> builtins.bytes:
        self.count += 1
        return hashlib.shake_128(self.count.to_bytes(4, "big")).digest(count)


def frames(rng: SecureRandom | None) -> list[builtins.bytes]:
    sent: list[builtins.bytes] = []
    vectors = [np.arange(3)] * 5
    simulate(SecAgg(), vectors, rng=rng, observe=lambda m: sent.append(m.to_wire()))
    return sent


def test_injected_randomness_is_all_there_is() -> None:
    assert frames(Injected()) == frames(Injected())
    assert frames(None) != frames(None)


@pytest.mark.parametrize(
    "rng",
    [np.random.default_rng(1), np.random.RandomState(1), Random(1), torch.Generator(), object(), 7, "seed"],
    ids=lambda rng: type(rng).__name__,
)
def test_generators_that_are_not_cryptographic_are_refused(rng: Any) -> None:
    with pytest.raises(Misuse, match=r"rng: expected None or a SecureRandom"):
        simulate(PlainSum(), three(), rng=rng)


def test_a_statistical_generator_is_refused_though_it_has_the_method() -> None:
    for module in ("numpy.random.mtrand", "random", "torch"):
        kind = type("Generator", (Injected,), {"__module__": module})
        with pytest.raises(Misuse, match="rng: expected"):
            simulate(PlainSum(), three(), rng=kind())


def test_a_session_on_given_randomness_says_that_it_is_simulated() -> None:
    assert simulate(PlainSum(), three(), rng=Injected()).session.simulated
    assert not simulate(PlainSum(), three()).session.simulated
    assert not simulate(PlainSum(), three(), rng=SystemRandom()).session.simulated


@pytest.mark.parametrize(
    ("largest", "bound"), [(0, 0), (1, 1), (-1, 1), (2, 3), (3, 3), (-4, 7), (2**40, 2**41 - 1)]
)
def test_the_default_bound_is_the_least_of_whole_bits(largest: int, bound: int) -> None:
    vectors = [np.array([0, largest]), np.array([0, 0])]
    assert simulate(PlainSum(), vectors).session.bound == bound


def test_what_is_given_is_what_the_session_has() -> None:
    outcome = simulate(
        PlainSum(), three(), bound=99, modulus=1 << 20, round=4, model=b"m" * 32, min_survivors=2
    )
    session = outcome.session
    assert (session.bound, session.modulus, session.round) == (99, 1 << 20, 4)
    assert (session.model, session.min_survivors, session.roster) == (b"m" * 32, 2, ("ann", "bob", "cat"))
    assert simulate(PlainSum(), three(), session=session).session is session


def test_numbered_clients_may_be_dropped_by_their_number_in_words() -> None:
    assert simulate(PlainSum(), [np.ones(2, int)] * 3, drop={"input": {"1"}}).survivors == (0, 2)


def test_seconds_are_those_of_the_given_clock() -> None:
    ticks = count()
    outcome = simulate(PlainSum(), three(), clock=lambda: float(next(ticks)))
    # three clients are made and answer; the server opens, takes three inputs and closes: a tick each
    assert outcome.seconds == {"input": {"client": 6.0, "server": 5.0}}


def test_an_update_is_known_by_its_name() -> None:
    stores = {"ann": MemoryStore()}

    def survivors(name: builtins.bytes, value: int) -> tuple[object, ...]:
        vectors = three() | {"ann": np.full(4, value)}
        outcome = simulate(PlainSum(), vectors, stores=stores, updates={"ann": name})
        assert set(outcome.refusals) <= {"ann"}
        return outcome.survivors

    everybody = ("ann", "bob", "cat")
    assert survivors(b"first", 1) == everybody
    assert survivors(b"second", 1) == everybody
    assert survivors(b"first", 2) == ("bob", "cat")


def test_a_client_that_was_shown_another_model_is_not_in_the_sum() -> None:
    outcome = simulate(PlainSum(), three(), models={"bob": b"x" * 32})
    assert outcome.survivors == ("ann", "cat")
    assert isinstance(outcome.refusals["bob"], ProtocolViolation)


def test_empty_vectors_are_misuse() -> None:
    with pytest.raises(Misuse, match="dimension >= 1"):
        simulate(PlainSum(), [np.zeros(0, int)] * 3)


def test_a_function_gives_its_vector_when_its_client_is_asked_and_never_for_one_that_left() -> None:
    called: list[str] = []

    def giving(name: str, value: int) -> Callable[[], np.ndarray]:
        def give() -> np.ndarray:
            called.append(name)
            return np.full(3, value, np.int64)

        return give

    inputs = {name: giving(name, value) for name, value in (("a", 1), ("b", 2), ("c", 4))}
    session = PlainSum().session(list(inputs), 3, 9, random=SystemRandom())

    def observe(sent: Message) -> None:
        called.append(f"{sent.sender} at {sent.stage}")

    outcome = simulate(PlainSum(), inputs, session=session, drop={"input": {"b"}}, observe=observe)
    assert outcome.total.tolist() == [5, 5, 5]
    assert [what for what in called if " " not in what] == ["a", "c"]
    assert called.index("a") < called.index("client 0 at input") < called.index("c")
    with pytest.raises(Misuse, match="session"):
        simulate(PlainSum(), inputs)


@pytest.mark.parametrize("protocol", [SecAgg(), SecAggPlus(neighbours=4, threshold=3), SecAgg(setup="reuse")])
def test_masked_sums_ask_for_a_vector_when_it_is_to_be_masked(protocol: SecureSum) -> None:
    stages: list[str] = []
    asked: list[tuple[int, str]] = []

    def giving(i: int) -> Callable[[], np.ndarray]:
        def give() -> np.ndarray:
            asked.append((i, stages[-1]))
            return np.full(3, 10**i, np.int64)

        return give

    n = 8
    session = protocol.session([str(i) for i in range(n)], 3, 10**8, random=SystemRandom())
    outcome = simulate(
        protocol,
        [giving(i) for i in range(n)],
        session=session,
        drop={"masked-input": {5}},
        observe=lambda m: stages.append(m.stage),
    )
    assert outcome.total.tolist() == [11011111] * 3
    assert asked == [(i, "masked-input") for i in range(n) if i != 5]


def test_a_late_vector_is_checked_and_given_once() -> None:
    protocol, random = SecAgg(), SystemRandom()
    session = protocol.session(["a", "b", "c"], 3, 10, random=random)
    state = protocol.client(session, 0, None, random=random).state
    with pytest.raises(PolicyRefusal, match="coordinates"):
        protocol.supply(session, state, np.full(3, 11, np.int64))
    given = protocol.supply(session, state, np.full(3, 10, np.int64))
    with pytest.raises(Misuse, match="wait"):
        protocol.supply(session, given, np.zeros(3, np.int64))
    with pytest.raises(Misuse, match="None"):
        PlainSum().client(PlainSum().session(["a"], 3, 10, random=random), 0, None, random=random)


def test_clients_that_are_shown_the_same_share_one_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its context is hashed once for all of them: once per client, a thousand clients would hash a million names."""
    hashed: list[bytes] = []
    encode = Session.encode

    def counted(self: Session) -> bytes:
        hashed.append(encode(self))
        return hashed[-1]

    monkeypatch.setattr(Session, "encode", counted)
    other = bytes(31) + b"\1"
    outcome = simulate(PlainSum(), {i: [1] for i in range(20)}, models={3: other})
    assert outcome.survivors == tuple(i for i in range(20) if i != 3)
    assert len(hashed) == 2
