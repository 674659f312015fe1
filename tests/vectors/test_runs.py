"""Run folders that version 1 wrote are refused by name, a federation's (safetensors) and a wrapped strategy's; what
this version keeps comes back.
"""

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
from fl.checkpoint import load_run, rounds_in
from fl.flower.arrays import arrays_of
from fl.flower.files import run_to_resume
from fl.flower.strategy import PrivateStrategy
from fl.round.run_files import CHECKPOINT, encode, npz
from protocols import PlainSum
from protocols.errors import SecAggError
from tests.flower.direct import DirectGrid, model

HERE = Path(__file__).parent / "formats" / "run1"
NAMED = "expected a checkpoint of version 2, got 1: begin in another folder"


def loaders() -> list[DataLoader[Any]]:
    drawn = torch.Generator().manual_seed(3)
    x = torch.randn(24, 4, generator=drawn)
    data = [TensorDataset(part, (part.sum(1) > 0).long()) for part in x.split(8)]
    return [DataLoader(part, batch_size=4, shuffle=True) for part in data]


def federation(folder: Path) -> Federation:
    privacy = [ClientDP(noise_multiplier=1.0, delta=1e-5, clip="adaptive"), PlainSum()]
    model = lambda: torch.nn.Linear(4, 2)  # noqa: E731  # a factory
    return Federation(model, loaders(), strategy=FedAdam(), privacy=privacy, output=folder)


def old(folder: Path, kind: str) -> Path:
    return Path(shutil.copytree(HERE / kind, folder / "run"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("kind", ["memory", "wrapped"])
def test_a_run_of_version_1_is_refused_by_name_and_left_as_it_was(
    kind: str, resume: bool, tmp_path: Path
) -> None:
    run = old(tmp_path, kind)
    before = contents(run)
    with pytest.raises(SecAggError, match=NAMED):
        federation(run).fit(3, resume=resume)
    with pytest.raises(SecAggError, match=NAMED):
        rounds_in(run)
    assert before.items() <= contents(run).items()


@pytest.mark.parametrize("kind", ["memory", "wrapped"])
def test_a_wrapped_strategy_refuses_a_run_of_version_1_before_anything_is_asked(
    kind: str, tmp_path: Path
) -> None:
    run = old(tmp_path, kind)
    with pytest.raises(SecAggError, match=NAMED):
        run_to_resume(run)
    private = PrivateStrategy(FedAvgM(), [PlainSum()], folder=run)
    with pytest.raises(SecAggError, match=NAMED):
        private.start(DirectGrid({}), arrays_of(model()), num_rounds=3)


def test_a_checkpoint_of_an_unknown_version_is_refused_by_name(tmp_path: Path) -> None:
    facts = np.frombuffer(json.dumps({"version": 9}).encode(), np.uint8)
    (tmp_path / CHECKPOINT).write_bytes(npz({"__facts__": facts}))
    with pytest.raises(SecAggError, match="expected a checkpoint of version 2, got 9"):
        load_run(tmp_path)


def test_what_is_kept_comes_back_as_it_was(tmp_path: Path) -> None:
    played = federation(tmp_path)
    result = played.fit(2)
    was = load_run(tmp_path)
    assert was.history == result.history
    assert was.events == tuple(played.account.events)
    assert was.run == played.account.run
    assert was.layers == {layer.name: layer.state() for layer in played.setup.stack.layers}
    assert was.strategy.keys() == {"m", "v"}
    assert was.model["weight"].dtype == np.float32
    assert encode(was) == (tmp_path / CHECKPOINT).read_bytes()
    assert np.array_equal(was.model["weight"], played.model.weight.detach().numpy())
