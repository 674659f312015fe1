"""Run folders that version 1 wrote go on: a federation's (safetensors) and a wrapped strategy's; others are refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from dp import ClientDP
from fl import FedAdam, Federation
from fl.checkpoint import MODEL, OLD, load_run, rounds_in
from fl.round.kept import CHECKPOINT, METRICS, encode, npz
from protocols import PlainSum
from protocols.errors import RecordError, SecAggError
from protocols.record import FILE_NAME, check_files, verify_record

HERE = Path(__file__).parent / "formats" / "run1"


def loaders() -> list[DataLoader[Any]]:
    drawn = torch.Generator().manual_seed(3)
    x = torch.randn(24, 4, generator=drawn)
    data = [TensorDataset(part, (part.sum(1) > 0).long()) for part in x.split(8)]
    return [DataLoader(part, batch_size=4, shuffle=True) for part in data]


def federation(folder: Path) -> Federation:
    privacy = [ClientDP(noise_multiplier=1.0, delta=1e-5, clip="adaptive"), PlainSum()]
    model = lambda: torch.nn.Linear(4, 2)  # noqa: E731  # a factory
    return Federation(model, loaders(), strategy=FedAdam(), privacy=privacy, output=folder)


def old(folder: Path, kind: str = "memory") -> Path:
    return Path(shutil.copytree(HERE / kind, folder / "run"))


def test_a_federation_of_version_1_goes_on(tmp_path: Path) -> None:
    run = old(tmp_path)
    was = load_run(run)
    lines = (run / METRICS).read_text().splitlines()
    assert (was.rounds, len(was.events), rounds_in(run)) == (2, 2, 2)
    again = federation(run)
    result = again.fit(3, resume=True)
    assert [entry.number for entry in result.history] == [1, 2, 3]
    assert [entry.epsilon for entry in result.history[:2]] == [json.loads(line)["epsilon"] for line in lines]
    assert len(again.account.events) == 3
    assert again.setup.strategy.state().keys() == was.strategy.keys() == {"m", "v"}
    verdict = verify_record(run / FILE_NAME)
    assert [entry.body["round"] for entry in verdict.entries] == [1, 2, 3]
    assert {CHECKPOINT, OLD, MODEL} <= set(check_files(verdict, run))
    assert federation(run).fit(4, resume=True).history[2:3] == result.history[2:]


def test_a_run_of_version_1_that_was_changed_is_not_gone_on_from(tmp_path: Path) -> None:
    run = old(tmp_path)
    data = (run / OLD).read_bytes()
    (run / OLD).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(RecordError, match=f"{OLD} is not the file of the last entry"):
        federation(run).fit(3, resume=True)


def test_an_old_checkpoint_beside_a_longer_record_is_refused(tmp_path: Path) -> None:
    run = old(tmp_path)
    federation(run).fit(4, resume=True)
    (run / CHECKPOINT).unlink()
    with pytest.raises(RecordError, match="4 rounds and the checkpoint beside it 2"):
        federation(run).fit(5, resume=True)


def test_a_checkpoint_of_an_unknown_version_is_refused_by_name(tmp_path: Path) -> None:
    facts = np.frombuffer(json.dumps({"version": 9}).encode(), np.uint8)
    (tmp_path / CHECKPOINT).write_bytes(npz({"__facts__": facts}))
    with pytest.raises(SecAggError, match="expected a checkpoint of version 2, got 9"):
        load_run(tmp_path)


def test_what_is_kept_comes_back_as_it_was(tmp_path: Path) -> None:
    was = load_run(old(tmp_path))
    (tmp_path / CHECKPOINT).write_bytes(encode(was))
    again = load_run(tmp_path)
    assert (again.history, again.events, again.run, again.layers) == (
        was.history,
        was.events,
        was.run,
        was.layers,
    )
    assert again.model["weight"].dtype == np.float32
    assert all(np.array_equal(again.model[name], array) for name, array in was.model.items())
