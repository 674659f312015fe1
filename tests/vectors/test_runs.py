"""Run folders that version 1 wrote go on: a federation's (safetensors) and a wrapped strategy's; others are refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.serverapp.strategy import FedAvgM
from torch.utils.data import DataLoader, TensorDataset

from dp import ClientDP
from fl import FedAdam, Federation
from fl.checkpoint import MODEL, OLD, load_run, rounds_in
from fl.flower.arrays import arrays_of
from fl.flower.files import load_run as load_wrapped
from fl.flower.mod import privacy_mod
from fl.flower.strategy import PrivateStrategy
from fl.round.kept import CHECKPOINT, METRICS, encode, npz
from protocols import PlainSum
from protocols.errors import Misuse, RecordError, SecAggError
from protocols.record import FILE_NAME, check_files, verify_record
from protocols.store import FileStore
from secagg import SecAggPlus
from tests.flower.direct import DirectGrid, client_app, model

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


def test_a_wrapped_strategys_run_of_version_1_goes_on(tmp_path: Path) -> None:
    run = old(tmp_path, "wrapped")
    for path in (run / "state").iterdir():
        path.chmod(0o600)
    lines = (run / METRICS).read_text().splitlines()
    was = load_wrapped(run)
    assert was is not None
    assert (was.rounds, was.session, was.kind) == (2, 2, "FedAvgM")

    def layers() -> list[Any]:
        masks = SecAggPlus(threat="semi-honest", dropout=0.33, collusion=0.0)
        return [ClientDP(noise_multiplier=1.0, delta=1e-5, clip=1.0), masks]

    nodes = {n: (client_app(privacy_mod(layers(), site=tmp_path / f"n{n}")), {}) for n in (1, 2, 3)}
    options = {"fraction_evaluate": 0.0, "min_train_nodes": 3, "min_available_nodes": 3}

    def start() -> PrivateStrategy:
        again = PrivateStrategy(FedAvgM(**options, server_momentum=0.9), layers(), folder=run, poll=0.01)
        again.start(DirectGrid(nodes), arrays_of(model()), num_rounds=3)
        return again

    with pytest.raises(Misuse, match=r"was made with \{'secure_sum': 'secagg\+/1'\}"):
        start()
    store = FileStore(run / "state" / "store", "server")  # a secure sum whose version stayed the same goes on
    made_with = json.loads(store.get("flower/made-with") or b"")
    store.put("flower/made-with", json.dumps({**made_with, "secure_sum": SecAggPlus().tag}).encode())
    again = start()
    assert [(entry.number, entry.session_number) for entry in again.history] == [(3, 3)]
    assert len(again.account.events) == 3
    verdict = verify_record(run / FILE_NAME)
    assert [entry.body["round"] for entry in verdict.entries] == [0, 1, 2, 3]
    assert CHECKPOINT in check_files(verdict, run)
    assert (run / METRICS).read_text().splitlines()[:2] == lines
    assert len((run / METRICS).read_text().splitlines()) == 3
    kept = load_wrapped(run)
    assert kept is not None
    assert (kept.rounds, kept.lines, len(kept.events)) == (3, 2, 3)


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
