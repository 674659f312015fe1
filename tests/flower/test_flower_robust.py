"""Strategies of several rounds a step on Flower: nodes' own policies and stores hold; models are those in memory."""

from pathlib import Path
from typing import Any

import pytest

from fl import IFCA, RFA, Ditto, Federation
from protocols.policy import Policy
from tests.flower.test_flower_apps import federation, grid_of, same, serve

AGAIN = Policy(min_threshold_share=0.0, allow_resend=True)
MADE = {"rfa": lambda: RFA(0.2, 2), "ifca": lambda: IFCA(2, least=2), "ditto": lambda: Ditto(0.5)}


def site(folder: Path, again: bool) -> None:
    for node in range(1, 5):
        (folder / f"n{node}").mkdir()
        (folder / f"n{node}" / "site.toml").write_text(f"[policy]\nallow_resend = {str(again).lower()}\n")


@pytest.mark.parametrize("name", sorted(MADE))
def test_the_model_is_that_of_the_run_in_memory(tmp_path: Path, name: str) -> None:
    def own() -> Federation:
        return federation(strategy=MADE[name](), policy=AGAIN)

    site(tmp_path, again=True)
    result = serve(grid_of(tmp_path, own), own(), 4)
    assert [entry.abandoned for entry in result.history] == [None] * 4
    assert same(result.model, own().fit(4).model)


@pytest.mark.parametrize("name", sorted(MADE))
def test_a_run_that_was_stopped_between_rounds_goes_on_and_promises_no_more(
    tmp_path: Path, name: str
) -> None:
    """A resumed run's statement speaks of the sessions before the stop, too."""

    def own(**more: Any) -> Federation:
        return federation(strategy=MADE[name](), policy=AGAIN, **more)

    site(tmp_path, again=True)
    grid, whole = grid_of(tmp_path, own), own().fit(4)
    told = [serve(grid, own(output=tmp_path / "run"), rounds).statement.protection for rounds in (1, 3, 4)]
    least = [each.parameters["least_survivors"] for each in told]
    assert least == sorted(least, reverse=True)
    assert told[-1].parameters == whole.statement.protection.parameters
    result = serve(grid, own(output=tmp_path / "run"), 4)
    assert same(result.model, whole.model)


def test_a_node_whose_policy_does_not_allow_it_sends_an_update_once(tmp_path: Path) -> None:
    def own(**more: Any) -> Federation:
        return federation(strategy=RFA(0.2, 2), **more)

    site(tmp_path, again=False)
    result = serve(grid_of(tmp_path, own), own(policy=AGAIN), 2)
    first, second = result.history
    assert first.abandoned is None
    assert second.abandoned is not None
    assert all("SpentUpdate" in why for why in second.refusals.values())
