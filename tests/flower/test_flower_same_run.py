"""A run that is started again is the run that was begun or is refused: what it was made with, what it may spend."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAdam

from dp import ClientDP
from fl.flower.arrays import arrays_of
from fl.flower.mod import privacy_mod
from fl.flower.strategy import PrivateStrategy
from fl.round.run_files import STATEMENT
from protocols.errors import Misuse
from protocols.stack import Numbers
from secagg import SecAggPlus
from tests.flower.direct import DirectGrid, client_app, fedavg, model, rostered

Layers = list[Any]


def masks(dropout: float = 0.33) -> Layers:
    return [SecAggPlus(threat="semi-honest", dropout=dropout, collusion=0.0)]


def calibrated(epsilon: float = 8) -> Layers:
    return [ClientDP(epsilon=epsilon, delta=1e-5, clip=1.0), *masks()]


def free() -> Layers:
    return [ClientDP(noise_multiplier=1.0, delta=1e-5, clip=1.0), *masks()]


def nodes(folder: Path, layers: Layers, count: int = 3) -> DirectGrid:
    """The nodes keep their state when others layers come: an operator changed both sides."""
    apps = {n: (client_app(privacy_mod(layers, site=folder / f"n{n}")), {}) for n in range(1, count + 1)}
    return DirectGrid(apps)


def strategy(layers: Layers, folder: Path | None, count: int = 3, **named: Any) -> PrivateStrategy:
    return PrivateStrategy(fedavg(count), layers, folder=folder, stage_timeout=0.1, poll=0.01, **named)


def start(own: PrivateStrategy, grid: DirectGrid, rounds: int) -> None:
    own.start(grid, arrays_of(model()), num_rounds=rounds)


def test_a_run_begun_in_clear_is_not_resumed_as_a_masked_one(tmp_path: Path) -> None:
    run = tmp_path / "run"
    start(strategy([], run), nodes(tmp_path, []), 2)
    before = json.loads((run / STATEMENT).read_text())
    with pytest.raises(Misuse, match=r"was made with .*none/1.*resume it as it was"):
        start(strategy(masks(), run), nodes(tmp_path, masks()), 3)
    assert json.loads((run / STATEMENT).read_text()) == before


@pytest.mark.parametrize(
    ("option", "was", "now"),
    [
        ("dropout", {}, {"layers": masks(0.1)}),
        (
            "client-dp.noise_multiplier",
            {"layers": free()},
            {"layers": [ClientDP(noise_multiplier=9.0), *masks()]},
        ),
        ("layers", {"layers": free()}, {}),
        ("numbers", {}, {"numbers": Numbers(bits=12)}),
        ("metrics", {}, {"metrics": ["loss"]}),
        ("integers", {}, {"integers": "sum"}),
        ("min_survivors", {}, {"min_survivors": 3}),
        ("delta", {"delta": 1e-5}, {"delta": 1e-6}),
        ("evaluate", {"evaluate": "clear"}, {}),
    ],
)
def test_every_option_that_a_statement_or_a_total_rests_on_is_kept(
    tmp_path: Path, option: str, was: dict[str, Any], now: dict[str, Any]
) -> None:
    run, usual = tmp_path / "run", {"layers": masks()}
    first, second = {**usual, **was}, {**usual, **now}
    start(strategy(folder=run, **first), nodes(tmp_path, first["layers"]), 1)
    with pytest.raises(Misuse, match=rf"was made with .*{option}.*resume it as it was"):
        start(strategy(folder=run, **second), nodes(tmp_path, second["layers"]), 2)


def test_another_roster_is_another_run(tmp_path: Path) -> None:
    grid, arguments = rostered(tmp_path, 3, privacy_mod(masks()))
    start(PrivateStrategy(fedavg(3), masks(), **arguments), grid, 1)
    with pytest.raises(Misuse, match=r"was made with .*'federation': 'demo'"):
        start(strategy(masks(), arguments["folder"]), grid, 2)


def test_before_anything_was_asked_for_other_layers_may_be_tried(tmp_path: Path) -> None:
    """Two clients cannot bear that drop-out; nothing left anybody, so nothing binds the next attempt."""
    run = tmp_path / "run"
    with pytest.raises(Misuse):
        start(strategy([SecAggPlus(dropout=0.9)], run), nodes(tmp_path, masks()), 1)
    again = strategy(masks(), run)
    start(again, nodes(tmp_path, masks()), 2)
    assert [report.abandoned for report in again.history] == [None, None]


def test_a_run_whose_state_was_lost_is_not_gone_on_with(tmp_path: Path) -> None:
    """What it spent and how it was protected lay there: the statement would know of the new rounds alone."""
    run = tmp_path / "run"
    start(strategy(free(), run), nodes(tmp_path, free()), 2)
    shutil.rmtree(run / "state")
    with pytest.raises(Misuse, match=r"state.*lost"):
        start(strategy(free(), run), nodes(tmp_path, free()), 3)


def test_noise_is_not_stretched_over_more_rounds_than_it_was_calibrated_for(tmp_path: Path) -> None:
    run = tmp_path / "run"
    start(strategy(calibrated(), run), nodes(tmp_path, calibrated()), 2)
    more = strategy(calibrated(), run)
    with pytest.raises(Misuse, match=r"was made with \{'rounds': 2\}, this one is \{'rounds': 6\}"):
        start(more, nodes(tmp_path, calibrated()), 6)
    same = strategy(calibrated(), run)
    start(same, nodes(tmp_path, calibrated()), 2)
    assert not same.history
    epsilon = same.statement().epsilon
    assert epsilon is not None
    assert epsilon <= 8.0


@pytest.mark.parametrize("rounds", [2, 5])
def test_a_second_start_does_not_spend_the_epsilon_again(tmp_path: Path, rounds: int) -> None:
    own, grid = strategy(calibrated(), None), nodes(tmp_path, calibrated())
    start(own, grid, 2)
    with pytest.raises(Misuse, match="calibrated"):
        start(own, grid, rounds)
    epsilon = own.statement().epsilon
    assert epsilon is not None
    assert epsilon <= 8.0
    assert len(own.history) == 2


def test_noise_without_an_epsilon_may_go_on(tmp_path: Path) -> None:
    own, grid = strategy(free(), None), nodes(tmp_path, free())
    start(own, grid, 2)
    start(own, grid, 3)
    assert len(own.statement().events) == 5
    run = tmp_path / "run"
    start(strategy(free(), run), nodes(tmp_path / "kept", free()), 1)
    more = strategy(free(), run)
    start(more, nodes(tmp_path / "kept", free()), 3)
    assert len(more.statement().events) == 3


def test_a_run_that_is_resumed_as_it_was_moves_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for rounds in (1, 3):
        own = strategy(masks(), run, metrics=["loss"], min_survivors=3)
        result = own.start(nodes(tmp_path, masks()), arrays_of(model()), num_rounds=np.int64(rounds))
    assert sorted(result.train_metrics_clientapp) == [2, 3]


@pytest.mark.parametrize(("kind", "arrays"), [(FedAdam, model()), (None, {"other": np.zeros(3)})])
def test_another_strategy_or_model_is_refused_with_what_to_do(
    tmp_path: Path, kind: Any, arrays: dict[str, Any]
) -> None:
    run = tmp_path / "run"
    start(strategy([], run), nodes(tmp_path, []), 1)
    other = strategy([], run) if kind is None else PrivateStrategy(kind(), folder=run)
    with pytest.raises(Misuse, match="resume it as it was, or name another folder"):
        other.start(nodes(tmp_path, []), arrays_of(arrays), num_rounds=2)
