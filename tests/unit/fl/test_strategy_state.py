"""What clients keep for SCAFFOLD, FedDyn and FedAdp, through drop-out, abandoned rounds, kills and restarts; what a
round with a second vector costs, and which stacks are refused, by name.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dp import ClientDP
from fl import (
    FedAdagrad,
    FedAdam,
    FedAdp,
    FedAvgM,
    FedDyn,
    Federation,
    FedNova,
    FedYogi,
    Scaffold,
    personal,
)
from fl.computation import LocalComputation
from fl.round.run_files import RunFiles
from fl.strategies import Strategy
from protocols.errors import ClientFailed, ProtocolViolation, SecAggError
from protocols.party_state import CLOSED, PartyState
from secagg import SecAggPlus
from tests.toys.squares import federation, problem, weights
from tests.unit.fl.test_strategy_hooks import RefusesOnce

DATA = problem((12,) * 6)
WIDE: dict[str, Any] = {"local_epochs": 3}


def kept(run: Federation, client: str) -> dict[str, np.ndarray]:
    """What a client holds after the last round that closed with it."""
    closed = run.coordinator.closed.get(client, 0)
    shown = run.coordinator.sample().own(client, run.engine.stores[client])  # type: ignore[attr-defined]
    own = replace(shown, number=closed + 1, public={CLOSED: {client: float(closed)}})
    return PartyState.of(own, run.setup.strategy.name).arrays()


def mean_kept(run: Federation, name: str) -> np.ndarray:
    held = [kept(run, client).get(name, np.zeros(3)) for client in run.setup.names]
    found: np.ndarray = np.mean(held, axis=0)
    return found


AGREE: dict[str, tuple[Callable[[], Any], str, str]] = {
    "scaffold-1": (lambda: Scaffold(1, control_clip=0.25), "control", "control"),
    "scaffold-2": (lambda: Scaffold(2, control_clip=0.25), "control", "control"),
    "feddyn": (lambda: FedDyn(1.0), "h", "gradient"),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "rounding": {"bits": 8, "range": 0.5},
    "drop-out": {"dropout": 0.4, "bits": 16, "seed": 3},
    "some are asked": {"fraction": 0.5, "bits": 16, "seed": 1},
    "an abandoned round": {"privacy": [RefusesOnce(2), SecAggPlus()]},
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", AGREE)
def test_what_the_server_holds_is_always_the_mean_of_what_clients_hold(name: str, options: str) -> None:
    make, server, client = AGREE[name]
    strategy, given = make(), {"privacy": [SecAggPlus()] if options == "rounding" else [], **OPTIONS[options]}
    if options == "an abandoned round":
        given["privacy"] = [RefusesOnce(2), SecAggPlus()]
    run = federation(DATA, strategy, **(WIDE | given))
    history = run.fit(6).history
    if options == "an abandoned round":
        assert [bool(result.abandoned) for result in history] == [False, True, False, False, False, False]
    if options in ("drop-out", "some are asked"):
        assert {len(result.survivors) for result in history} != {len(DATA)}
    assert strategy.state()[server] == pytest.approx(mean_kept(run, client), abs=1e-12)
    assert np.abs(strategy.state()[server]).max() > 0.01


@pytest.mark.parametrize("name", AGREE)
def test_they_agree_too_where_a_layer_clips_what_is_sent(name: str) -> None:
    make, server, client = AGREE[name]
    run = federation(DATA, strategy := make(), [ClientDP(noise_multiplier=1e-9, clip=0.05)], **WIDE)
    run.fit(4)
    assert strategy.state()[server] == pytest.approx(mean_kept(run, client), abs=1e-6)


KEEPING: dict[str, Callable[[], Strategy]] = {
    "fedadam": lambda: FedAdam(0.1),
    "fedyogi": lambda: FedYogi(0.1),
    "fedadagrad": lambda: FedAdagrad(0.1),
    "fedavgm": FedAvgM,
    "fednova": lambda: FedNova(usual=3),
    "fedadp": FedAdp,
    "scaffold-1": lambda: Scaffold(1),
    "scaffold-2": Scaffold,
    "feddyn": lambda: FedDyn(1.0),
}


@pytest.mark.parametrize("name", KEEPING)
def test_a_run_that_is_killed_between_rounds_ends_where_it_would_have_ended(
    tmp_path: Path, name: str
) -> None:
    def run(**more: Any) -> Federation:
        return federation(
            DATA, KEEPING[name](), [SecAggPlus(dropout=0.3)], dropout=0.2, seed=2, **WIDE, **more
        )

    run(output=tmp_path).fit(2)
    again = run(output=tmp_path)
    again.fit(5, resume=True)
    whole = run()
    whole.fit(5)
    assert torch.equal(again.model.weight, whole.model.weight)
    assert {k: v.tolist() for k, v in again.setup.strategy.state().items()} == {
        k: v.tolist() for k, v in whole.setup.strategy.state().items()
    }


@pytest.mark.parametrize("name", ["scaffold-2", "feddyn", "fedadp"])
def test_a_kill_after_the_clients_kept_their_state_and_before_the_server_did_plays_the_round_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def killed(files: RunFiles, held: Any) -> str:
        if held.rounds == 3:
            raise KeyboardInterrupt
        return save(files, held)

    save = RunFiles.save
    monkeypatch.setattr(RunFiles, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        federation(DATA, KEEPING[name](), output=tmp_path, **WIDE).fit(4)
    monkeypatch.undo()
    again = federation(DATA, KEEPING[name](), output=tmp_path, **WIDE)
    again.fit(4, resume=True)
    whole = federation(DATA, KEEPING[name](), **WIDE)
    whole.fit(4)
    assert torch.equal(again.model.weight, whole.model.weight)


def test_state_of_a_round_that_the_server_lost_is_rolled_back(tmp_path: Path) -> None:
    federation(DATA, Scaffold(), output=tmp_path / "one", **WIDE).fit(2)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    federation(DATA, Scaffold(), output=tmp_path / "one", **WIDE).fit(3, resume=True)
    for held in (tmp_path / "one").glob("clients*"):  # of a round after the checkpoint's
        shutil.copy(held, tmp_path / "two" / held.name)
    late = federation(DATA, Scaffold(), output=tmp_path / "two", **WIDE)
    late.fit(3, resume=True)
    assert torch.equal(late.model.weight, federation(DATA, Scaffold(), **WIDE).fit(3).model.weight)


def test_an_update_that_is_not_finite_leaves_a_control_variate_as_it_was() -> None:
    bad = {"3"}

    def train(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
        for x, y in loader:
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()
        if any(torch.equal(x, own) for x, _ in loader for own in broken):
            torch.nn.init.constant_(model.weight, float("nan"))

    for strategy in (Scaffold(), FedDyn(1.0)):
        run = federation(DATA, strategy, [ClientDP(noise_multiplier=1e-9, clip=9.0)], train=train)
        broken = [torch.from_numpy(DATA[int(name)][0]) for name in bad]
        assert not any(result.abandoned for result in run.fit(2).history)
        assert np.isfinite(weights(run)).all()
        assert not np.concatenate([*kept(run, "3").values()]).any()
        assert np.concatenate([*kept(run, "2").values()]).any()


def test_a_client_of_another_alpha_takes_no_part() -> None:
    run = federation(DATA, FedDyn(1.0), **WIDE)
    run.fit(1)
    shown = run.coordinator.open(2, run.setup.names)
    run.setup.strategy.alpha = 2.0  # type: ignore[attr-defined]
    with pytest.raises(ClientFailed, match="alpha: this client was made with 2, the server with 1"):
        LocalComputation(run.setup, run.model)(shown, shown.own("0", run.engine.stores["0"]))  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["scaffold-1", "scaffold-2", "feddyn", "fednova"])
def test_worker_processes_train_to_the_same_model(name: str) -> None:
    runs = [federation(DATA, KEEPING[name](), [SecAggPlus()], workers=workers, **WIDE) for workers in (1, 2)]
    assert torch.equal(*(run.fit(2).model.weight for run in runs))


def test_what_clients_keep_is_erased_when_the_run_is_over(tmp_path: Path) -> None:
    run = federation(DATA, Scaffold(), output=tmp_path, **WIDE)
    run.fit(2)
    assert kept(run, "0")
    personal.erase(run)
    stores = run.engine.stores.values()  # type: ignore[attr-defined]
    assert not any(name.startswith("kept/") for store in stores for name in store.names())
    assert not (tmp_path / "clients.npz").exists()
    with pytest.raises(SecAggError, match=r"clients\.npz is gone"):
        federation(DATA, Scaffold(), output=tmp_path, **WIDE).fit(3, resume=True)


def test_what_was_kept_beside_another_model_is_refused() -> None:
    run = federation(DATA, Scaffold(), **WIDE)
    run.fit(1)
    own = run.coordinator.open(2, run.setup.names).own("0", run.engine.stores["0"])  # type: ignore[attr-defined]
    assert PartyState.of(own, "scaffold").arrays().keys() == {"control"}
    with pytest.raises(ProtocolViolation, match="beside a model of other names, shapes or dtypes"):
        PartyState.of(replace(own, schema=bytes(32)), "scaffold").arrays()


def test_the_statement_says_that_what_clients_keep_lies_outside_epsilon() -> None:
    told = " ".join(federation(DATA, Scaffold(), [ClientDP(noise_multiplier=1.0)]).fit(1).statement.notes)
    assert "what clients keep from round to round (scaffold)" in told
    assert "outside any epsilon" in told
    assert "the change of a control variate is clipped to norm 1 of its own" in told
