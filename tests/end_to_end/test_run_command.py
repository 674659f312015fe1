"""`secagg run` as a user meets it: real processes, killed and resumed; one sentence for what was wrong."""

import contextlib
import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fl.cli import invoke
from tests.programs import Program

SMALL = ["--clients", "5", "--model", "logistic", "--partition", "iid", "--batch-size", "64"]
Done = tuple[int, str, str]


@pytest.fixture
def secagg(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """The command line, in this process: (exit code, standard output, standard error)."""

    def call(*arguments: str) -> Done:
        capsys.readouterr()
        code = invoke([*arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def result_of(done: Done) -> dict[str, Any]:
    assert done[0] == 0, done[2]
    return dict(json.loads(done[1]))


Command = Callable[..., Done]


def test_json_holds_every_promised_key_and_the_files_are_written(secagg: Command, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = result_of(
        secagg(
            "run",
            *SMALL,
            "--rounds=2",
            "--dropout=0.4",
            "--privacy=secagg+:dropout=0.5",
            f"--output={out}",
            "--json",
        )
    )
    assert result["rounds"] == 2
    assert result["clients"] == 5
    assert len(result["survivors_per_round"]) == 2
    assert 0 < result["accuracy"] <= 1
    assert result["bytes_up_per_client"] > 0
    assert result["bytes_down_per_client"] > 0
    assert set(result["seconds"]) == {"train", "privacy_client", "privacy_server"}
    assert (result["epsilon"], result["guarantees"]) == (None, [])
    assert result["statement"]["protection"]["threat"] in ("semi-honest", "semi-malicious")
    assert {p.name for p in out.iterdir()} >= {
        "metrics.jsonl", "config.toml", "model.safetensors", "statement.json", "record.jsonl"
    }  # fmt: skip
    assert json.loads((out / "statement.json").read_text()) == result["statement"]
    assert secagg("verify", str(out))[0] == 0
    (out / "metrics.jsonl").write_text("{}\n")
    code, _, said = secagg("verify", str(out))
    assert code == 1
    assert "metrics.jsonl" in said


def test_equal_seeds_give_the_same_model_and_lose_the_same_clients(secagg: Command, tmp_path: Path) -> None:
    models, survivors = set(), set()
    for i, layer in enumerate(["none", "secagg:dropout=0.4", "secagg+:dropout=0.4"]):
        out = tmp_path / str(i)
        common = [*SMALL, "--rounds", "3", "--dropout", "0.4", "--seed", "7"]
        result = result_of(secagg("run", *common, "--privacy", layer, "--output", str(out), "--json"))
        models.add((out / "model.safetensors").read_bytes())
        survivors.add(tuple(result["survivors_per_round"]))
    assert len(models) == len(survivors) == 1


def test_toml_and_options_have_the_same_keys_and_options_win(secagg: Command, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        'data = "digits"\nclients = 4\nmodel = "logistic"\npartition = "iid"\nrounds = 9\nlocal-epochs = 1\n'
        '[[privacy]]\nname = "secagg"\ndropout = 0.25\n'
    )
    result = result_of(secagg("run", str(config), "--rounds", "1", "--output", str(tmp_path / "o"), "--json"))
    assert (result["rounds"], result["clients"]) == (1, 4)
    again = result_of(
        secagg("run", str(tmp_path / "o" / "config.toml"), "--output", str(tmp_path / "p"), "--json")
    )
    assert again["accuracy"] == result["accuracy"]


@pytest.mark.parametrize(
    "arguments, said, code",
    [
        (["--teapot"], "--teapot", 2),
        (["--rounds", "many"], "many", 2),
        (["--model", "cnnn"], "cnn", 2),
        (["--data", "imaginary"], "imaginary", 2),
        (["--privacy", "secagg+:dropuot=0.1"], "dropout", 2),
        (["--privacy", "secagg", "--privacy", "secagg+"], "secure sum", 2),
        (["--clients", "1", "--privacy", "secagg"], "client", 2),
        (["--clients", "3", "--privacy", "secagg:threshold=9"], "threshold", 2),
        (["--weight-cap", "0"], "weight_cap", 2),
        (["--dropout", "1.5"], "dropout", 2),
        (["--resume", "--output", "{tmp}/none"], "nothing to resume", 2),
        (["--data", "mnist", "--data-dir", "{tmp}/nowhere"], "nowhere", 1),
    ],
)
def test_a_wrong_request_is_one_clear_sentence(
    arguments: list[str],
    said: str,
    code: int,
    secagg: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # no cache and no way out: a download must fail at once here
    for name, value in {
        "SECAGG_DATA": "",
        "XDG_CACHE_HOME": str(tmp_path),
        "https_proxy": "http://127.0.0.1:9",
    }.items():
        monkeypatch.setenv(name, value)
    filled = [a.replace("{tmp}", str(tmp_path)) for a in arguments]
    got, _, printed = secagg("run", *filled)
    assert got == code, printed
    assert said in printed
    assert "Traceback" not in printed
    assert len(printed.strip().splitlines()) == 1
    assert not (tmp_path / "o").exists()


def test_unreadable_toml_is_reported_with_file_and_line(secagg: Command, tmp_path: Path) -> None:
    config = tmp_path / "broken.toml"
    config.write_text('data = "digits"\nrounds = = 3\n')
    done = secagg("run", str(config))
    assert done[0] == 2
    assert "broken.toml" in done[2]
    assert "line 2" in done[2]
    config.write_text("privacy = [3]\n")
    done = secagg("run", str(config))
    assert done[0] == 2
    assert "privacy: expected names of layers" in done[2]
    config.write_text('data = "digits"\n\nruonds = 3\n')
    done = secagg("run", str(config))
    assert done[0] == 2
    assert "line 3" in done[2]
    assert "ruonds" in done[2]


LONG = [*SMALL, "--rounds=80", "--dropout=0.3", "--local-epochs=3", "--privacy=secagg:dropout=0.4"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], bytes]:
    """What a run that nobody interrupts ends with: its result and its model."""
    out = tmp_path_factory.mktemp("whole") / "run"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        code = invoke(["run", *LONG, f"--output={out}", "--json"])
    return result_of((code, printed.getvalue(), "")), (out / "model.safetensors").read_bytes()


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_resumes_to_the_very_result_of_the_uninterrupted_one(
    kill: signal.Signals, secagg: Command, tmp_path: Path, whole: tuple[dict[str, Any], bytes]
) -> None:
    cut = tmp_path / "cut"
    code, said = interrupted([*LONG, "--output", str(cut)], cut / "metrics.jsonl", kill)
    assert code == (-signal.SIGKILL if kill == signal.SIGKILL else 1)
    if kill == signal.SIGINT:
        assert "--resume" in said
        assert "Traceback" not in said
    resumed = result_of(secagg("run", "--resume", "--output", str(cut), "--json"))
    assert resumed["survivors_per_round"] == whole[0]["survivors_per_round"]
    assert (cut / "model.safetensors").read_bytes() == whole[1]
    assert len((cut / "metrics.jsonl").read_text().splitlines()) == 80
    assert secagg("verify", str(cut))[0] == 0


def interrupted(options: list[str], lines: Path, kill: signal.Signals) -> tuple[int, str]:
    """Start a run, interrupt it after its third round, and return (exit code, standard error)."""
    process = Program("fl.cli", "run", *options, folder=lines.parents[1])
    deadline = time.monotonic() + 400
    while not (lines.exists() and lines.read_text().count("\n") >= 3) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send(kill)
    done = process.end()
    assert 3 <= lines.read_text().count("\n") < 80, "the run was over before it could be interrupted"
    return done.returncode, done.stderr


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
from fl.cli import main
main(sys.argv[1:])
"""


def test_a_full_disk_leaves_the_previous_state_whole(secagg: Command, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result_of(secagg("run", *SMALL, "--rounds", "1", "--output", str(out), "--json"))
    before = (out / "checkpoint.npz").read_bytes()
    again = ["run", "--resume", "--output", str(out), "--rounds", "3"]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *again], capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert (out / "checkpoint.npz").read_bytes() == before
    assert result_of(secagg(*again, "--json"))["rounds"] == 3


def test_a_run_is_not_overwritten(secagg: Command, tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    result_of(secagg("run", *SMALL, "--rounds", "1", "--output", out, "--json"))
    done = secagg("run", *SMALL, "--rounds", "1", "--output", out)
    assert done[0] == 2
    assert "resume" in done[2]


@pytest.mark.parametrize("strategy", ["ifca:clusters=2,least=2", "scaffold", "group-median:groups=3"])
def test_strategies_of_several_sums_end_with_their_table(
    strategy: str, secagg: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the server saw is shown of the round in which it was caught: IFCA's next one has other coordinates."""
    monkeypatch.chdir(tmp_path)
    small = ["--clients", "9", "--model", "logistic", "--partition", "iid", "--rounds", "2"]
    code, out, err = secagg("run", *small, "--privacy=secagg+", f"--strategy={strategy}")
    assert code == 0, err
    assert "what the server saw" in out
