"""DP layers over Flower: a node's own ledger, noise that arrives, and a server that asks for too much."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dp import ClientDP, DistributedDP, Ledger
from fl import SecureAverage
from fl.flower.arrays import arrays_of, tree_of
from fl.flower.mod import privacy_mod
from fl.flower.strategy import PrivateStrategy
from fl.round.party_ledger import LEDGER
from fl.round.run_files import STATEMENT
from protocols import PlainSum
from protocols.errors import BudgetExceeded, StackError
from protocols.record import FILE_NAME, check_files, verify_record
from protocols.statement import Statement
from secagg import SecAggPlus
from tests.flower.direct import DirectGrid, client_app, fedavg, model, play_out, rostered


def layers() -> list[Any]:
    return [
        ClientDP(epsilon=8, delta=1e-5, clip=1.0),
        SecAggPlus(threat="semi-honest", dropout=0.25, collusion=0.0),
    ]


def federation(folder: Path, policy: dict[str, Any]) -> tuple[DirectGrid, dict[str, Any]]:
    grid, arguments = rostered(folder, 4, privacy_mod(layers()), policy=policy)
    return grid, {**arguments, "stage_timeout": 0.1, "poll": 0.01, "delta": 1e-5}


def test_a_round_with_client_dp_is_noised_priced_and_in_every_nodes_own_ledger(tmp_path: Path) -> None:
    grid, arguments = federation(tmp_path, {"max_epsilon": 9.0})
    strategy = PrivateStrategy(fedavg(4), layers(), **arguments)
    result = strategy.start(grid, arrays_of(model()), num_rounds=2)
    assert [report.abandoned for report in strategy.history] == [None, None]
    epsilon = strategy.statement().epsilon
    assert epsilon is not None
    assert 4.0 < epsilon <= 8.0
    for name in ("site-1", "site-4"):
        own = Ledger(tmp_path / "keys" / name / LEDGER)
        assert own.epsilon() == pytest.approx(epsilon, rel=1e-3)
    moved = tree_of(result.arrays)["layer.weight"] - model()["layer.weight"]
    assert np.abs(moved).max() > 0


def test_noise_that_drowns_the_update_is_logged_before_the_run_and_in_every_engines_statement(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def drowning() -> list[Any]:
        return [ClientDP(noise_multiplier=50.0, delta=1e-5, clip=1.0), PlainSum()]

    apps = {n: (client_app(privacy_mod(drowning(), site=tmp_path / f"n{n}")), {}) for n in (1, 2, 3)}
    strategy = PrivateStrategy(fedavg(3), drowning())
    play_out(strategy, DirectGrid(apps), arrays_of(model()), num_rounds=1)
    average = SecureAverage(drowning())
    with pytest.warns(UserWarning, match="the noise on the mean update"):
        average({name: {"w": torch.ones(17)} for name in "abc"}, reference={"w": torch.zeros(17)})
    noted = [
        [n for n in own.notes if "mean update" in n] for own in (strategy.statement(), average.statement)
    ]
    assert [len(notes) for notes in noted] == [1, 1]
    assert noted[0][0] in caplog.messages


def test_a_node_refuses_the_round_that_goes_beyond_its_largest_epsilon(tmp_path: Path) -> None:
    grid, arguments = federation(tmp_path, {"max_epsilon": 6.0})
    strategy = PrivateStrategy(fedavg(4), layers(), **arguments)
    play_out(strategy, grid, arrays_of(model()), num_rounds=2)
    first, second = strategy.history
    assert first.abandoned is None
    assert second.abandoned is not None
    assert all("max_epsilon" in why for why in second.refusals.values())


def test_a_node_that_demands_an_epsilon_refuses_a_run_without_noise(tmp_path: Path) -> None:
    def masks() -> list[Any]:
        return [SecAggPlus(threat="semi-honest", dropout=0.25, collusion=0.0)]

    grid, arguments = rostered(tmp_path, 4, privacy_mod(masks()), policy={"max_epsilon": 9.0})
    strategy = PrivateStrategy(fedavg(4), masks(), **arguments, stage_timeout=0.1)
    play_out(strategy, grid, arrays_of(model()), num_rounds=1)
    assert all("max_epsilon" in why for why in strategy.history[0].refusals.values())


def test_the_servers_ledger_stops_the_run_before_it_overspends(tmp_path: Path) -> None:
    grid, arguments = federation(tmp_path, {})
    ledger = Ledger(tmp_path / "server.ledger", epsilon=6.0, delta=1e-5, accountant="rdp")
    strategy = PrivateStrategy(fedavg(4), layers(), ledger=ledger, **arguments)
    with pytest.raises(BudgetExceeded):
        strategy.start(grid, arrays_of(model()), num_rounds=2)
    assert len(ledger.entries()) == 1
    assert len(strategy.account.events) == 1


def test_noise_in_shares_of_whole_clients_needs_no_hold_of_the_training(tmp_path: Path) -> None:
    def shares() -> list[Any]:
        layer = DistributedDP(epsilon=8, delta=1e-5, clip=1.0, unit="client")
        return [layer, SecAggPlus(threat="semi-honest", dropout=0.25, collusion=0.0)]

    grid, arguments = rostered(tmp_path, 4, privacy_mod(shares()), policy={"max_epsilon": 9.0})
    strategy = PrivateStrategy(fedavg(4), shares(), **arguments, stage_timeout=0.1, poll=0.01, delta=1e-5)
    result = strategy.start(grid, arrays_of(model()), num_rounds=2)
    assert [report.abandoned for report in strategy.history] == [None, None]
    statement = strategy.statement()
    assert statement.epsilon is not None
    assert 4.0 < statement.epsilon <= 8.0
    assert {event.adversary for event in statement.events} == {"server"}
    own = Ledger(tmp_path / "keys" / "site-2" / LEDGER)
    assert own.epsilon() == pytest.approx(statement.epsilon, rel=1e-3)
    moved = tree_of(result.arrays)["layer.weight"] - model()["layer.weight"]
    assert 0 < np.abs(moved).max() < 10


def test_noise_in_shares_of_examples_must_own_the_training() -> None:
    layer = DistributedDP(epsilon=8, clip=1.0, unit="example", sample_rate=0.1, examples=100)
    with pytest.raises(StackError, match="client_app"):
        privacy_mod([layer, SecAggPlus()])


def test_a_run_whose_noise_is_worthless_ends_and_says_so(tmp_path: Path) -> None:
    def worthless() -> list[Any]:
        return [ClientDP(noise_multiplier=0.02, delta=1e-5, clip=1.0), layers()[1]]

    grid, arguments = rostered(tmp_path, 4, privacy_mod(worthless()))
    for planned in (1, 2):  # it also goes on
        strategy = PrivateStrategy(fedavg(4), worthless(), **arguments, stage_timeout=0.1, poll=0.01)
        strategy.start(grid, arrays_of(model()), num_rounds=planned)
        assert [report.abandoned for report in strategy.history] == [None]
    run = arguments["folder"]
    written = Statement.from_json(json.loads((run / STATEMENT).read_text()))
    assert written == strategy.statement()
    assert written.epsilon == math.inf
    verdict = verify_record(run / FILE_NAME, arguments["identity"].public)
    assert [entry.body.get("epsilon") for entry in verdict.entries] == [None, "infinite", "infinite"]
    assert STATEMENT in check_files(verdict, run)


def test_a_budget_refuses_worthless_noise(tmp_path: Path) -> None:
    def worthless() -> list[Any]:
        return [ClientDP(noise_multiplier=0.02, delta=1e-5, clip=1.0), layers()[1]]

    grid, arguments = rostered(tmp_path, 4, privacy_mod(worthless()), policy={"max_epsilon": 1e6})
    ledger = Ledger(tmp_path / "server.ledger", epsilon=1e6, delta=1e-5, accountant="rdp")
    with pytest.raises(BudgetExceeded, match=r"no epsilon bounds .* keep the ledger at a larger delta"):
        PrivateStrategy(fedavg(4), worthless(), ledger=ledger, **arguments).start(grid, arrays_of(model()), 1)
    assert ledger.entries() == ()
    strategy = PrivateStrategy(fedavg(4), worthless(), **arguments, stage_timeout=0.1, poll=0.01)
    play_out(strategy, grid, arrays_of(model()), num_rounds=1)
    assert strategy.history[0].abandoned is not None
    assert all("max_epsilon" in why for why in strategy.history[0].refusals.values())
