from pathlib import Path
import numpy as np
import pytest
from flwr.serverapp.strategy import FedAvg
from fl.flower.mod import privacy_mod
from fl.flower.rounds import arrays_of, tree_of
from fl.flower.strategy import PrivateStrategy
from tests.flower.direct import DirectGrid, client_app, model, trained
from secagg import SecAggPlus

def nodes(tmp_path: Path, count: int, privacy=lambda: []):
    return {n: (client_app(privacy_mod(privacy(), site=tmp_path / f"n{n}")), {}) for n in range(1, count + 1)}

def test_round(tmp_path: Path) -> None:
    grid = DirectGrid(nodes(tmp_path, 4, lambda: [SecAggPlus()]))
    strategy = PrivateStrategy(FedAvg(fraction_evaluate=0.0), [SecAggPlus()], folder=tmp_path / "run", metrics=["loss"])
    result = strategy.start(grid, arrays_of(model()), num_rounds=2)
    for r in strategy.history: print(r)
    print(strategy.statement().describe())
    print(tree_of(result.arrays))
    assert 0
