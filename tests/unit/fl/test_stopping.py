"""A caller ends a run: the result holds the rounds that were charged, prices them, says what a stop may rest on, and
goes on later to what the uninterrupted run ends in.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from dp import ClientDP, Ledger
from dp.accountants import epsilon
from dp.event_json import from_fact
from dp.events import repeat
from fl import Federation
from fl.round import RoundResult
from fl.round.run_files import STATEMENT
from protocols.errors import Misuse
from secagg import SecAggPlus

ROUNDS, PLAYED, DELTA = 6, 2, 1e-5
NOTE = f"{PLAYED} of {ROUNDS} planned rounds are over"


def federation(*privacy: Any, **options: Any) -> Federation:
    generator = torch.Generator().manual_seed(3)
    parts = torch.randn(24, 4, generator=generator).split(6)
    loaders = [DataLoader(TensorDataset(x, (x.sum(1) > 0).long()), 3, shuffle=True) for x in parts]
    return Federation(lambda: torch.nn.Linear(4, 2), loaders, privacy=privacy, **options)


def stop(result: RoundResult) -> bool:
    return result.number < PLAYED


def weights(run: Federation) -> np.ndarray[Any, Any]:
    return run.coordinator.reference().flat.vector


def calibrated() -> ClientDP:
    return ClientDP(epsilon=8.0, delta=DELTA, clip=1.0)


def test_a_printed_result_says_what_ran_what_it_reached_and_what_holds() -> None:
    run = federation(
        calibrated(), test=DataLoader(TensorDataset(torch.zeros(4, 4), torch.zeros(4).long()), 4)
    )
    said = str(run.fit(2))
    assert said.startswith("rounds: 2, with a total: 2\ntest: "), said
    assert "epsilon" in said, said
    assert len(said) < 500, said
    assert "differential privacy: none" in str(federation().fit(1))


def test_false_ends_the_run_with_its_result_and_nothing_else_does() -> None:
    run = federation(SecAggPlus())
    assert run.model is run.coordinator.model
    result = run.fit(ROUNDS, on_round=stop)
    assert [entry.number for entry in result.history] == [1, PLAYED]
    assert result.model is run.model
    assert run.result.history == result.history
    assert not any("planned rounds" in note for note in result.statement.notes)
    assert len(federation().fit(3, on_round=lambda result: np.bool_(False)).history) == 1
    for said in (None, True, 0, 0.0, [], ""):
        assert len(federation().fit(2, on_round=lambda result, said=said: said).history) == 2


def test_an_error_of_the_caller_leaves_the_rounds_so_far() -> None:
    run = federation(calibrated())

    def fail(result: RoundResult) -> None:
        if result.number == PLAYED:
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        run.fit(ROUNDS, on_round=fail)
    assert len(run.result.history) == PLAYED
    assert run.result.epsilon == run.result.history[-1].epsilon > 0


def test_a_calibrated_layer_is_priced_for_what_was_charged_and_the_ledger_agrees(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db", epsilon=10.0, delta=DELTA, accountant="rdp")
    run = federation(calibrated(), ledger=ledger, output=tmp_path / "run")
    result = run.fit(ROUNDS, on_round=stop)
    events = [from_fact(event) for event in result.statement.events]
    assert len(events) == PLAYED
    assert result.epsilon == epsilon([repeat(events[0], PLAYED)], DELTA, "rdp") < 8.0
    assert ledger.epsilon() == pytest.approx(result.epsilon)
    assert [note for note in result.statement.notes if note.startswith(NOTE)]
    assert json.loads((tmp_path / "run" / STATEMENT).read_text()) == result.statement.to_json()
    with pytest.raises(Misuse, match=r"fit\(the same rounds, resume=True\)"):
        run.fit(ROUNDS)
    with pytest.raises(Misuse, match=r"was made with {'rounds': 6}, this one is {'rounds': 7}"):
        run.fit(ROUNDS + 1, resume=True)
    assert run.result.epsilon == result.epsilon


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("booked", [True, False])
def test_a_stopped_run_goes_on_to_the_price_of_the_whole(same: bool, booked: bool, tmp_path: Path) -> None:
    def made() -> Federation:
        ledger = (
            Ledger(tmp_path / "ledger.db", epsilon=10.0, delta=DELTA, accountant="rdp") if booked else None
        )
        return federation(calibrated(), ledger=ledger, output=tmp_path / "run")

    run = made()
    run.fit(ROUNDS, on_round=stop)
    run = run if same else made()
    result = run.fit(ROUNDS, resume=True)
    assert [entry.number for entry in result.history] == list(range(1, ROUNDS + 1))
    assert len(result.statement.events) == ROUNDS
    assert 7.9 < (result.epsilon or 0) <= 8.0
    assert not any("planned rounds" in note for note in result.statement.notes)


def test_what_a_round_cost_that_an_error_ended_counts_when_the_same_process_goes_on(tmp_path: Path) -> None:
    """No ledger: only this process knows of the charge."""
    run = federation(ClientDP(noise_multiplier=1.0, delta=DELTA, clip=1.0), output=tmp_path)
    run.fit(ROUNDS, on_round=stop)
    move = run.coordinator.move

    def fail(means: Any) -> None:
        raise OSError("after the charge")

    run.coordinator.move = fail  # type: ignore[method-assign]
    with pytest.raises(OSError, match="after the charge"):
        run.fit(ROUNDS, resume=True)
    run.coordinator.move = move  # type: ignore[method-assign]
    assert len(run.fit(ROUNDS, resume=True).statement.events) == ROUNDS + 1


@pytest.mark.parametrize("same", [True, False])
def test_a_stopped_run_without_noise_goes_on_to_the_very_model(same: bool, tmp_path: Path) -> None:
    whole, run = federation(SecAggPlus()), federation(SecAggPlus(), output=tmp_path)
    whole.fit(4)
    run.fit(4, on_round=stop)
    run = run if same else federation(SecAggPlus(), output=tmp_path)
    run.fit(4, resume=True)
    assert (weights(run) == weights(whole)).all()


def test_a_stop_beside_a_secret_choice_of_clients_tells_nothing_and_prices_every_round() -> None:
    heard: list[RoundResult] = []

    def listen(result: RoundResult) -> bool:
        heard.append(result)
        return stop(result)

    layer = ClientDP(noise_multiplier=1.0, clip=0.5, delta=DELTA, amplify=True)
    result = federation(layer, sampling="poisson", fraction=0.1).fit(ROUNDS, on_round=listen)
    event = from_fact(result.statement.events[0])
    assert result.epsilon == epsilon([repeat(event, PLAYED)], DELTA, "rdp")
    assert math.isfinite(result.epsilon)
    assert all(entry.withheld and not entry.asked and not entry.survivors for entry in heard)
