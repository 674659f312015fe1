"""KeepBest and EarlyStopping: what they hold, what they may read beside noise, and which way is better."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from dp import Ledger
from fl import Federation
from fl.callbacks import EarlyStopping, KeepBest
from protocols.errors import Misuse
from secagg import SecAggPlus
from tests.unit.fl.callbacks_rig import Scripted, federation, noise, scripted


def test_keep_best_holds_the_model_of_the_best_round(tmp_path: Path) -> None:
    models: list[torch.Tensor] = []
    best = KeepBest("score", "max", path=tmp_path / "kept" / "best.safetensors")
    run = scripted(0.0, 0.3, 0.9, math.nan, 0.9, callback=best)
    run.fit(4, on_round=lambda result: models.append(run.model.weight.detach().clone()))
    assert (best.round, best.value, best.since) == (2, 0.9, 2)
    assert best.state is not None
    assert torch.equal(best.state["weight"], models[1])
    assert not torch.equal(run.model.weight, models[1])


def test_a_resumed_run_knows_what_was_best_before_it(tmp_path: Path) -> None:
    def made(*values: float) -> tuple[KeepBest, Federation]:
        best = KeepBest("score", "max", path=tmp_path / "best.safetensors")
        return best, scripted(*values, callback=best, output=tmp_path / "run")

    first, run = made(0.0, 0.3, 0.9)
    run.fit(2)
    again, run = made(0.0, 0.5)
    run.fit(3, resume=True)
    assert (again.round, again.value) == (2, 0.9)
    assert first.state is not None
    assert again.state is not None
    assert torch.equal(again.state["weight"], first.state["weight"])


def test_early_stopping_waits_for_its_patience_and_a_resumed_run_plays_on(tmp_path: Path) -> None:
    def made(*values: float) -> Federation:
        waiting = EarlyStopping("score", "min", patience=2, least=0.1)
        return scripted(*values, callback=waiting, output=tmp_path)

    assert len(made(9.0, 1.0, 0.95, 0.5, 0.45, 0.5, 0.1).fit(9).history) == 5
    assert len(made(9.0, 0.6, 0.1).fit(9, resume=True).history) == 6
    assert len(made(9.0, 0.1, 0.2, 0.3, 0.4).fit(9, resume=True).history) == 9


def test_abandoned_rounds_try_no_ones_patience() -> None:
    run = scripted(*[1.0] * 9, callback=EarlyStopping("score", "min", patience=1), min_survivors=4)
    run.engine.departures = lambda protocol, session: (  # type: ignore[attr-defined]
        (["1"], {protocol.stages(session)[0].name: ["1"]}) if session.round in (2, 3) else ([], {})
    )
    history = run.fit(6).history
    assert [bool(entry.abandoned) for entry in history] == [False, True, True, False]


def test_a_metric_that_the_clients_summed_may_choose_where_there_is_no_noise() -> None:
    best = KeepBest("loss", mode="min", of="train")
    result = federation(SecAggPlus(), callbacks=[best]).fit(3)
    losses = [entry.train_metrics["loss"] for entry in result.history]
    assert best.value == min(losses)


@pytest.mark.parametrize("kind", [KeepBest, EarlyStopping])
def test_beside_noise_only_the_servers_own_data_may_choose_or_stop(kind: Any, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db", epsilon=99.0, delta=1e-5)
    with pytest.raises(Misuse, match=r"of the clients' data is not covered by the layers' noise.*of=.test"):
        federation(noise(), callbacks=[kind("loss", "min", of="train")], ledger=ledger).fit(2)
    assert not list(ledger.entries())
    run = federation(noise(), callbacks=[kind("score", "max")], test=[], evaluate=Scripted(*[1.0] * 9))
    assert run.fit(2).history


@pytest.mark.parametrize("kind", [KeepBest, EarlyStopping])
def test_a_metric_gets_better_the_way_its_name_says_or_the_way_must_be_said(kind: Any) -> None:
    """Both have a default metric of their own: its way must not become another metric's."""
    for metric, way in {"val_loss": "min", "error": "min", "clients.auroc": "max", "accuracy": "max"}.items():
        assert kind(metric).mode == way
        assert kind(metric, "max").mode == "max"
    with pytest.raises(Misuse, match=r"which way does 'score' get better\? Say mode="):
        kind("score")


def test_early_stopping_lets_a_rising_accuracy_rise() -> None:
    class Rising:
        def __init__(self) -> None:
            self.said = 0.0

        def __call__(self, model: Any, loader: Any) -> dict[str, float]:
            self.said += 0.1
            return {"accuracy": self.said}

    run = federation(
        test=[],
        evaluate=Rising(),
        callbacks=[EarlyStopping("accuracy", patience=1), best := KeepBest("accuracy")],
    )
    assert (len(run.fit(4).history), best.round) == (4, 4)
