"""Callbacks: when hooks are called and where, what they are handed, how they end a run, and what is refused before
anything is charged.
"""

import csv
import pickle
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from dp import ClientDP, DistributedDP, SampleDP
from dp.sample.errors import UnaccountedStep
from fl import FedSGD
from fl.callbacks import Callback, CSVLog, EarlyStopping, KeepBest, Run
from fl.callbacks.base import of_clients
from fl.callbacks.logs import released
from fl.round import RoundResult
from protocols.errors import Misuse
from protocols.layers import LocalTask
from secagg import SecAggPlus
from tests.unit.fl.callbacks_rig import Scripted, federation, noise


class Diary(Callback):
    def __init__(self) -> None:
        self.said: list[Any] = []

    def on_run_begin(self, run: Run) -> None:
        self.said.append(("run", run.rounds, len(run.history)))

    def on_round_begin(self, run: Run, number: int) -> None:
        self.said.append(("round", number))

    def on_round_end(self, run: Run, result: RoundResult) -> None:
        assert run.history[-1] is result
        self.said.append(("round over", result.number))

    def on_run_end(self, run: Run) -> None:
        self.said.append(("run over", len(run.history)))

    def on_client_begin(self, task: LocalTask, number: int) -> None:
        self.said.append((task.client, number))

    def on_client_end(self, task: LocalTask, number: int, metrics: Mapping[str, float]) -> None:
        self.said.append((task.client, sorted(metrics)))


def test_hooks_are_called_in_order_and_what_began_ends() -> None:
    diary = Diary()
    federation(callbacks=[diary]).fit(1)
    clients = [said for name in "0123" for said in ((name, 1), (name, ["accuracy", "loss"]))]
    assert diary.said == [("run", 1, 0), ("round", 1), *clients, ("round over", 1), ("run over", 1)]


def test_layers_that_own_the_training_let_clients_hooks_run_once_a_round() -> None:
    def loss(model: Any, batch: Any) -> Any:
        return torch.nn.functional.cross_entropy(model(batch[0]), batch[1])

    diary = Diary()
    federation(SampleDP(epsilon=8, delta=1e-3), loss=loss, callbacks=[diary]).fit(2)
    assert [said[1] for said in diary.said if said[0] == "2"] == [
        1,
        ["accuracy", "loss"],
        2,
        ["accuracy", "loss"],
    ]


class Moves(Callback):
    """A warm start, or a calibration: the bias follows the client's own labels."""

    def __init__(self, hook: str) -> None:
        setattr(self, hook, self._move)

    def _move(self, task: LocalTask, *_: Any) -> None:
        with torch.no_grad():
            task.model.bias += 1.0

    def on_client_begin(self, task: LocalTask, number: int) -> None: ...
    def on_client_end(self, task: LocalTask, number: int, metrics: Mapping[str, float]) -> None: ...


@pytest.mark.parametrize("hook", ["on_client_begin", "on_client_end"])
@pytest.mark.parametrize(
    "layer", [SampleDP, partial(DistributedDP, unit="example", sample_rate=0.5, examples=6)]
)
def test_a_hook_moves_no_model_beside_a_layer_that_clips_examples(layer: Any, hook: str) -> None:
    def loss(model: Any, batch: Any) -> Any:
        return torch.nn.functional.cross_entropy(model(batch[0]), batch[1])

    run = federation(layer(epsilon=8, delta=1e-3), loss=loss, callbacks=[Moves(hook)])
    with pytest.raises(UnaccountedStep, match=f"Moves.{hook} moved bias"):
        run.fit(1)
    federation(noise(), callbacks=[Moves(hook)]).fit(1)


class Told(torch.nn.Module):
    """A criterion, and a loss, with room for what somebody finds in the data."""

    found = 0.0

    def forward(self, made: Any, of: Any) -> Any:
        x, y = (made(of[0]), of[1]) if isinstance(made, torch.nn.Module) else (made, of)
        seen.append(self.found)
        return torch.nn.functional.cross_entropy(x, y)


seen: list[float] = []


class Tells(Callback):
    """The number of a client's positive labels, written where the loop reads it."""

    def on_client_begin(self, task: LocalTask, number: int) -> None:
        for held in (task.criterion, task.loss, *task.noted.values()):
            held.found = float(sum(int(y) for _, y in task.loader.dataset) + 1)


@pytest.mark.parametrize(
    "layer", [SampleDP, partial(DistributedDP, unit="example", sample_rate=0.9, examples=24)]
)
def test_what_a_hook_finds_reaches_no_loss_beside_a_layer_that_clips_examples(layer: Any) -> None:
    """Which classes a client has, set in its criterion by a hook, moved sums by 199 clips."""
    seen.clear()
    layers = [layer(epsilon=8, delta=1e-3)]
    own = FedSGD() if layer is not SampleDP else None
    federation(*layers, criterion=Told, loss=Told(), strategy=own, callbacks=[Tells()]).fit(1)
    assert set(seen) == {0.0}
    seen.clear()
    federation(noise(), criterion=Told, loss=Told(), callbacks=[Tells()]).fit(1)
    assert 0.0 not in seen  # where a client's update is clipped whole, its hooks do as they like


@pytest.mark.parametrize("hook", ["on_run_begin", "on_round_begin", "on_round_end"])
def test_any_hook_of_the_server_ends_the_run(hook: str) -> None:
    class Stop(Diary):
        pass

    def stop(self: Any, run: Run, *what: Any) -> bool:
        return len(run.history) < 1

    setattr(Stop, hook, stop if hook != "on_run_begin" else lambda self, run: False)
    first, diary = Stop(), Diary()
    result = federation(callbacks=[first, diary]).fit(5)
    assert len(result.history) == (0 if hook == "on_run_begin" else 1)
    assert diary.said[0] == ("run", 5, 0)
    assert diary.said[-1] == ("run over", len(result.history))


@pytest.mark.parametrize("hook", ["on_run_begin", "on_round_begin", "on_round_end", "on_run_end"])
def test_an_error_of_a_callback_names_it_and_loses_nothing(hook: str, tmp_path: Path) -> None:
    class Broken(Callback):
        pass

    def fail(self: Any, run: Run, *what: Any) -> None:
        if hook in ("on_run_begin", "on_run_end") or len(run.history) >= 1:
            raise OSError("no room")

    setattr(Broken, hook, fail)
    diary = Diary()
    run = federation(callbacks=[diary, Broken()], output=tmp_path)
    with pytest.raises(OSError, match="no room") as caught:
        run.fit(2)
    assert f"Broken.{hook} raised this" in caught.value.__notes__[0]
    assert diary.said[-1][0] == "run over"
    played = {"on_run_begin": 0, "on_run_end": 2}.get(hook, 1)
    assert len(run.result.history) == played
    whole = federation()
    whole.fit(2)
    if played:
        again = federation(output=tmp_path)
        again.fit(2, resume=True)
        assert torch.equal(again.model.weight, whole.model.weight)


@pytest.mark.parametrize(
    "callback, options, said",
    [
        (KeepBest("accuracy"), {}, r"'accuracy' never comes; test metrics are \[\]: give test="),
        (KeepBest("f1"), {"test": [(torch.zeros(2, 4), torch.zeros(2).long())]}, r"\['accuracy', 'loss'\]"),
        (
            KeepBest("f1", of="train"),
            {},
            r"train metrics are \['loss', 'accuracy'\]: metrics=\[...\] sums it",
        ),
    ],
)
def test_a_metric_that_never_comes_is_named_before_round_1(callback: Any, options: Any, said: str) -> None:
    diary = Diary()
    with pytest.raises(Misuse, match=said):
        federation(callbacks=[callback, diary], **options).fit(1)
    assert diary.said == []


def test_a_training_metric_that_nobody_reports_is_named_after_the_first_round() -> None:
    def train(model: Any, loader: Any) -> None:
        pass

    with pytest.raises(Misuse, match="no client reported 'loss' in round 1"):
        federation(train=train, callbacks=[EarlyStopping(of="train")]).fit(2)


@pytest.mark.parametrize(
    "given, said",
    [
        (EarlyStopping, r"expected a list of callbacks"),
        ([EarlyStopping], r"got the class EarlyStopping: write EarlyStopping\(...\)"),
        ([print], r"a function of a round's result goes to fit\(on_round=...\)"),
        (KeepBest(), r"write callbacks=\[...\]"),
    ],
)
def test_what_is_no_callback_is_named(given: Any, said: str) -> None:
    with pytest.raises(Misuse, match=said):
        federation(callbacks=given)


def test_wrong_options_of_a_callback_are_named() -> None:
    for options in ({"mode": "best"}, {"of": "clients"}, {"patience": 0}, {"patience": True}, {"least": -1}):
        with pytest.raises(Misuse, match=r"EarlyStopping: expected"):
            EarlyStopping("loss", **options)  # type: ignore[arg-type]


def test_a_hook_that_cannot_or_never_would_be_called_is_named_before_round_1() -> None:
    class Short(Callback):
        def on_round_end(self, result: Any) -> None:  # type: ignore[override]
            pass

    class Mistyped(Callback):
        def on_round_ends(self, run: Run, result: Any) -> None:
            pass

    with pytest.raises(Misuse, match=r"expected a hook Short.on_round_end\(self, run, result\)"):
        federation(callbacks=[Short()])
    with pytest.raises(
        Misuse, match=r"Mistyped.on_round_ends is no hook and would never be called; hooks are .*on_round_end"
    ):
        federation(callbacks=[Mistyped()])


class Marks(Callback):
    """Moves every client's model where it lives, and notes that it was there."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def on_client_end(self, task: LocalTask, number: int, metrics: Mapping[str, float]) -> None:
        self.seen.append(task.client)
        with torch.no_grad():
            task.model.bias.add_(1.0)


def test_client_hooks_run_in_the_workers_and_what_they_note_stays_there() -> None:
    marked, beside = Marks(), Marks()
    here, there = federation(callbacks=[marked]), federation(callbacks=[beside], workers=2)
    plain = federation()
    for run in (here, there, plain):
        run.fit(1)
    assert torch.equal(here.model.bias, there.model.bias)
    assert torch.allclose(here.model.bias, plain.model.bias + 1, atol=1e-3)
    assert (sorted(marked.seen), beside.seen) == (["0", "1", "2", "3"], [])


def test_only_callbacks_with_a_clients_hook_go_where_clients_live() -> None:
    marks = Marks()
    assert of_clients([KeepBest(), marks, CSVLog("x"), EarlyStopping()]) == (marks,)
    assert pickle.dumps(marks)


def test_a_csv_holds_every_round_and_what_is_released_alone(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "run.csv"
    federation(SecAggPlus(), callbacks=[CSVLog(path)], output=tmp_path / "run").fit(1)
    federation(SecAggPlus(), callbacks=[CSVLog(path)], output=tmp_path / "run").fit(3, resume=True)
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [row["round"] for row in rows] == ["1", "2", "3"]
    assert {"train/loss", "asked", "survivors", "seconds/train"} <= rows[0].keys()


@pytest.mark.parametrize("hidden", [False, True])
def test_what_a_layer_withholds_is_handed_to_no_callback(hidden: bool, tmp_path: Path) -> None:
    seen: list[RoundResult] = []

    class Listen(Callback):
        def on_round_end(self, run: Run, result: RoundResult) -> None:
            seen.append(result)

    layer = ClientDP(noise_multiplier=1.0, delta=1e-5, clip=0.5, amplify=hidden)
    options: dict[str, Any] = {"sampling": "poisson", "fraction": 0.2} if hidden else {}
    callbacks = [Listen(), CSVLog(tmp_path / "run.csv")]
    run = federation(layer, test=[], evaluate=Scripted(*[0.5] * 9), callbacks=callbacks, **options)
    result = run.fit(3)
    assert seen == result.history
    (row, *_) = csv.DictReader((tmp_path / "run.csv").read_text().splitlines())
    allowed = {"round", "test/score", "seconds/privacy_server", "epsilon", "abandoned"}
    counts = {"asked", "survivors", "bytes_up_per_client", "bytes_down_per_client"}
    assert set(row) <= allowed - {"seconds/privacy_server"} if hidden else allowed | counts
    assert float(row["epsilon"]) == result.history[0].epsilon
    for entry in seen:
        assert not entry.train_metrics
        assert not hidden or entry.withheld
        assert not hidden or not (entry.asked or entry.survivors or entry.refusals or entry.seconds)
        assert set(released(entry)) <= set(row)
