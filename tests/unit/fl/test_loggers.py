"""Logs in other people's formats, against the real libraries where they are installed: what is in them is what was
released, and beside noise nothing in them tells how long a round took.
"""

import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from dp import ClientDP
from fl import Federation
from fl.callbacks import Callback, MLflow, TensorBoard, WandB
from fl.callbacks.logs import released
from fl.run_result import Result
from protocols.errors import MissingExtra

ROUNDS = 2


def trained(callback: Callback, *privacy: Any) -> Result:
    loader = DataLoader(TensorDataset(torch.zeros(8, 4), torch.arange(8) % 2), 4)

    def train(model: Any, loader: Any, optimizer: Any) -> dict[str, float]:
        print("a client's own secret")
        return {"loss": 0.25}

    made = Federation(
        lambda: torch.nn.Linear(4, 2), [loader] * 3, train, privacy=privacy, test=loader, callbacks=[callback]
    )
    return made.fit(ROUNDS)


def noise() -> ClientDP:
    return ClientDP(noise_multiplier=1.0, delta=1e-5, clip=1.0)


@pytest.mark.parametrize("make", [TensorBoard, MLflow, WandB])
def test_a_missing_library_is_one_sentence_with_its_extra(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    extra = make.__name__.lower()
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, extra, None)
    with pytest.raises(
        MissingExtra, match=rf"fl.callbacks.{make.__name__} needs {extra}.*toolkit\[{extra}\]"
    ):
        make("here")


@pytest.mark.parametrize("noisy", [False, True])
def test_tensorboard(noisy: bool, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = trained(TensorBoard(tmp_path), *([noise()] if noisy else []))
    events = EventAccumulator(str(tmp_path)).Reload()
    told = [released(entry) for entry in result.history]
    assert set(events.Tags()["scalars"]) == {name for entry in told for name in entry}
    assert ("train/loss" in events.Tags()["scalars"]) != noisy
    for name, value in told[-1].items():
        last = events.Scalars(name)[-1]
        assert (last.step, last.value) == (ROUNDS, pytest.approx(value))
        assert (last.wall_time == ROUNDS) == noisy
        assert noisy or abs(last.wall_time - time.time()) < 600


@pytest.mark.parametrize("noisy", [False, True])
def test_mlflow(noisy: bool, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    result = trained(MLflow("federated", "first"), *([noise()] if noisy else []))
    assert mlflow.active_run() is None
    (run,) = mlflow.search_runs(experiment_names=["federated"], output_format="list")
    assert run.data.params["strategy"] == "fedavg"
    assert run.data.metrics == pytest.approx(released(result.history[-1]))
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "test/loss")
    assert [entry.step for entry in history] == [1, 2]
    assert ([entry.timestamp for entry in history] == [1000, 2000]) == noisy
    with mlflow.start_run() as outer:
        trained(MLflow())
        assert mlflow.active_run().info.run_id == outer.info.run_id


@pytest.mark.parametrize("noisy", [False, True])
def test_wandb(noisy: bool, tmp_path: Path) -> None:
    wandb = pytest.importorskip("wandb")
    said = WandB("federated", mode="offline", dir=str(tmp_path))
    began: list[int] = []
    begin = said._begin
    said._begin = lambda run: (began.append(len(run.history)), begin(run))[-1]  # type: ignore[func-returns-value, method-assign]
    result = trained(said, *([noise()] if noisy else []))
    assert began == [ROUNDS if noisy else 0]
    assert len(result.history) == ROUNDS
    wandb.teardown()  # its own process ends, and its files are whole
    (file,) = tmp_path.rglob("*.wandb")
    held = file.read_bytes()
    assert b"test/loss" in held
    assert not any(b"own secret" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
