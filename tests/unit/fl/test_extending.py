"""The layer and the strategy that docs/extending.md shows do what the page says, each in under 100 lines."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from examples.extending.coordinate_bound import CoordinateBound
from examples.extending.per_step import PerStep
from fl import Federation, FewBits
from protocols import PlainSum
from protocols.errors import Misuse, StackError
from secagg import SecAgg

FILES = sorted((Path(__file__).resolve().parents[3] / "examples" / "extending").glob("[a-z]*.py"))
DATA = TensorDataset(torch.ones(8, 2), torch.tensor([0, 1] * 4))
LOADERS = {
    name: DataLoader(DATA, batch_size=batch) for name, batch in (("a", 8), ("b", 4), ("c", 2), ("d", 8))
}


def model() -> torch.nn.Module:
    made = torch.nn.Linear(2, 2)
    for parameter in made.parameters():
        torch.nn.init.zeros_(parameter)
    return made


def far(model: torch.nn.Module, loader: DataLoader, optimizer: torch.optim.Optimizer) -> None:
    """Move every parameter by 1 a step, whatever the data are."""
    for _ in loader:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 1.0


def moved(**options: object) -> list[float]:
    made = Federation(model=model, clients=LOADERS, train=far, metrics=(), range=8.0, **options).fit(rounds=1)
    return sorted({round(x, 3) for p in made.model.parameters() for x in p.detach().ravel().tolist()})


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_each_has_fewer_than_100_lines_of_code(file: Path) -> None:
    assert sum(bool(line.strip()) for line in file.read_text().splitlines()) < 100


@pytest.mark.parametrize("last", [PlainSum, SecAgg])
def test_no_coordinate_of_the_mean_is_beyond_the_bound(last: type) -> None:
    assert moved(privacy=[CoordinateBound(0.25), last()]) == [pytest.approx(0.25, abs=1e-3)]


def test_what_a_layer_cannot_take_is_refused_before_round_one() -> None:
    with pytest.raises(Misuse, match="bound > 0, got -1"):
        CoordinateBound(-1)
    with pytest.raises(StackError, match="before the layer that makes integers"):
        moved(privacy=[FewBits(bits=4, range=1.0), CoordinateBound(), SecAgg()])


def test_the_mean_is_divided_by_the_mean_number_of_steps() -> None:
    """Steps 1, 2, 4 and 1: all weigh alike, so the mean movement is 2, over 2 steps."""
    assert np.allclose(moved(privacy=[SecAgg()], strategy=PerStep()), 1.0, atol=1e-3)
