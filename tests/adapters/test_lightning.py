"""LightningModule and Trainer: one schedule over the run, layers exchange, SampleDP works through `fit`."""

import runpy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

pytest.importorskip("lightning")

import lightning as L  # noqa: N812  # as its documentation says
from lightning.pytorch.callbacks import EarlyStopping

from benchmarks.diffs import Pair
from dp import ClientDP, SampleDP
from fl import FedProx
from fl.adapters import from_lightning
from he import CKKSSum
from protocols.errors import Misuse
from secagg import SecAgg, SecAggPlus

X = torch.arange(24.0).reshape(12, 2) / 24
Y = (X.sum(1) > 1).long()


class Net(L.LightningModule):
    """A classifier. schedule: what `configure_optimizers` returns beside the optimizer."""

    def __init__(self, schedule: str = "epoch") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.schedule = schedule
        self.layers = torch.nn.Linear(2, 2)
        self.frozen = torch.nn.Linear(2, 2).requires_grad_(False)

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        RATES.append(self.trainer.optimizers[0].param_groups[0]["lr"])
        EPOCHS.append(self.current_epoch)
        x, y = batch
        loss = torch.nn.functional.cross_entropy(self.layers(x), y)
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, index: int) -> None:
        x, y = batch
        self.log("accuracy", (self.layers(x).argmax(1) == y).float().mean())

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.1)
        if self.schedule == "none":
            return optimizer
        if self.schedule == "two":
            return [optimizer, optimizer], []
        if self.schedule == "nothing":
            return None
        if self.schedule == "plateau":
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "loss"}}
        if self.schedule == "cycle":
            steps = self.trainer.estimated_stepping_batches
            cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=int(steps))
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}
        decay = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        return [optimizer], [{"scheduler": decay, "interval": self.schedule}]


RATES: list[float] = []
EPOCHS: list[int] = []


def trainer(**options: Any) -> Any:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "accelerator": "cpu",
        "enable_progress_bar": False,
    }
    return lambda: L.Trainer(**{"max_epochs": 1, "enable_model_summary": False, **quiet, **options})


def loaders(names: str = "ab", size: int = 12) -> dict[str, Any]:
    return {
        name: DataLoader(TensorDataset(X[:size].clone(), Y[:size].clone()), 6, shuffle=True) for name in names
    }


@pytest.mark.parametrize("schedule", ["epoch", "step", "cycle"])
def test_schedules_and_epochs_run_over_the_whole_run(schedule: str) -> None:
    options = {"optimizer": torch.optim.Adam} if schedule == "cycle" else {}
    seen = []
    for rounds, epochs in ((1, 4), (2, 2), (4, 1)):
        RATES.clear(), EPOCHS.clear()
        federation = from_lightning(Net(schedule), trainer(max_epochs=epochs), loaders("a"), **options)
        federation.fit(rounds=rounds)
        seen.append((tuple(RATES), tuple(EPOCHS)))
    alone = Net(schedule)
    RATES.clear(), EPOCHS.clear()
    trainer(max_epochs=4)().fit(alone, loaders("a")["a"])
    seen.append((tuple(RATES), tuple(EPOCHS)))
    assert EPOCHS == [0, 0, 1, 1, 2, 2, 3, 3]
    for rates, epochs in seen:
        assert rates == pytest.approx(RATES)
        assert epochs == tuple(EPOCHS)


def test_a_round_of_one_client_is_the_modules_own_training_and_only_what_trains_moves() -> None:
    alone = Net("none")
    full = DataLoader(TensorDataset(X, Y), 12)
    trainer(max_epochs=2)().fit(alone, full)
    made = Net("none")
    federation = from_lightning(
        made, trainer(max_epochs=2), {"a": full}, metrics=("loss",), bits=28, test=full
    )
    protected = {leaf.name for leaf in federation.coordinator.schema.leaves if leaf.rule == "protect"}
    result = federation.fit(rounds=1)
    assert protected == {"layers.weight", "layers.bias"}
    for name, value in alone.state_dict().items():
        assert result.model.state_dict()[name] == pytest.approx(value, abs=1e-5)
        assert torch.equal(made.state_dict()[name], Net().state_dict()[name])
    assert result.history[0].train_metrics["loss"] == pytest.approx(
        float(alone.trainer.callback_metrics["loss"]), abs=1e-3
    )
    assert 0 <= result.history[0].metrics["accuracy"] <= 1


@pytest.mark.parametrize(
    "layers",
    [[SecAggPlus()], [CKKSSum()], [ClientDP(noise_multiplier=1e-3, clip=1.0, delta=1e-5), SecAgg()]],
    ids=lambda layers: layers[0].name,
)
def test_layers_are_exchanged_and_strategies_may_own_the_optimizer(layers: list[Any]) -> None:
    runs = [
        from_lightning(Net(), trainer(), loaders("abc"), privacy=layers, strategy=FedProx(mu)).fit(rounds=1)
        for mu in (50.0, 0.0)
    ]
    assert runs[0].survivors == [("a", "b", "c")]
    start, name = Net().state_dict()["layers.weight"], "layers.weight"
    pulled, free = (float((run.model.state_dict()[name] - start).norm()) for run in runs)
    assert pulled < 0.8 * free, "the strategy's pull reaches the module's own optimizer"


def test_sample_dp_works_through_fit() -> None:
    federation = from_lightning(
        Net("none"), trainer(max_epochs=2), loaders(), privacy=[SampleDP(noise_multiplier=1.0, delta=1e-5)]
    )
    result = federation.fit(rounds=2)
    start = Net().state_dict()
    moved = {name for name, value in result.model.state_dict().items() if not torch.equal(value, start[name])}
    assert moved == {"layers.weight", "layers.bias"}
    assert "sample-dp" in result.statement.describe()


@pytest.mark.parametrize(
    ("schedule", "options", "says"),
    [
        ("none", {"accumulate_grad_batches": 2}, r"accumulate_grad_batches=1 \(it is 2\)"),
        ("none", {"gradient_clip_val": 0.5}, r"gradient_clip_val=None \(it is 0.5\)"),
        ("epoch", {}, r"SampleDP owns the learning rates: leave the schedulers out.*SampleDP\(schedule="),
    ],
)
def test_what_sample_dp_leaves_without_effect_is_named_before_round_one(
    schedule: str, options: dict[str, Any], says: str
) -> None:
    plain = from_lightning(Net(schedule), trainer(**options), loaders())
    with pytest.raises(Misuse, match=says):
        plain.with_privacy([SampleDP(noise_multiplier=1.0, delta=1e-5)])


class Module(L.LightningDataModule):
    def train_dataloader(self) -> Any:
        return loaders("a")["a"]


class Blind(Net):
    validation_step = L.LightningModule.validation_step


SAME = trainer()()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"trainer": trainer()()}, "expected a function that makes a Trainer"),
        ({"trainer": lambda: SAME}, "expected a new Trainer at every call"),
        ({"trainer": lambda: None}, "a function that makes a Trainer of the package lightning.*got NoneType"),
        ({"trainer": trainer(max_epochs=-1)}, "whole passes, 1 or more, got -1"),
        ({"trainer": trainer(callbacks=[EarlyStopping("loss")])}, "EarlyStopping watches.*leave it out"),
        ({"module": Net("two")}, "expected one optimizer.*got Adam, Adam: a loop with several"),
        ({"module": Net("nothing")}, "configure_optimizers: Net's gives no optimizer: let it return one, or"),
        ({"module": Net("cycle")}, r"needs a Trainer with data.*optimizer=lambda"),
        ({"module": Net("plateau")}, "ReduceLROnPlateau follows a metric"),
        ({"module": torch.nn.Linear(2, 2)}, "expected a LightningModule of the package lightning"),
        (
            {"clients": {**loaders(), "c": Module()}},
            r"client 'c'.*LightningDataModule Module.*train_dataloader\(\)",
        ),
        ({"test": Module()}, "test: expected a DataLoader"),
        ({"test": loaders()["a"], "module": Blind()}, "Blind has no validation_step and no test_step"),
    ],
)
def test_what_cannot_be_federated_is_a_sentence(given: dict[str, Any], says: str) -> None:
    usual = {"module": Net(), "trainer": trainer(), "clients": loaders()}
    with pytest.raises(Misuse, match=says):
        from_lightning(**{**usual, **given})


def test_a_class_in_place_of_a_module_is_refused_and_stays_as_it_was() -> None:
    before = dict(vars(Net))
    with pytest.raises(Misuse, match=r"got the class Net: write Net\(\.\.\.\)"):
        from_lightning(Net, trainer(), loaders())
    assert vars(Net) == before
    result = from_lightning(Net(), trainer(), loaders(), metrics=("loss",)).fit(rounds=1)
    assert result.history[0].train_metrics["loss"] > 0


def test_an_optimizer_beside_a_module_that_makes_none_and_never_without_its_schedules() -> None:
    federation = from_lightning(Net("nothing"), trainer(), loaders(), optimizer=torch.optim.Adam)
    moved = federation.fit(rounds=1).model.state_dict()["layers.weight"]
    assert not torch.equal(moved, Net().state_dict()["layers.weight"])

    def groups(parameters: Any) -> Any:
        return torch.optim.Adam([{"params": [each]} for each in parameters])

    with pytest.raises(Misuse, match=r"schedules for 1 groups of parameters, and .* makes 4"):
        from_lightning(Net("epoch"), trainer(), loaders(), optimizer=groups).fit(rounds=1)


def test_a_trainer_as_it_comes_leaves_no_folders_and_says_nothing_of_what_is_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", module="lightning.pytorch.(trainer|loops)")
        warnings.filterwarnings("ignore", message=".*(CSVLogger|shuffling)")
        federation = from_lightning(Net(), lambda: L.Trainer(max_epochs=1, accelerator="cpu"), loaders())
        assert federation.fit(rounds=1).survivors == [("a", "b")]
    assert not list(tmp_path.iterdir())


def test_the_example_runs_and_five_lines_change(capsys: pytest.CaptureFixture[str]) -> None:
    assert Pair("examples/adapters/lightning").changed <= 5
    runpy.run_module("examples.adapters.lightning_after")
    assert "accuracy" in capsys.readouterr().out
