"""Awkward requests to `secagg run`: each is one sentence and the right exit code, and standard output stays one
JSON object.
"""

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import click
import pytest
import typer

from fl.cli import build_app, invoke
from fl.registry import CALLBACKS, DATA, MODELS, PRIVACY, STRATEGIES, Registry
from fl.run_config import RunConfig

SMALL = ("--rounds=1", "--clients=4", "--model=logistic", "--partition=iid")
Done = tuple[int, str, str]


@pytest.fixture
def secagg(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Done]:
    """`secagg run` in an empty folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Done:
        code = invoke(["run", *arguments])
        return code, *capsys.readouterr()

    return call


Command = Callable[..., Done]


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--seed=-1", "seed"),
        ("--budget=0", "budget"),
        ("--budget=-1", "budget"),
        ("--budget=2", "budget"),  # there is no layer that spends any
        ("--rounds=0", "rounds"),
        ("--batch-size=0", "batch_size"),
        ("--threads=0", "threads"),
        ("--clients=0", "clients"),
        ("--output=taken", "taken is a file"),
        ("--output=taken/deeper", "taken is a file"),
    ],
)
def test_a_wrong_option_is_one_sentence_and_exit_code_2(secagg: Command, option: str, says: str) -> None:
    Path("taken").write_text("mine")
    code, printed, said = secagg(*SMALL, option)
    assert code == 2
    assert says in said
    assert len(said.strip().splitlines()) == 1
    code, printed, _ = secagg(*SMALL, option, "--json")
    assert code == 2
    assert says in json.loads(printed)["error"]
    assert sorted(Path().iterdir()) == [Path("taken")]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rounds = true", "rounds: expected a whole number >= 1, got True"),
        ("clients = 4.0", "clients: expected a whole number >= 1, got 4.0"),
        ("strategy = ['fedavg']", "strategy: expected text or a table with a name"),
        ("data = 3", "data: expected text or a table with a name, got 3"),
        ("range = 'wide'", "range: expected a number > 0, got 'wide'"),
        ("local-epochs = 1\nlocal_epochs = 2", "local_epochs is there twice"),
        ("rounds = 1\nrounds = 2", "line 2"),
        ("[[privacy]]\ndropout = 0.2", "needs a key `name`"),
        ("[[privacy]]\nname = 'secagg+'\ndropout = {a = 1}", "dropout takes a number"),
        ("[privacy]\nname = 'secagg+'\n[privacy.inner]\nx = 1", "no option 'inner'"),
        ("[[privacy]]\nname = 'secagg+'\n[[privacy]]\nname = 'secagg+'", "at most one secure sum"),
        ("privacy = [3]", "privacy: expected names of layers"),
    ],
)
def test_a_wrong_file_is_one_sentence_in_plain_words(secagg: Command, text: str, says: str) -> None:
    Path("run.toml").write_text(f"{text}\n")
    code, _, said = secagg("run.toml")
    assert code == 2
    assert says in said
    assert "typing" not in said


def test_runs_that_begin_in_one_second_have_folders_of_their_own(
    secagg: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped:
        @staticmethod
        def now() -> str:
            return "never"

    monkeypatch.setattr("fl.cli.run.datetime", Stopped)
    monkeypatch.setattr("fl.cli.run.STAMP", "")
    for _ in range(3):
        assert secagg(*SMALL, "--json")[0] == 0
    assert sorted(path.name for path in Path("runs").iterdir()) == ["never", "never-2", "never-3"]


def test_a_budget_beside_the_comparison_without_layers(secagg: Command) -> None:
    layer = "--privacy=client-dp:epsilon=8,delta=1e-3"
    code, printed, _ = secagg(*SMALL, layer, "--budget=9", "--compare", "--json")
    assert code == 0
    assert json.loads(printed)["plain"]["epsilon"] is None


def test_the_page_and_the_command_line_know_every_key_once() -> None:
    keys = [key.name for key in RunConfig.in_order()]
    page = (Path(__file__).parents[3] / "docs" / "run.md").read_text()
    table = page.partition("| key | meaning |")[2].partition("\n\n")[0]
    named = [name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(named) == sorted(keys)
    command = typer.main.get_command(build_app("run"))
    assert isinstance(command, click.Group)
    options = {option.name: option for option in command.commands["run"].params}
    assert [name for name in options if name in keys] == keys
    assert all(isinstance(options[key], click.Option) and options[key].help for key in keys)


@pytest.mark.parametrize(
    ("key", "kind", "on_page"),
    [
        ("data", DATA, False),
        ("model", MODELS, True),
        ("strategy", STRATEGIES, False),
        ("privacy", PRIVACY, False),
        ("callbacks", CALLBACKS, True),
    ],
)
def test_the_command_and_its_page_name_all_that_can_be_chosen(
    key: str, kind: Registry, on_page: bool
) -> None:
    [told] = [item.metadata["help"] for item in RunConfig.in_order() if item.name == key]
    page = (Path(__file__).parents[3] / "docs" / "run.md").read_text()
    row = page.partition(f"| `{key}` |")[2].partition("\n")[0]
    for name in kind.names():
        assert re.search(rf"(^|\W){re.escape(name)}($|\W)", told)
        assert not on_page or f"`{name}`" in row


@pytest.mark.parametrize("option", ["--workers=2", "--dropout=0.5"])
def test_what_only_the_engine_in_memory_plays_is_refused_elsewhere(secagg: Command, option: str) -> None:
    pytest.importorskip("flwr")
    code, _, said = secagg(*SMALL, "--engine=flower-simulation", option, "--output=out")
    assert code == 2
    assert "engine in memory only" in said


def test_every_plain_option_of_a_federation_is_one_of_the_command(secagg: Command, tmp_path: Path) -> None:
    given = ("--stay-local=1.bias", "--metrics=loss", "--workers=2", "--buffers=local")
    code, _, said = secagg(*SMALL, *given, "--output=out", "--json")
    assert code == 0, said
    kept = tomllib.loads((tmp_path / "out" / "config.toml").read_text())
    assert (kept["stay_local"], kept["metrics"], kept["workers"]) == (["1.bias"], ["loss"], 2)
    code, again, said = secagg("--resume", "--output=out", "--rounds=2", "--json")
    assert code == 0, said
    assert json.loads(again)["rounds"] == 2
