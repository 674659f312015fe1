"""Masks change nothing on real images: a CNN over twenty unequal clients ends bit for bit where the plain sum ends."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from fl import Federation
from fl.computation import LocalComputation
from fl.data import DataSet, load
from fl.data.partition import partition
from fl.models import cnn
from protocols import PlainSum, SecureSum
from secagg import SecAggPlus

REAL = Path(os.environ.get("SECAGG_DATA", "/nowhere"))
SYSTEM = Path("/usr/share/datasets")
CLIENTS = 20

SHORT = pytest.param(3_000, 2, id="3,000 images, 2 rounds")
WHOLE = pytest.param(60_000, 10, id="60,000 images, 10 rounds", marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def images() -> DataSet:
    if not any((folder / "fashion-mnist").is_dir() for folder in (REAL, SYSTEM)):
        pytest.skip("no folder of SECAGG_DATA or of the system holds fashion-mnist")
    return load("fashion-mnist")


def make(images: DataSet, examples: int, dropout: float, layer: SecureSum) -> Federation:
    part = replace(images, x_train=images.x_train[:examples], y_train=images.y_train[:examples])
    x, y = torch.from_numpy(part.x_train), torch.from_numpy(part.y_train)
    loaders = {
        name: DataLoader(TensorDataset(x[own], y[own]), batch_size=32, shuffle=True)
        for name, own in partition(part, "dirichlet:alpha=0.5", CLIENTS, seed=3).items()
    }
    return Federation(
        model=lambda: cnn((1, 28, 28), 10, width=8, hidden=32),
        clients=loaders,
        privacy=[layer],
        learning_rate=0.05,
        dropout=dropout,
        seed=3,
    )


@pytest.mark.parametrize(("examples", "rounds"), [SHORT, WHOLE])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_masked_run_is_the_plain_run(images: DataSet, examples: int, rounds: int, dropout: float) -> None:
    masked = make(images, examples, dropout, SecAggPlus(dropout=0.4)).fit(rounds)
    plain = make(images, examples, dropout, PlainSum()).fit(rounds)
    pairs = zip(masked.model.state_dict().values(), plain.model.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert masked.survivors == plain.survivors
    assert all(masked.survivors)
    assert any(len(survivors) < CLIENTS for survivors in masked.survivors) == (dropout > 0)


def test_one_round_is_the_float_average_within_one_step(images: DataSet) -> None:
    federation = make(images, 3_000, 0.0, SecAggPlus())
    federation.coordinator.prepare(1)
    shown = federation.coordinator.open(1, federation.setup.names)
    train = LocalComputation(federation.setup, federation.coordinator.model)
    trained = [train(shown, shown.own(name)) for name in federation.setup.names]
    weights = [contribution.weight for contribution in trained]
    difference = np.average([contribution.vector for contribution in trained], axis=0, weights=weights)
    average = shown.reference.flat.vector + difference
    state = federation.fit(1).model.state_dict()
    found = np.concatenate([tensor.double().numpy().ravel() for tensor in state.values()])
    assert shown.plan.quantiser is not None
    assert np.abs(found - average).max() <= shown.plan.quantiser.step
