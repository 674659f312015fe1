"""The command line as users meet it: one sentence for every mistake, the right exit code, one JSON object."""

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from fl.cli import COMMANDS, explain, invoke, output
from protocols.errors import Aborted, DataMissing, MissingExtra, Misuse, StoreError
from protocols.extras import EXTRAS

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fl.cli", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SECAGG_OFFLINE": "1", **environment},
    )


def test_help_lists_every_command_that_exists() -> None:
    there = [name for name in COMMANDS if (ROOT / "fl/cli" / f"{name}.py").is_file()]
    ran = run("--help")
    assert ran.returncode == 0
    assert {"data", "doctor"} <= set(there)
    assert [name for name in there if name not in ran.stdout] == []


@pytest.mark.parametrize("name", [n for n in COMMANDS if (ROOT / "fl/cli" / f"{n}.py").is_file()])
def test_every_command_says_what_it_takes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke([name, "--help"]) == 0
    assert "--help" in capsys.readouterr().out


def test_brackets_in_a_help_text_are_text_and_no_style(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    assert invoke(["run", "--help"]) == 0
    assert "FIRST-LAST[/PERIOD]" in "".join(capsys.readouterr().out.split())


def test_no_arguments_are_a_question_for_help() -> None:
    assert run().stdout == run("--help").stdout


def test_the_version_is_one_line() -> None:
    ran = run("--version")
    assert (ran.returncode, ran.stdout.count("\n")) == (0, 1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--no-such-option",), "--no-such-option"),
        (("no-such-command",), "no-such-command"),
        (("data", "get"), "NAME"),
        (("data", "get", "no-such-set"), "No data set is named 'no-such-set'"),
        (("data", "get", "digits", "extra"), "extra"),
        (("doctor", "--jsn"), "--jsn"),
        (("data", "get", "adult:clients_by"), "key=value"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_a_wrong_request_is_one_sentence_and_exit_code_2(
    arguments: tuple[str, ...], says: str, as_json: bool
) -> None:
    ran = run(*arguments, *(["--json"] if as_json else []))
    assert ran.returncode == 2
    assert ran.stderr.count("\n") == 1
    assert says in ran.stderr
    if as_json:
        assert says in json.loads(ran.stdout)["error"]
    else:
        assert ran.stdout == ""


def test_data_that_is_nowhere_is_one_sentence_and_exit_code_1(tmp_path: Path) -> None:
    ran = run("data", "get", "mnist", "--json", SECAGG_DATA=str(tmp_path), XDG_CACHE_HOME=str(tmp_path))
    assert ran.returncode == 1
    assert str(tmp_path) in json.loads(ran.stdout)["error"]
    assert "Traceback" not in ran.stderr


def test_data_list_and_get_tell_the_same_place() -> None:
    listed = json.loads(run("data", "list", "--json").stdout)["data"]
    digits = next(entry for entry in listed if entry["name"] == "digits")
    got = json.loads(run("data", "get", "digits", "--json").stdout)
    assert digits["found"] == got["source"] == "scikit-learn"
    assert (got["train"], got["test"], got["input_shape"]) == (1437, 360, [1, 8, 8])


def test_doctor_tells_names_that_a_folder_of_the_user_hides(tmp_path: Path) -> None:
    (tmp_path / "dp").mkdir()
    (tmp_path / "dp" / "__init__.py").write_text("")
    (tmp_path / "he.py").write_text("")
    (tmp_path / "fl").mkdir()
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import fl.cli as c; c.main()"
    ran = subprocess.run(
        [sys.executable, "-c", script, "doctor", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )
    report = json.loads(ran.stdout)
    assert ran.returncode == 1
    assert {(item["name"], item["hides_ours"]) for item in report["shadowed"]} == {
        ("dp", True),
        ("he", True),
        ("fl", False),
    }
    assert len(report["problems"]) == 2


def test_doctor_finds_nothing_wrong_in_the_checkout() -> None:
    ran = run("doctor", "--json", PYTHONPATH="")
    report = json.loads(ran.stdout)
    assert (ran.returncode, report["ok"], report["shadowed"]) == (0, True, [])
    assert set(report["extras"]) == set(EXTRAS)
    assert report["packages"]["cryptography"]
    assert {entry["name"] for entry in report["data"]} >= {"digits", "fashion-mnist", "heart-disease"}


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (Misuse("take more clients"), 2, "take more clients"),
        (MissingExtra("pip install x"), 2, "pip install x"),
        (ModuleNotFoundError("no flwr", name="flwr.server"), 2, "pip install 'secagg-toolkit[flower]'"),
        (ModuleNotFoundError("no zq", name="zq"), 1, "no zq"),
        (click.UsageError("bad flag"), 2, "bad flag"),
        (Aborted("too few"), 1, "too few"),
        (DataMissing("nowhere"), 1, "nowhere"),
        (StoreError("full"), 1, "full"),
        (OSError(28, "No space left on device", "model.safetensors"), 1, "No space left on device"),
        (KeyboardInterrupt(), 1, "Interrupted"),
        (RuntimeError("what"), 1, "SECAGG_TRACEBACK"),
    ],
)
def test_every_error_has_its_exit_code(error: BaseException, code: int, says: str) -> None:
    found, sentence = explain(error)
    assert found == code
    assert says in sentence


def test_an_error_of_several_lines_becomes_one(capsys: pytest.CaptureFixture[str]) -> None:
    output.fail("first\n  second", as_json=True)
    printed = capsys.readouterr()
    assert printed.err == "secagg: first second\n"
    assert json.loads(printed.out) == {"error": "first second"}


def test_json_has_no_numbers_that_json_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    import numpy as np

    output.emit_json({"epsilon": float("inf"), "a": np.arange(2), "b": np.float32(0.5), "c": (True, None)})
    assert json.loads(capsys.readouterr().out) == {"epsilon": None, "a": [0, 1], "b": 0.5, "c": [True, None]}


def test_a_reader_that_leaves_early_is_no_error() -> None:
    piped = subprocess.run(
        f"{sys.executable} -m fl.cli --help | head -c 1",
        cwd=ROOT,
        shell=True,
        capture_output=True,
        check=False,
    )
    assert piped.stderr == b""


def test_invoke_returns_the_code_that_main_leaves_with(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["data", "get", "no-such-set"]) == 2
    assert "no-such-set" in capsys.readouterr().err


def test_doctor_names_the_extra_that_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fl.cli.doctor.missing", lambda extra: [extra])
    monkeypatch.setenv("COLUMNS", "200")
    invoke(["doctor"])
    told = capsys.readouterr().out
    for extra in ("tensorboard", "mlflow", "flower"):
        assert f"pip install 'secagg-toolkit[{extra}]'" in told
