"""A strategy that broadcasts, weighs, counts, sends blocks and keeps state, and entries that stay local, on Flower."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fl import Federation
from tests.flower.test_flower_apps import federation, grid_of, same, serve
from tests.toys.controlled import Controlled


def make() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.Linear(3, 2))


def controlled() -> Federation:
    return federation(strategy=Controlled())


def test_a_strategy_that_does_everything_gives_the_model_of_the_run_in_memory(tmp_path: Path) -> None:
    own = controlled()
    result = serve(grid_of(tmp_path, controlled), own, 3)
    expected = controlled().fit(3)
    assert [entry.abandoned for entry in result.history] == [None] * 3
    assert same(result.model, expected.model)
    means = own.setup.strategy.means  # type: ignore[attr-defined]
    assert [mean.blocks["control"][0] for mean in means] == pytest.approx([1, 2, 3], abs=0.01)


def test_a_server_that_goes_on_still_agrees_with_its_clients_on_their_state(tmp_path: Path) -> None:
    grid = grid_of(tmp_path, controlled)
    serve(grid, federation(strategy=Controlled(), output=tmp_path / "run"), 2)
    own = federation(strategy=Controlled(), output=tmp_path / "run")
    result = serve(grid, own, 3)
    assert [entry.abandoned for entry in result.history] == [None] * 3
    (mean,) = own.setup.strategy.means  # type: ignore[attr-defined]
    assert mean.blocks["control"][0] == pytest.approx(3, abs=0.01)


def test_entries_that_stay_local_are_never_sent(tmp_path: Path) -> None:
    def personal(**named: Any) -> Federation:
        made = federation(stay_local=("1.*",), **named)
        made.setup.model = make
        return made.with_privacy(made.setup.stack.privacy)

    grid = grid_of(tmp_path, personal)
    result = serve(grid, personal(), 3)
    assert same(result.model, personal().fit(3).model)
    sent = {name for _, message in grid.log for name in message.content.array_records.get("arrays", {})}
    assert sent == {"0.weight", "0.bias"}
