"""What a round costs in trips, each of which starts the app again on every node."""

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message, RecordDict

from fl.flower.arrays import arrays_of
from fl.flower.grid_party import GridParty
from fl.flower.messages import unpack_request
from fl.flower.mod import privacy_mod
from fl.flower.strategy import PrivateStrategy
from fl.network.site import FILE
from protocols.store import MemoryStore
from secagg import SecAgg, SecAggPlus
from tests.flower.direct import DirectGrid, fedavg, model, rostered

LAZY = """
import sys
import time
from fl.flower.mod import private_app
from fl.flower.named import federation_app
from fl.flower.strategy import PrivateStrategy  # nodes import it too where one module holds both apps
from secagg import SecAggPlus
app = private_app("json:no_such_app", [SecAggPlus()])
other = federation_app("json:no_such_federation", lambda site: [SecAggPlus()])
print(*(name for name in ("torch", "scipy.stats", "opacus", "ray") if name in sys.modules))
"""


def run(folder: Path, rounds: int, before: Any = None) -> tuple[DirectGrid, PrivateStrategy]:
    grid, arguments = rostered(folder, 4, privacy_mod([SecAggPlus()]), before=before)
    strategy = PrivateStrategy(fedavg(2), [SecAggPlus()], stage_timeout=0.3, poll=0.01, **arguments)
    strategy.start(grid, arrays_of(model()), num_rounds=rounds)
    return grid, strategy


def test_ten_rounds_of_the_default_layers_take_22_trips(tmp_path: Path) -> None:
    """The last one hands out the record's head."""
    grid, strategy = run(tmp_path, 10)
    assert [len(r.trips) for r in strategy.history] == [3] + [2] * 9
    assert [r.survivors for r in strategy.history] == [tuple(f"site-{i}" for i in range(1, 5))] * 10
    assert grid.trips == 22


@pytest.mark.parametrize("stage", ["advertise-keys", "masked-input", "unmask"])
def test_a_node_that_leaves_costs_no_round_of_the_default_layers(tmp_path: Path, stage: str) -> None:
    gone: list[int] = []

    def before(node: int, message: Message) -> Message | None:
        request = unpack_request(message.content, None)[0]
        if node == 2 and request.stage == stage and (stage == "advertise-keys" or request.header is None):
            gone.append(node)
        return None if node in gone else message

    _, strategy = run(tmp_path, 2, before)
    assert gone
    assert [r.abandoned for r in strategy.history] == [None, None]
    assert len(strategy.history[-1].survivors) == 3


def test_an_app_that_is_named_is_imported_to_train_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LAZY], capture_output=True, text=True, check=True, timeout=400
    )
    assert done.stdout.split() == []


class Slow(DirectGrid):
    """Replies of a node come so many seconds after the request, whoever waits for them."""

    def __init__(self, inner: DirectGrid, node: int, seconds: float) -> None:
        super().__init__(inner.apps, keys=inner.keys, before=inner.before, after=inner.after)
        self.node, self.seconds = node, seconds
        self.held = list[tuple[float, str, Message]]()

    def pull_messages(self, message_ids: Any) -> Any:
        ids = list(message_ids)
        for mid in [m for m in ids if m in self.replies]:
            if self.replies[mid].metadata.src_node_id == self.node:
                self.held.append((time.monotonic() + self.seconds, mid, self.replies.pop(mid)))
        due = [h for h in self.held if h[0] <= time.monotonic() and h[1] in ids]
        self.held = [h for h in self.held if h not in due]
        return [*super().pull_messages(ids), *(reply for _, _, reply in due)]


def four(folder: Path, seconds: float) -> tuple[DirectGrid, PrivateStrategy]:
    """Return four nodes with keys of each round, and the strategy. seconds: what it gives a trip."""
    masks = [SecAggPlus(threat="semi-honest", collusion=0.0, dropout=0.25, setup="fresh")]
    inner, arguments = rostered(folder, 4, privacy_mod(masks))
    return inner, PrivateStrategy(fedavg(4), masks, poll=0.02, stage_timeout=seconds, **arguments)


def test_a_stage_waits_longer_where_too_few_have_answered(tmp_path: Path) -> None:
    """Without the slow node there is no total; with fixed deadlines every round would be abandoned."""
    inner, strategy = four(tmp_path, 1.0)
    strategy.options.min_survivors = 4
    strategy.start(Slow(inner, 2, 1.5), arrays_of(model()), num_rounds=1)
    assert [r.survivors for r in strategy.history] == [tuple(f"site-{i}" for i in range(1, 5))]


def test_a_node_that_refuses_has_not_answered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of five refuse: with the slow one there are three, which is enough. Who is awaited is told."""
    monkeypatch.setattr("fl.flower.grid_party.AWAITED_SECONDS", 0.0)
    masks = [SecAggPlus(threat="semi-honest", collusion=0.0, dropout=0.4, setup="fresh")]
    inner, arguments = rostered(tmp_path, 5, privacy_mod(masks))
    for site in ("site-1", "site-2"):
        with (tmp_path / "keys" / site / FILE).open("a") as own:
            own.write("[policy]\nmin_cohort = 9\n")
    strategy = PrivateStrategy(fedavg(5), masks, poll=0.02, stage_timeout=1.0, **arguments)
    strategy.start(Slow(inner, 3, 1.5), arrays_of(model()), num_rounds=1)
    assert [len(r.survivors) for r in strategy.history] == [3]
    assert "waiting for nodes 3, for" in caplog.text


def test_what_cannot_be_read_has_not_answered(tmp_path: Path) -> None:
    """One of four answers with something else: with the slow one there are three, which is enough."""
    inner, strategy = four(tmp_path, 1.0)

    def emptied(node: int, reply: Message) -> Message:
        if node == 1 and not reply.has_error():
            reply.content = RecordDict()
        return reply

    inner.after = emptied
    strategy.start(Slow(inner, 2, 1.5), arrays_of(model()), num_rounds=1)
    assert [r.survivors for r in strategy.history] == [("site-2", "site-3", "site-4")]


@pytest.mark.parametrize("seconds", [0.9, 1.2], ids=["in time", "late"])
def test_who_refuses_slowly_lengthens_no_later_trip(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """Node 2 refuses each round as late as it can, node 3 leaves after its first trip; a trip is given one second."""
    monkeypatch.setattr("fl.flower.grid_party.AWAITED_SECONDS", 0.05)

    def before(node: int, message: Message) -> Message | None:
        gone = node == 3 and unpack_request(message.content, None)[0].header is None
        return None if gone else message

    masks = [SecAggPlus(threat="semi-honest", collusion=0.0, dropout=0.4, setup="fresh")]
    inner, arguments = rostered(tmp_path, 5, privacy_mod(masks), before=before)
    with (tmp_path / "keys" / "site-2" / FILE).open("a") as own:
        own.write("[policy]\nmin_cohort = 9\n")
    strategy = PrivateStrategy(fedavg(5), masks, poll=0.02, stage_timeout=1.0, **arguments)
    strategy.start(Slow(inner, 2, seconds), arrays_of(model()), num_rounds=3)
    assert [len(r.survivors) for r in strategy.history] == [3] * 3
    assert "waiting for nodes" in caplog.text
    assert not re.search(r"for [2-9] s more|too late", caplog.text)


def test_a_node_that_says_no_name_is_asked_again_when_it_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To ask it in every round would cost each of them a minute."""
    monkeypatch.setattr("fl.flower.grid_party.HELLO_SECONDS", 0.1)
    inner, _ = rostered(tmp_path, 2, privacy_mod([SecAggPlus()]), before=lambda node, m: None)
    server = GridParty(inner, SecAggPlus(), MemoryStore(), poll=0.01, names=["a", "b"])
    assert [len(server.connected().clients) for _ in range(3)] == [0, 0, 0]
    assert inner.trips == 1
    app = inner.apps.pop(1)
    server.connected()
    inner.apps[1] = app
    server.connected()
    assert (inner.trips, [node for node, _ in inner.log]) == (2, [1, 2, 1])


def test_a_node_that_came_too_late_is_waited_for_in_later_trips(tmp_path: Path) -> None:
    inner, strategy = four(tmp_path, 1.0)
    strategy.start(Slow(inner, 2, 1.4), arrays_of(model()), num_rounds=4)
    came = [
        len(r.survivors) for r in strategy.history
    ]  # whether the second waits depends on when the answer came
    assert (came[0], came[2:]) == (3, [4, 4])


def test_a_stage_waits_for_as_many_as_holders_must_be_shown(tmp_path: Path) -> None:
    """Of ten, seven are sure to be in a total of reused keys, and holders demand to be shown eight."""
    dead = {1, 2}
    inner, arguments = rostered(
        tmp_path, 10, privacy_mod([SecAgg()]), before=lambda node, m: None if node in dead else m
    )
    strategy = PrivateStrategy(fedavg(8), [SecAgg()], poll=0.02, stage_timeout=0.6, **arguments)
    strategy.start(Slow(inner, 3, 0.9), arrays_of(model()), num_rounds=1)
    assert [(r.abandoned, len(r.survivors)) for r in strategy.history] == [(None, 8)]


def test_who_missed_the_set_up_is_named_until_the_next_one(tmp_path: Path) -> None:
    def before(node: int, message: Message) -> Message | None:
        stage = unpack_request(message.content, None)[0].stage
        return None if (node, stage) == (2, "advertise-keys") else message

    _, strategy = run(tmp_path, 3, before)
    assert [len(r.survivors) for r in strategy.history] == [3] * 3
    assert [r.refusals["site-2"].partition(":")[0] for r in strategy.history[1:]] == ["not asked"] * 2


class Late(DirectGrid):
    """A reply of node 2 comes when the next trip has begun, however long that takes."""

    def pull_messages(self, message_ids: Any) -> Any:
        now = f"{self.trips}/"
        return super().pull_messages(
            mid
            for mid in message_ids
            if mid in self.replies
            and not (mid.startswith(now) and self.replies[mid].metadata.src_node_id == 2)
        )


def test_a_late_node_is_told_and_logs_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    inner, strategy = four(tmp_path, 0.1)
    strategy.start(Late(inner.apps, keys=inner.keys), arrays_of(model()), num_rounds=3)
    assert strategy.history[0].survivors == ("site-1", "site-3", "site-4")
    assert "answered a trip of round 1 after" in caplog.text
    assert "the server says that this node's answer came too late" in caplog.text
