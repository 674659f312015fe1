"""`secagg run --resume` as it is asked for: to more rounds, to fewer, beside files that were removed or replaced."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fl.cli import invoke
from fl.cli.run import _planned
from fl.round.run_files import CHECKPOINT, load
from protocols.errors import SecAggError

SMALL = ("--clients=4", "--model=logistic", "--partition=iid", "--batch-size=256")
Done = tuple[int, str, str]
Command = Callable[..., Done]


@pytest.fixture
def secagg(capsys: pytest.CaptureFixture[str]) -> Command:
    """The command line, in this process: (exit code, standard output, standard error)."""

    def call(*arguments: str) -> Done:
        code = invoke([*arguments])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def run(secagg: Command, tmp_path: Path) -> Path:
    """The folder of a run of two rounds."""
    assert secagg("run", *SMALL, "--rounds=2", f"--output={tmp_path / 'run'}", "--json")[0] == 0
    return tmp_path / "run"


def test_a_run_that_was_resumed_to_more_rounds_stays_planned_for_them(secagg: Command, run: Path) -> None:
    resume = ("run", "--resume", f"--output={run}", "--json")
    assert json.loads(secagg(*resume, "--rounds=4")[1])["rounds"] == 4
    assert _planned(run) == 4
    assert json.loads(secagg(*resume)[1])["rounds"] == 4
    code, printed, _ = secagg(*resume, "--rounds=3")
    assert code == 2
    assert "holds 4 already" in json.loads(printed)["error"]
    assert secagg("verify", str(run))[0] == 0


def test_half_an_entry_of_the_record_does_not_hinder(secagg: Command, run: Path) -> None:
    record = run / "record.jsonl"
    whole = record.read_bytes()
    record.write_bytes(whole + whole[:40])
    assert _planned(run) == 2
    assert secagg("run", "--resume", f"--output={run}", "--rounds=3", "--json")[0] == 0
    assert secagg("verify", str(run))[0] == 0


@pytest.mark.parametrize("gone", ["record.jsonl", "checkpoint.npz"])
def test_a_run_that_lost_its_record_or_its_checkpoint_does_not_go_on_as_if_it_had_not(
    secagg: Command, run: Path, gone: str
) -> None:
    kept = {
        path.name: path.read_bytes() for path in run.iterdir() if path.name not in (gone, "statement.json")
    }
    (run / gone).unlink()
    code, printed, _ = secagg("run", "--resume", f"--output={run}", "--rounds=4", "--json")
    assert code == 1
    said = json.loads(printed)["error"]
    assert "removed or replaced" in said
    assert str(run) in said
    if gone == "record.jsonl":
        assert {name: (run / name).read_bytes() for name in kept} == kept


def test_the_record_of_another_run_is_noticed(secagg: Command, run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert secagg("run", *SMALL, "--rounds=4", f"--output={other}", "--json")[0] == 0
    shutil.copy(other / "record.jsonl", run)
    code, _, said = secagg("run", "--resume", f"--output={run}", "--rounds=6")
    assert code == 1
    assert "4 rounds and the checkpoint beside it 2" in said


def test_what_contradicts_resuming_is_refused(secagg: Command, run: Path) -> None:
    for option in ("--demo", "--seed=3", "--learning-rate=0.5", "--privacy=secagg"):
        code, _, said = secagg("run", "--resume", f"--output={run}", option)
        assert code == 2
        assert "leave out" in said


def test_a_configuration_that_was_edited_is_named_in_few_words(secagg: Command, run: Path) -> None:
    config = run / "config.toml"
    config.write_text(
        config.read_text().replace("clients = 4", "clients = 6").replace("seed = 0", "seed = 1")
    )
    code, _, said = secagg("run", "--resume", f"--output={run}", "--rounds=3")
    assert code == 2
    assert "'seed': 0" in said
    assert len(said) < 1000


@pytest.mark.parametrize("held", [b"", b"PK\x03\x04", b"no", b"\x93NUMPY\x01\x00"])
def test_a_damaged_checkpoint_is_one_sentence(tmp_path: Path, held: bytes) -> None:
    (tmp_path / CHECKPOINT).write_bytes(held)
    with pytest.raises(SecAggError, match=r"checkpoint\.npz is not a checkpoint of this toolkit"):
        load(tmp_path)
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    (tmp_path / CHECKPOINT).write_bytes(buffer.getvalue())
    with pytest.raises(SecAggError, match="is not a checkpoint of this toolkit"):
        load(tmp_path)


def test_a_file_of_clients_that_is_gone_is_told_as_gone(secagg: Command, tmp_path: Path) -> None:
    folder = f"--output={tmp_path / 'run'}"
    assert (
        secagg("run", *SMALL, "--rounds=1", "--buffers=local", "--strategy=ditto", folder, "--json")[0] == 0
    )
    (tmp_path / "run" / "clients.npz").unlink()
    code, _, said = secagg("run", "--resume", "--rounds=2", folder)
    assert code == 1
    assert "clients.npz is gone: put it back, or begin in another folder" in said
