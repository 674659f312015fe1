"""Rounds that give no total are abandoned whole, and the run goes on: on both Flower engines as in memory."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from fl.flower.arrays import arrays_of, tree_of
from fl.flower.messages import unpack_request
from fl.flower.mod import privacy_mod
from fl.flower.strategy import PrivateStrategy
from fl.network.messages import START
from protocols.errors import Aborted
from protocols.layers import Aggregate, PrivacyLayer, RoundFacts, Signal, SumFacts
from secagg import SecAggPlus
from tests.flower import test_flower_apps as apps
from tests.flower.direct import DirectGrid, client_app, fedavg, model, play_out

NODES = 4


class Demanding(PrivacyLayer):
    """Demands survivors from round `since` on, and gives no result in the rounds of `aborts`."""

    name = "demanding"

    def __init__(self, survivors: int = 1, since: int = 1, aborts: tuple[int, ...] = ()) -> None:
        self.survivors, self.since, self.aborts = survivors, since, aborts

    def transform(self, given: Signal, facts: RoundFacts) -> Signal:
        demanded = self.survivors if facts.number >= self.since else 1
        return replace(given, min_survivors=max(given.min_survivors, demanded))

    def decode(self, aggregate: Aggregate, opened: SumFacts, facts: RoundFacts) -> Aggregate:
        if facts.number in self.aborts:
            raise Aborted("the estimate of the noisy sum is worthless")
        return aggregate


def stack(**options: Any) -> list[Any]:
    return [Demanding(**options), SecAggPlus(threat="semi-honest", dropout=0.25, collusion=0.0)]


def mods(folder: Path, **options: Any) -> dict[int, Any]:
    made = {n: privacy_mod(stack(**options), site=folder / f"n{n}") for n in range(1, NODES + 1)}
    return {n: (client_app(mod), {}) for n, mod in made.items()}


Started = list[tuple[str, int]]


def watched(started: Started) -> Callable[[int, Message], Message]:
    """Note every request that begins a session: who gets it, in which round."""

    def before(node: int, message: Message) -> Message:
        request, _ = unpack_request(message.content, None)
        if request.kind == START and request.header is not None:
            started.append((request.recipient, request.header.terms.number))
        return message

    return before


def test_a_wrapped_strategy_goes_on_after_a_layer_that_gave_no_result(tmp_path: Path) -> None:
    grid = DirectGrid(mods(tmp_path, aborts=(2,)))
    strategy = PrivateStrategy(fedavg(NODES), stack(aborts=(2,)), folder=tmp_path / "run")
    models: list[dict[str, np.ndarray]] = []
    play_out(
        strategy,
        grid,
        arrays_of(model()),
        num_rounds=3,
        evaluate_fn=lambda _, a: models.append(dict(tree_of(a))),
    )
    assert [entry.abandoned for entry in strategy.history] == [
        None,
        "the estimate of the noisy sum is worthless",
        None,
    ]
    assert all(np.array_equal(models[1][name], models[2][name]) for name in models[1]), "the model stays"
    assert not all(np.array_equal(models[2][name], models[3][name]) for name in models[1])


def test_a_federation_goes_on_after_a_layer_that_gave_no_result(tmp_path: Path) -> None:
    def make() -> Any:
        return apps.federation(stack(aborts=(2,)))

    result = apps.serve(apps.grid_of(tmp_path, make), make(), 3)
    expected = make().fit(3)
    reasons = [None, "the estimate of the noisy sum is worthless", None]
    assert [entry.abandoned for entry in result.history] == reasons
    assert [entry.abandoned for entry in expected.history] == reasons
    assert apps.same(result.model, expected.model)


@pytest.mark.parametrize("demanded", [NODES, NODES + 1])
def test_a_layers_demand_holds_at_the_opening_and_fewer_are_asked_nothing(
    tmp_path: Path, demanded: int
) -> None:
    """With one node fewer than demanded connected, nothing is sent; one that leaves in the round ends it there."""
    started: Started = []
    grid = DirectGrid(mods(tmp_path, survivors=demanded, since=2), before=watched(started))
    strategy = PrivateStrategy(fedavg(NODES), stack(survivors=demanded, since=2))
    play_out(strategy, grid, arrays_of(model()), num_rounds=2)
    assert strategy.history[0].abandoned is None
    if demanded == NODES:
        assert strategy.history[1].abandoned is None
        return
    assert str(demanded) in str(strategy.history[1].abandoned)
    assert {number for _, number in started} == {1}


def test_a_layers_demand_is_not_lowered_to_those_who_are_asked_in_a_federation(tmp_path: Path) -> None:
    started: Started = []

    def make() -> Any:
        return apps.federation(stack(survivors=5, since=2))

    result = apps.serve(apps.grid_of(tmp_path, make, before=watched(started)), make(), 2)
    expected = make().fit(2)
    for history in (result.history, expected.history):
        assert history[0].abandoned is None
        assert "5" in str(history[1].abandoned)
    assert {number for _, number in started} == {1}


def test_nothing_is_opened_over_fewer_than_a_layer_demands(tmp_path: Path) -> None:
    """One of four leaves before its input: the masks would bear it, the layer does not."""

    def before(node: int, message: Message) -> Message | None:
        request, _ = unpack_request(message.content, None)
        return None if node == 1 and request.stage != "advertise" else message

    grid = DirectGrid(mods(tmp_path, survivors=NODES), before=before)
    strategy = PrivateStrategy(fedavg(NODES), stack(survivors=NODES))
    play_out(strategy, grid, arrays_of(model()), num_rounds=1, timeout=2.0)
    assert strategy.history[0].survivors == ()
    assert strategy.history[0].abandoned is not None
    assert "unmask" not in {trip.stage for trip in strategy.history[0].trips}
