"""Evaluation on clients' data over Flower: numbers and charges are those in memory, the model is bound."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message
from torch.utils.data import DataLoader, TensorDataset

from dp import ClientDP, DistributedDP, Ledger
from fl import ClientEvaluation, Federation
from fl.callbacks import KeepBest
from fl.checkpoint import load_run
from fl.flower.arrays import arrays_of
from fl.flower.messages import unpack_request
from fl.network.messages import EVALUATED
from fl.run_result import Result
from protocols.errors import Misuse
from protocols.record import FILE_NAME, verify_record
from secagg import SecAgg, SecAggPlus
from tests.flower.direct import DirectGrid
from tests.flower.test_flower_apps import SITES, Killed, federation, grid_of, rostered, same, serve

EXACT = [SecAgg(dropout=0.25)]


def held_out(name: str, config: dict[str, Any]) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(100 + SITES.index(name))
    x = torch.randn(16 + SITES.index(name), 5, generator=generator)
    return DataLoader(TensorDataset(x, (x.sum(1) > 0).long()), batch_size=5)


def evaluating(layers: list[Any] = EXACT, every: int = 1, **named: Any) -> Federation:
    own = ClientEvaluation(held_out, names=SITES, classes=2, every=every, privacy=layers)
    return federation(evaluation=own, **named)


def shares(result: Result) -> list[dict[str, float]]:
    return [round.metrics for round in result.history]


@pytest.mark.parametrize("layers", [EXACT, [SecAggPlus(setup="reuse", dropout=0.25)]], ids=["fresh", "reuse"])
def test_the_numbers_are_those_in_memory_bit_for_bit(tmp_path: Path, layers: list[Any]) -> None:
    def made() -> Federation:
        return evaluating(layers)

    result = serve(grid_of(tmp_path, made), own := made(), 3)
    expected = (there := made()).fit(3)
    assert shares(result) == shares(expected)
    assert set(result.history[0].metrics) == {"clients.loss", "clients.accuracy", "clients.auroc"}
    assert same(result.model, expected.model)
    for mine, theirs in ((own, there), (there, own)):
        last, other = (of.setup.evaluation.last for of in (mine, theirs))  # type: ignore[union-attr]
        assert np.array_equal(last.confusion, other.confusion)
    assert any("data of their own are released" in note for note in result.statement.notes)


def test_noise_of_its_own_is_charged_at_the_server_and_at_every_node(tmp_path: Path) -> None:
    def made() -> Federation:
        own = [DistributedDP(noise_multiplier=0.05, clip=1.0), SecAgg(dropout=0.25)]
        return evaluating(own, privacy=[ClientDP(noise_multiplier=20.0), SecAgg(dropout=0.25)])

    result = serve(grid_of(tmp_path, made), made(), 2)
    expected = made().fit(2)
    price = [(event.layer, event.kind) for event in result.statement.events]
    assert price == [(event.layer, event.kind) for event in expected.statement.events]
    assert [layer for layer, _ in price].count("evaluation/distributed-dp") == 2
    assert str(result.guarantees) == str(expected.guarantees)
    assert all("clients.accuracy" in round.metrics for round in result.history)
    node = Ledger(tmp_path / "n1" / "own.ledger", epsilon=float("inf"), delta=1e-5, accountant="rdp")
    assert len(node.entries()) == 4  # two rounds, two evaluations


def test_a_node_that_is_shown_another_model_takes_no_part(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The session binds the model that is evaluated: one made for one client would measure that client alone."""

    def before(node: int, message: Message) -> Message:
        if node == 2 and EVALUATED in message.content.array_records:
            arrays = message.content.array_records[EVALUATED]
            other = {name: array.numpy() + 1 for name, array in arrays.items()}
            message.content[EVALUATED] = arrays_of(other)
        return message

    with caplog.at_level(logging.WARNING, "flwr"):
        result = serve(grid_of(tmp_path, evaluating, before=before), own := evaluating(), 1)
    assert result.history[0].survivors == SITES
    report = own.setup.evaluation.last  # type: ignore[union-attr]
    assert report.result.survivors[0] == ("site-1", "site-3", "site-4")
    assert any("site-2 took no part" in r.getMessage() for r in caplog.records)


def test_a_node_without_an_evaluation_refuses_one(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="round 1: evaluation"):
        result = serve(grid_of(tmp_path, federation), own := evaluating(), 1)
    assert result.history[0].survivors == SITES
    assert result.history[0].metrics == {}
    assert own.setup.evaluation.last is None  # type: ignore[union-attr]


def test_who_evaluates_must_be_a_client_of_the_federation() -> None:
    others = ClientEvaluation({f"s{i}": held_out("site-1", {}) for i in range(3)}, classes=2)
    with pytest.raises(Misuse, match="evaluation: 's0' is no client of this federation"):
        federation(evaluation=others).server_app()
    with pytest.raises(Misuse, match="is no client of this federation"):
        federation(evaluation=others).client_app()


def test_a_server_that_is_killed_in_an_evaluation_keeps_the_round(tmp_path: Path) -> None:
    """The round is over: its updates are not asked for again, and what the evaluation cost is paid."""
    armed = [True]

    def before(node: int, message: Message) -> Message:
        request, _ = unpack_request(message.content, None)
        told = request.header
        if armed and told is not None and told.terms.origin.layout.arrays == EVALUATED:
            raise Killed
        return message

    def made() -> Federation:
        own = [DistributedDP(noise_multiplier=0.05, clip=1.0), SecAgg(dropout=0.25)]
        return evaluating(own, output=tmp_path / "run")

    grid = grid_of(tmp_path, made, before=before)
    with pytest.raises(Killed):
        serve(grid, made(), 2)
    kept = load_run(tmp_path / "run")
    assert [round.abandoned for round in kept.history] == [None]
    armed.clear()
    grid.replies.clear()
    result = serve(grid, made(), 2)
    assert [round.abandoned for round in result.history] == [None, None]
    assert [bool(round.metrics) for round in result.history] == [False, True]
    assert [event.layer for event in result.statement.events] == ["evaluation/distributed-dp"] * 2
    assert len(verify_record(tmp_path / "run" / FILE_NAME).entries) == 2


def test_a_roster_and_callbacks_that_choose_by_what_is_released(tmp_path: Path) -> None:
    best = KeepBest("clients.accuracy")
    grid, given = rostered(tmp_path, {"min_cohort": 4})
    made = evaluating(callbacks=[best], output=tmp_path / "run")
    for node in grid.apps:
        grid.apps[node] = (evaluating().client_app(), grid.apps[node][1])
    result = serve(grid, made, 2, **given)
    assert shares(result) == shares(evaluating().fit(2))
    assert best.round in (1, 2)


def test_every_other_round(tmp_path: Path) -> None:
    def made() -> Federation:
        return evaluating(every=2)

    grid: DirectGrid = grid_of(tmp_path, made)
    assert [bool(found) for found in shares(serve(grid, made(), 3))] == [False, True, False]
