"""Flower apps as they are: what a new user's two lines meet, and what they are told."""

import logging
from pathlib import Path
from typing import Any

import pytest
from flwr.server.strategy import FedAvg as LegacyFedAvg
from flwr.serverapp.strategy import DifferentialPrivacyClientSideFixedClipping, FedAvg

from fl.flower import mod
from fl.flower.arrays import arrays_of
from fl.flower.files import run_to_resume
from fl.flower.mod import privacy_mod
from fl.flower.strategy import PrivateStrategy
from fl.network.site import FILE
from protocols.errors import Misuse
from secagg import SecAggPlus
from tests.flower.direct import DirectGrid, client_app, fedavg, model, play_out, rostered


def masks() -> list[Any]:
    return [SecAggPlus(threat="semi-honest", dropout=0.25, collusion=0.0)]


def grid_of(folder: Path, privacy: list[Any] | None = None, site: bool = True, **hooks: Any) -> DirectGrid:
    layers = masks() if privacy is None else privacy
    app = client_app(privacy_mod(layers))
    config = {n: {"secagg-site": str(folder / f"n{n}")} if site else {} for n in range(1, 5)}
    return DirectGrid({n: (app, config[n]) for n in range(1, 5)}, **hooks)


def start(grid: DirectGrid, rounds: int = 1, strategy: Any = None, **named: Any) -> PrivateStrategy:
    private = PrivateStrategy(strategy or fedavg(4), **{"privacy": masks(), "poll": 0.01, **named})
    play_out(private, grid, arrays_of(model()), num_rounds=rounds, timeout=5.0)
    return private


def warnings_of(caplog: pytest.LogCaptureFixture) -> str:
    return " ".join(r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING)


def test_a_node_outside_a_simulation_is_told_the_one_option(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Inside one (`in_simulation`) the two lines run as they stand: test_flower_engine starts it."""
    private = start(grid_of(tmp_path, site=False))
    assert private.history[0].abandoned is not None
    assert "--node-config 'secagg-site=" in warnings_of(caplog)


def test_a_simulated_node_needs_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mod, "in_simulation", lambda: True)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    assert start(grid_of(tmp_path, site=False)).history[0].abandoned is None


def test_a_name_in_site_toml_shuts_nobody_out_of_an_app_without_a_roster(tmp_path: Path) -> None:
    for n in range(1, 5):
        (tmp_path / f"n{n}").mkdir()
        (tmp_path / f"n{n}" / FILE).write_text(f'name = "site-{n}"\n')
    private = start(grid_of(tmp_path), 2)
    assert [len(round.survivors) for round in private.history] == [4, 4]


def test_a_node_that_comes_back_under_another_id_is_the_same_site(tmp_path: Path) -> None:
    """Without a key of its own a SuperNode has a new id after every start."""
    grid, out = grid_of(tmp_path), tmp_path / "run"
    start(grid, 1, folder=out)
    grid.apps[44] = grid.apps.pop(4)
    private = start(grid, 2, folder=out)
    assert [len(round.survivors) for round in private.history] == [4]
    assert (tmp_path / "n4" / "state.name").read_text() == "node-4"


def test_a_folder_that_another_name_used_says_whose_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start(grid_of(tmp_path), 1, folder=tmp_path / "run")
    (tmp_path / "n4" / FILE).write_text('name = "site-4"\n')
    private = start(grid_of(tmp_path), 2, folder=tmp_path / "run")
    assert [len(round.survivors) for round in private.history] == [3]
    assert "was first used by 'node-4', and is called 'site-4' now: another site" in caplog.text


def test_two_connected_nodes_are_told_how_to_be_three(tmp_path: Path) -> None:
    grid = grid_of(tmp_path)
    del grid.apps[3], grid.apps[4]
    with pytest.raises(Misuse, match=r"in a sum of two.*give yours min_available_nodes=3.*num-supernodes=4"):
        start(grid, strategy=fedavg(2))


def test_what_passed_without_a_word_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    start(grid_of(tmp_path, []), privacy=[])
    assert "no secure sum is listed: the server reads every update" in warnings_of(caplog)
    assert "the server reads what this node sends" in caplog.text
    caplog.clear()
    start(grid_of(tmp_path / "other"), 2, metrics=["los"])
    assert warnings_of(caplog).count("metrics: 'los' never comes") == 1


@pytest.mark.parametrize("server", [[], masks()])
def test_another_secure_sum_on_the_two_sides_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, server: list[Any]
) -> None:
    start(grid_of(tmp_path, masks() if not server else []), privacy=server)
    assert "secure sum: this node has" in warnings_of(caplog)


def test_a_weight_that_no_app_replies_with_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    start(grid_of(tmp_path), strategy=FedAvg(weighted_by_key="num_examples", min_train_nodes=4))
    assert "under 'num_examples', got none: name the metric that counts" in warnings_of(caplog)


def test_a_server_without_the_roster_that_nodes_hold_is_told_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    grid, _ = rostered(tmp_path, 4, privacy_mod(masks()))
    assert start(grid).history[0].abandoned is not None
    assert "it is not signed, and a roster is held here" in warnings_of(caplog)


def test_layers_without_a_list_and_strategies_of_another_kind_are_refused_by_their_own_reason() -> None:
    with pytest.raises(Misuse, match="privacy: expected a list of layers, got SecAggPlus"):
        PrivateStrategy(fedavg(4), privacy=SecAggPlus())  # type: ignore[arg-type]
    with pytest.raises(Misuse, match="privacy: expected a list of layers, got SecAggPlus"):
        privacy_mod(SecAggPlus())  # type: ignore[arg-type]
    with pytest.raises(
        Misuse, match=r"legacy flwr\.server\.strategy: import it from flwr\.serverapp\.strategy"
    ):
        PrivateStrategy(LegacyFedAvg(), privacy=masks())  # type: ignore[arg-type]
    with pytest.raises(Misuse, match="metrics: expected a list of names, got 'loss'"):
        PrivateStrategy(fedavg(4), metrics="loss")
    inside = DifferentialPrivacyClientSideFixedClipping(fedavg(4), 1.0, 1.0, 4)
    with pytest.raises(Misuse, match="a mod of its own clips at the clients"):
        PrivateStrategy(inside, privacy=masks())


class Killed(BaseException):
    """Stands for SIGKILL of the ServerApp."""


def test_a_round_is_kept_before_its_strategy_looks_for_nodes_to_evaluate(tmp_path: Path) -> None:
    """Its sum was opened: nobody sends these updates again."""
    sampled: list[int] = []

    class Looking(FedAvg):
        needs_only_the_mean = True

        def configure_evaluate(self, server_round: int, *given: Any) -> Any:
            sampled.append(server_round)
            raise Killed

    looking = Looking(fraction_evaluate=0.5, min_train_nodes=4, min_available_nodes=4)
    start(grid_of(tmp_path / "a"), 2, looking, folder=tmp_path / "a" / "run")
    assert not sampled
    with pytest.raises(Killed):
        start(grid_of(tmp_path / "b"), 2, looking, folder=tmp_path / "b" / "run", evaluate="clear")
    assert len((tmp_path / "b" / "run" / "metrics.jsonl").read_text().splitlines()) == 1
    private = start(
        grid_of(tmp_path / "b"), 2, fedavg_like(looking), folder=tmp_path / "b" / "run", evaluate="clear"
    )
    assert private.rounds is not None
    assert [round.abandoned for round in private.rounds.before] == [None]
    assert [round.number for round in private.history] == [2]


def fedavg_like(other: FedAvg) -> FedAvg:
    """A strategy of the same class that evaluates nowhere, with nothing of its own to take up."""
    kind = type(
        type(other).__name__,
        (FedAvg,),
        {"needs_only_the_mean": True, "secagg_restore": lambda self, kept: None},
    )
    return kind(fraction_evaluate=0.0, min_train_nodes=4, min_available_nodes=4)


def test_an_abandoned_round_is_kept_with_the_model_before_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    private = start(grid_of(tmp_path, before=lambda node, message: None), 1, folder=run, stage_timeout=0.05)
    assert private.history[0].abandoned is not None
    kept = run_to_resume(run)
    assert kept is not None
    assert [round.abandoned is None for round in kept.history] == [False]
    assert arrays_of(kept.model) == arrays_of(model())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("numbers", {"bits": 16}),
        ("integers", "summ"),
        ("stage_timeout", "60"),
        ("node_timeout", -5),
        ("poll", 0),
        ("ledger", "run.ledger"),
    ],
)
def test_an_option_that_is_none_is_refused_before_anybody_trains(name: str, value: Any) -> None:
    with pytest.raises(Misuse, match=f"^{name}: expected"):
        PrivateStrategy(fedavg(4), masks(), **{name: value})


def test_a_strategys_class_in_place_of_a_strategy_is_named() -> None:
    with pytest.raises(Misuse, match="SecAggPlus"):
        privacy_mod(SecAggPlus)
    with pytest.raises(Misuse, match=r"got the class FedAvg: write FedAvg\(\.\.\.\)"):
        PrivateStrategy(FedAvg, masks())
