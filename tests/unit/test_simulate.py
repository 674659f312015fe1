"""simulate: the caller's names, drop-outs at any stage, observers, tampering, counts as encoded."""

import numpy as np
import pytest

from protocols import PlainSum, simulate
from protocols.errors import Misuse, SpentUpdate, TooFewSurvivors
from protocols.kernel import SERVER, Message
from protocols.store import MemoryStore
from secagg import SecAgg


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
