"""`secagg init` and a user's own functions on the command line: what is written runs at once, what cannot is told."""

import json
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fl.cli import invoke
from fl.registry import function
from tests.unit.fl.hospitals import HOSPITALS, table


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder, whose modules are forgotten again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    forget()


def forget() -> None:
    """Have the user's modules imported anew."""
    for name in ("loop", "own"):
        sys.modules.pop(name, None)


@pytest.fixture
def secagg(here: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*arguments: str) -> tuple[int, str, str]:
        return invoke(arguments), *capsys.readouterr()

    return call


def summary(printed: str) -> dict:
    return json.loads(printed)


def test_a_new_project_runs_at_once_and_its_loop_is_its_own(secagg, here: Path) -> None:
    code, said, _ = secagg("init")
    assert code == 0
    assert "secagg run" in said
    assert {path.name for path in here.iterdir()} == {"secagg.toml", "loop.py"}
    code, printed, said = secagg("run", "--rounds=2", "--clients=4", "--json")
    assert code == 0, said
    assert summary(printed)["rounds"] == 2
    Path("loop.py").write_text(
        Path("loop.py").read_text().replace("for inputs", "raise OSError('mine')\n    for inputs")
    )
    forget()
    code, _, said = secagg("run", "--rounds=1", "--clients=4")
    assert code == 1
    assert "mine" in said


def test_a_table_with_sites_becomes_a_project_whose_clients_are_the_sites(
    secagg, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table(here / "patients.csv")
    code, _, said = secagg(
        "init", "study", "--data=patients.csv", "--target=outcome", "--clients-by=hospital"
    )
    assert code == 0, said
    written = tomllib.loads((here / "study/secagg.toml").read_text())
    assert written["data"]["clients_by"] == "hospital"
    assert written["partition"] == "natural"
    monkeypatch.chdir("study")
    code, _, said = secagg("run", "--rounds=3", "--learning-rate=0.5", "--json")
    assert code == 0, said
    (kept,) = Path("runs").iterdir()
    rounds = [json.loads(line) for line in (kept / "metrics.jsonl").read_text().splitlines()]
    assert [line["asked"] for line in rounds] == [len(HOSPITALS)] * 3


def test_ones_own_loaders_loop_optimizer_and_evaluation_run_from_the_command_line(secagg, here: Path) -> None:
    """A regression: no data set of ours, no classes, no default loss."""
    Path("own.py").write_text(
        """
import torch
from torch.utils.data import DataLoader, TensorDataset

def loader(k):
    x = torch.linspace(-1, 1, 24).reshape(-1, 1) + k / 100
    return DataLoader(TensorDataset(x, 3 * x + 1), 8, shuffle=True)

def sites(batch_size):
    assert batch_size == 5
    return {f"site-{k}": loader(k) for k in range(3)}

def held_out():
    return loader(7)

def model():
    return torch.nn.Linear(1, 1)

def train(model, loader, optimizer, criterion):
    for x, y in loader:
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()

def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.3)

def evaluate(model, loader, criterion, device):
    with torch.no_grad():
        return {"mse": sum(float(criterion(model(x), y)) for x, y in loader) / len(loader)}
"""
    )
    own = ("--data=own:sites", "--model=own:model", "--train=own:train", "--batch-size=5")
    more = (
        "--optimizer=own:adam",
        "--criterion=torch.nn:MSELoss",
        "--evaluate=own:evaluate",
        "--test=own:held_out",
    )
    code, _, said = secagg("run", *own, *more, "--rounds=8", "--privacy=secagg", "--output=r", "--json")
    assert code == 0, said
    kept = [json.loads(line) for line in Path("r/metrics.jsonl").read_text().splitlines()]
    assert kept[-1]["mse"] < 0.2 < kept[0]["mse"]
    code, _, said = secagg("run", "--resume", "--output=r", "--rounds=9", "--json")
    assert code == 0, said
    code, _, said = secagg("run", *own, "--optimizer=own:adam", "--learning-rate=0.1", "--rounds=1")
    assert code == 2
    assert "learning_rate" in said
    for key in ("train", "optimizer", "criterion", "loss", "evaluate", "test"):
        code, _, said = secagg("run", *own, f"--{key}=own:missing", "--rounds=1")
        assert code == 2
        assert key in said
        assert "own:missing" in said


OWN = """
import torch
from fl.callbacks import Callback
from torch.utils.data import DataLoader, TensorDataset

RATES = []

class Watch(Callback):
    def __init__(self, stop=99):
        self.stop = stop

    def on_round_end(self, run, result):
        return result.number < self.stop

def watches(stop=2):
    return [Watch(), Watch(stop)]

def sites():
    x = torch.linspace(-1, 1, 24).reshape(-1, 1)
    return {f"site-{k}": DataLoader(TensorDataset(x, 3 * x + k), 8, shuffle=True) for k in range(3)}

def held_out():
    return sites()["site-1"]

def model():
    return torch.nn.Linear(1, 1)

def train(model, loader, optimizer, criterion):
    RATES.append(optimizer.param_groups[0]["lr"])
    for x, y in loader:
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()

def halving(optimizer):
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)

def evaluate(model, loader, criterion):
    return {"mse": sum(float(criterion(model(x), y)) for x, y in loader) / len(loader)}

def slope(model, loader):
    return model.weight
"""
OWN_KEYS = (
    *("--data=own:sites", "--model=own:model", "--train=own:train", "--criterion=torch.nn:MSELoss"),
    *("--evaluate=own:evaluate", "--test=own:held_out", "--privacy=none"),
)


def test_callbacks_schedulers_and_metrics_are_keys(secagg, here: Path) -> None:
    Path("own.py").write_text(OWN)
    Path("own.toml").write_text(
        'scheduler = "own:halving"\ncallbacks = ["own:watches:stop=4", "early-stopping:metric=mse,patience=9"]\n'
    )
    more = (
        "--rounds=6",
        "--callbacks=own:Watch:stop=3",
        "--callbacks=csv-log:path=logs/run.csv",
        "--output=r",
    )
    code, printed, said = secagg("run", "own.toml", *OWN_KEYS, *more, "--metrics=own:slope", "--json")
    assert code == 0, said
    assert summary(printed)["rounds"] == 3  # an option takes the place of the file's key
    assert summary(printed)["clients"] == 3
    assert sorted(summary(printed)["metrics"]) == ["mse", "slope"]
    assert len(Path("logs/run.csv").read_text().splitlines()) == 4
    assert sorted(set(sys.modules["own"].RATES)) == [0.025, 0.05, 0.1]
    code, printed, said = secagg("run", "--resume", "--output=r", "--rounds=6", "--json")
    assert (code, summary(printed)["rounds"]) == (0, 4), said  # the watch ends it again
    forget()
    code, printed, said = secagg(
        "run", "own.toml", *OWN_KEYS, "--rounds=6", "--json", "--scheduler-per=round"
    )
    assert (code, summary(printed)["rounds"]) == (0, 4), said


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--callbacks=early-stoping", "No callback is named 'early-stoping'. Did you mean 'early-stopping'?"),
        ("--callbacks=early-stopping:patients=3", "has no option 'patients'"),
        ("--callbacks=keep-best:metric=score", "which way does 'score' get better"),
        ("--callbacks=own:missing", "callback 'own:missing': own:missing cannot be loaded"),
        ("--callbacks=own:slope", "own:slope needs the option model"),
        ("--callbacks=own:sites", "callbacks: expected instances of fl.callbacks.Callback, got "),
        ("--callbacks=early-stopping", "'loss' never comes; test metrics are ['mse']"),
        ("--scheduler=own:missing", "scheduler: own:missing cannot be loaded"),
        ("--scheduler=own:model", "scheduler: expected a function that takes an optimizer"),
        ("--scheduler-per=batch", "scheduler_per: expected"),
        ("--metrics=own:missing", "metrics: own:missing cannot be loaded"),
        ("--metrics=own:train", "metrics: own:train: train asks for optimizer"),
        ("--clients=2", "clients: own:sites gives the loaders of 3, got 2: leave it out"),
        (
            "--partition=iid",
            "partition: own:sites gives every client's loader, nothing is split: leave it out",
        ),
    ],
)
def test_a_key_of_ones_own_that_cannot_be_is_one_sentence(secagg, here: Path, option: str, says: str) -> None:
    Path("own.py").write_text(OWN)
    code, _, said = secagg("run", *OWN_KEYS, "--rounds=1", option, "--output=r")
    assert code == 2, said
    assert says in said
    assert len(said.strip().splitlines()) == 1
    assert not (Path("r") / "metrics.jsonl").exists()


def test_the_metrics_that_a_run_has_are_those_that_it_shows(secagg, here: Path) -> None:
    Path("own.py").write_text(OWN)
    code, printed, said = secagg("run", *OWN_KEYS, "--rounds=1")
    assert code == 0, said
    assert "mse" in printed
    assert "test mse" in printed
    assert "accuracy" not in printed.partition("Privacy statement")[0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--data=missing.csv", "--target=y"), "missing.csv"),
        (("--data=patients.csv",), "--target"),
        (("--data=patients.csv", "--target=nothing"), "age, hospital, smoker, score, outcome"),
        (("--data=patients.csv", "--target=outcome", "--clients-by=ward"), "'ward'"),
        (("--data=digits", "--target=outcome"), "CSV"),
        (
            ("--data=patients.csv", "--target=outcome", "--clients-by=outcome"),
            "both the target and the clients",
        ),
        (("--data=patients.csv", "--target=outcome", "--clients-by=smoker"), "a sum of fewer than 3 clients"),
        (("--data=digit",), "No data set is named 'digit'. Did you mean 'digits'?"),
        (("--data=tiny.csv", "--target=outcome"), "too few for 10 clients"),
    ],
)
def test_a_project_that_could_not_run_is_not_written(secagg, here: Path, arguments, says: str) -> None:
    table(here / "patients.csv")
    table(here / "tiny.csv", 8).write_text("age,outcome\n" + "1,a\n2,b\n" * 4)
    code, _, said = secagg("init", "study", *arguments)
    assert code == 2
    assert says in said
    assert not (here / "study").exists()


def test_a_project_is_never_written_over(secagg, here: Path) -> None:
    assert secagg("init")[0] == 0
    (here / "loop.py").write_text("mine")
    (here / "secagg.toml").unlink()
    code, _, said = secagg("init")
    assert code == 2
    assert "loop.py" in said
    assert (here / "loop.py").read_text() == "mine"
    assert not (here / "secagg.toml").exists()


def test_the_command_line_says_what_was_found_in_a_table(secagg, here: Path) -> None:
    Path("t.csv").write_text("a,y\n1,0\n2,1\nSmith,1\n3,1\n")
    code, _, said = secagg("init", "study", "--data=t.csv", "--target=y")
    assert code == 2
    assert "row 4: no number, in 'a'" in said
    assert "'Smith'" in said


def test_a_project_says_what_its_table_holds(secagg, here: Path) -> None:
    table(here / "patients.csv")
    _, said, _ = secagg("init", "study", "--data=patients.csv", "--target=outcome", "--clients-by=hospital")
    assert "120 rows, 4 features, 2 classes, 4 clients" in said


def test_a_users_module_comes_before_one_that_a_dependency_ships_under_its_name(here: Path) -> None:
    installed = here / "site-packages" / "shipped"
    for folder in (installed, here / "shipped"):
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("")
    (here / "shipped" / "own.py").write_text("def made():\n    return 'the user\\'s'\n")
    sys.path.insert(0, str(installed.parent))
    try:
        assert function("shipped.own:made", "data")() == "the user's"
    finally:
        for name in ("shipped.own", "shipped"):
            sys.modules.pop(name, None)
