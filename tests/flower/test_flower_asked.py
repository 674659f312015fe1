"""What a strategy may send, and who is asked: nothing of it is dropped in silence."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from dp import ClientDP
from fl.flower.arrays import arrays_of
from fl.flower.messages import unpack_request
from fl.flower.mod import privacy_mod
from fl.flower.strategy import PrivateStrategy
from fl.network.messages import START
from protocols.errors import Misuse
from secagg import SecAggPlus
from tests.flower.direct import DirectGrid, client_app, fedavg, model

Layers = Callable[[], list[Any]]
Change = Callable[[list[Message]], list[Message]]


def masks() -> list[Any]:
    return [SecAggPlus(threat="semi-honest", dropout=0.33, collusion=0.0)]


def reused() -> list[Any]:
    return [SecAggPlus(threat="semi-honest", dropout=0.33, collusion=0.0, setup="reuse")]


def noised() -> list[Any]:
    return [ClientDP(epsilon=8, delta=1e-5, clip=1.0), *masks()]


def nodes(folder: Path, count: int, layers: Layers = masks) -> DirectGrid:
    apps = {n: (client_app(privacy_mod(layers(), site=folder / f"n{n}")), {}) for n in range(1, count + 1)}
    return DirectGrid(apps)


class Changing(FedAvg):
    """A declared subclass that changes what FedAvg would send."""

    needs_only_the_mean = True

    def __init__(self, change: Change) -> None:
        super().__init__(fraction_evaluate=0.0, min_train_nodes=3, min_available_nodes=3)
        self.change = change

    def configure_train(self, *given: Any) -> list[Message]:
        return self.change(list(super().configure_train(*given)))


def with_record(name: str, record: Any) -> Change:
    return lambda sent: [
        Message(RecordDict({**m.content, name: record}), m.metadata.dst_node_id, "train") for m in sent
    ]


def without(name: str) -> Change:
    return lambda sent: [
        Message(
            RecordDict({k: v for k, v in m.content.items() if k != name}), m.metadata.dst_node_id, "train"
        )
        for m in sent
    ]


def of_type(*kinds: str) -> Change:
    return lambda sent: [
        Message(m.content, m.metadata.dst_node_id, kind) for m, kind in zip(sent, kinds, strict=True)
    ]


def another_model(sent: list[Message]) -> list[Message]:
    other = RecordDict({**sent[0].content, "arrays": arrays_of({"w": np.zeros(3)})})
    return [Message(other, sent[0].metadata.dst_node_id, "train"), *sent[1:]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (of_type("train.head", "train.head", "train.head"), r"train\.head"),
        (of_type("train", "train", "train.head"), r"train\.head"),
        (of_type("evaluate", "train", "train"), "evaluate"),
        (with_record("aux", ArrayRecord()), "'aux'"),
        (with_record("more", ConfigRecord({"lr": 0.1})), "'more'"),
        (with_record("facts", MetricRecord({"x": 1.0})), "'facts'"),
        (with_record("config", ArrayRecord()), "'config'"),
        (without("arrays"), "'arrays'"),
        (another_model, "same model and configuration"),
        (lambda sent: [*sent, sent[0]], "two messages"),
    ],
    ids=["type", "one", "mixed", "arrays", "configs", "metrics", "kind", "no model", "models", "twice"],
)
def test_what_a_protected_round_would_not_carry_is_refused(tmp_path: Path, change: Change, said: str) -> None:
    grid = nodes(tmp_path, 3)
    with pytest.raises(Misuse, match=said):
        PrivateStrategy(Changing(change), masks()).start(grid, arrays_of(model()), num_rounds=1)
    assert grid.log == []


class Grown:
    """The evaluation after round 1: more nodes connect."""

    def __init__(self, grid: DirectGrid, first: int) -> None:
        self.grid, self.all = grid, dict(grid.apps)
        grid.apps = {n: self.all[n] for n in range(1, first + 1)}

    def __call__(self, number: int, arrays: ArrayRecord) -> None:
        if number == 1:
            self.grid.apps = self.all


@pytest.mark.parametrize("layers", [masks, reused], ids=["new keys", "reused keys"])
def test_nodes_that_join_later_are_asked(tmp_path: Path, layers: Layers) -> None:
    grid = nodes(tmp_path, 8, layers)
    strategy = PrivateStrategy(fedavg(4), layers(), stage_timeout=0.2)
    strategy.start(grid, arrays_of(model()), num_rounds=3, evaluate_fn=Grown(grid, 4))
    assert [len(report.survivors) for report in strategy.history] == [4, 8, 8]


def test_a_resumed_run_asks_the_nodes_that_joined_meanwhile(tmp_path: Path) -> None:
    for count in (4, 6):
        strategy = PrivateStrategy(fedavg(4), masks(), stage_timeout=0.2, folder=tmp_path / "run")
        strategy.start(nodes(tmp_path, count), arrays_of(model()), num_rounds=count - 3)
        assert {len(report.survivors) for report in strategy.history} == {count}


def test_noise_that_was_planned_for_a_cohort_keeps_to_it_by_a_secret_choice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    grid = nodes(tmp_path, 8, noised)
    strategy = PrivateStrategy(fedavg(4), noised(), stage_timeout=0.2)
    with caplog.at_level(logging.WARNING, "flwr"):
        strategy.start(grid, arrays_of(model()), num_rounds=8, evaluate_fn=Grown(grid, 4))
    asked = [report.asked for report in strategy.history]
    assert {len(names) for names in asked} == {4}
    assert all(list(names) == sorted(names) for names in asked)
    assert len(set(asked[1:])) > 1  # the same four of eight in seven rounds: once in 70^6
    left_out = [r.getMessage() for r in caplog.records if "left out" in r.getMessage()]
    assert len(left_out) == 7
    missing = sorted({f"node-{n}" for n in range(1, 9)} - set(asked[-1]))
    assert all(name in left_out[-1] for name in missing)
    assert "client-dp" in left_out[-1]
    told = {node for node, message in grid.log if unpack_request(message.content, None)[0].kind == START}
    assert len(told) > 4


@pytest.mark.parametrize("kept", [False, True])
def test_a_start_without_a_timeout_ends_with_its_result(tmp_path: Path, kept: bool) -> None:
    strategy = PrivateStrategy(fedavg(3), masks(), folder=tmp_path / "run" if kept else None)
    result = strategy.start(nodes(tmp_path, 3), arrays_of(model()), num_rounds=2, timeout=None)
    assert set(result.arrays) == set(model())
    assert [report.abandoned for report in strategy.history] == [None, None]


@pytest.mark.parametrize("timeout", [0, -5, float("nan"), "soon"])
def test_a_timeout_that_is_none_is_refused_before_round_1(tmp_path: Path, timeout: Any) -> None:
    grid = nodes(tmp_path, 3)
    with pytest.raises(Misuse, match="timeout"):
        PrivateStrategy(fedavg(3), masks()).start(grid, arrays_of(model()), timeout=timeout)
    assert grid.log == []


def test_a_farewell_that_fails_does_not_cost_the_result(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """All nodes have left after the last round: the sum's helper among them."""
    from he import KeyHolder, PaillierSum

    protocol = PaillierSum(KeyHolder(), key_bits=2048)
    grid = nodes(tmp_path, 4, lambda: [protocol])
    strategy = PrivateStrategy(fedavg(3), [protocol], folder=tmp_path / "run")
    with caplog.at_level(logging.WARNING, "flwr"):
        result = strategy.start(
            grid,
            arrays_of(model()),
            num_rounds=1,
            evaluate_fn=lambda number, arrays: grid.apps.clear() if number else None,
        )
    assert set(result.arrays) == set(model())
    assert any("last head" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    ("options", "said"), [({"metrics": ["loss"]}, "'loss'"), ({"integers": "sum"}, "integers")]
)
def test_what_a_layer_makes_impossible_is_refused_before_round_1(
    tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    grid = nodes(tmp_path, 3, noised)
    with pytest.raises(Misuse, match=rf"{said}.*client-dp"):
        PrivateStrategy(fedavg(3), noised(), **options).start(grid, arrays_of(model()), num_rounds=1)
    assert grid.log == []
