"""Clipped values, capped weights and empty clients speak up once per run, in the statement and in the record."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from dp import ClientDP
from fl import Federation, SecureAverage
from fl.round import RoundResult
from fl.round.contribution import clipped_where
from fl.round.remarks import Speaker, notes_of
from fl.round.run_files import METRICS
from protocols.quantise import Quantiser
from protocols.record import FILE_NAME, verify_record
from protocols.updates import schema_of
from secagg import SecAggPlus


def loader(examples: int) -> Any:
    x = torch.randn(examples, 3, generator=torch.Generator().manual_seed(examples))
    return DataLoader(TensorDataset(x, torch.arange(examples) % 2), 8)


def pushing(model: Any, loader: Any) -> None:
    with torch.no_grad():
        model.bias += 3.0  # beyond the public range


def federation(sizes: list[int], *privacy: Any, **options: Any) -> Federation:
    clients = {f"site-{i}": loader(size) for i, size in enumerate(sizes)}
    return Federation(lambda: torch.nn.Linear(3, 2), clients, privacy=privacy, metrics=(), **options)


def said_of(run: Federation, rounds: int) -> tuple[Any, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = run.fit(rounds)
    return result, [str(w.message) for w in caught if str(w.message).startswith("round ")]


@pytest.mark.parametrize("masked", [False, True])
def test_each_kind_is_said_once_with_tensors_and_share_and_kept(masked: bool, tmp_path: Path) -> None:
    privacy = (SecAggPlus(dropout=0.0),) if masked else ()
    run = federation([40, 8, 0, 8], *privacy, train=pushing, range=1.0, weight_cap=20, output=tmp_path)
    result, said = said_of(run, 2)
    assert len(said) == 3
    assert said[0].startswith(
        "round 1: up to 25.00% of a round's coordinates were clipped to the public range, in bias:"
    )
    assert "up to 1 clients of a round count with the public weight cap" in said[1]
    assert "up to 1 clients of a round have no examples" in said[2]
    assert [note for note in result.statement.notes if note.startswith("up to ")] == [
        sentence.removeprefix("round 1: ") for sentence in said
    ]
    assert result.history[1].clipped_tensors == {"bias": 4}
    for line in (tmp_path / METRICS).read_text().splitlines():
        told = json.loads(line)
        assert (told["clipped_tensors"], told["weights_capped"], told["empty_clients"]) == ({"bias": 4}, 1, 1)
    for entry in verify_record(tmp_path / FILE_NAME).entries[-2:]:
        assert (entry.body["clipped_share"], entry.body["weights_capped"], entry.body["empty_clients"]) == (
            0.25,
            1,
            1,
        )


def test_a_run_in_which_nothing_happened_says_nothing() -> None:
    result, said = said_of(federation([8, 8, 8]), 1)
    assert said == []
    assert not [note for note in result.statement.notes if note.startswith("up to ")]
    assert (result.history[0].empty_clients, result.history[0].clipped_tensors) == (0, {})


def test_beside_noise_nothing_of_it_is_counted() -> None:
    result, said = said_of(federation([40, 0, 8], ClientDP(noise_multiplier=1.0), weight_cap=20), 1)
    assert said == []
    entry = result.history[0]
    assert (entry.weights_capped, entry.empty_clients, entry.clipped_tensors) == (None, None, {})


def test_an_average_says_it_once_for_all_calls() -> None:
    state = {"w": torch.zeros(3), "b": torch.zeros(1)}
    far = {"w": torch.zeros(3), "b": torch.full((1,), 5.0)}
    average = SecureAverage(range=1.0)
    with pytest.warns(UserWarning, match=r"25.00% .* in b:"):
        average(dict.fromkeys("abc", far), reference=state)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        average(dict.fromkeys("abc", far), reference=state)
    assert any("clipped to the public range, in b" in note for note in average.statement.notes)


def test_the_worst_tensors_are_named_and_the_others_counted() -> None:
    tensors = {f"layer{i}": i for i in range(1, 9)}
    (note,) = notes_of([RoundResult(1, (), clipped_share=0.5, clipped_tensors=tensors)])
    assert "in layer8, layer7, layer6, layer5, layer4 and 3 more tensors:" in note
    heard: list[str] = []
    speaker = Speaker(heard.append)
    for number in (1, 2, 3):
        speaker.hear(RoundResult(number, (), weights_capped=number - 1))
    assert [line.partition(":")[0] for line in heard] == ["round 2"]


def test_each_remark_says_what_to_do() -> None:
    assert notes_of([]) == ()
    (clipped,) = notes_of([RoundResult(1, (), clipped_share=0.125), RoundResult(2, (), clipped_share=0.25)])
    assert clipped == (
        "up to 25.00% of a round's coordinates were clipped to the public range: the result is not exact there; "
        "give a larger range"
    )
    five = dict.fromkeys("abcde", 1)
    (named,) = notes_of([RoundResult(1, (), clipped_share=0.5, clipped_tensors=five)])
    assert "range, in a, b, c, d, e: the" in named
    (capped,) = notes_of([RoundResult(1, (), weights_capped=2), RoundResult(2, (), weights_capped=1)])
    assert capped == (
        "up to 2 clients of a round count with the public weight cap and not with all their examples: raise "
        "weight_cap"
    )
    (empty,) = notes_of([RoundResult(1, (), empty_clients=3)])
    assert empty == "up to 3 clients of a round have no examples and contribute nothing but their presence"


def test_a_tensor_is_named_exactly_where_the_quantiser_clips() -> None:
    schema = schema_of(
        {"a": np.zeros(2), "n": np.int64(1), "b": np.zeros((2, 2)), "c": np.zeros(0), "d": np.zeros(1)}
    )
    quantiser = Quantiser(8, 0.5)
    edge = quantiser.bound * quantiser.step
    inside = np.array([edge, -edge, edge + 0.2, 0, 0, 0, -edge - 0.24])
    assert clipped_where(inside, schema, quantiser).tolist() == [0, 0, 0, 0]
    assert clipped_where(inside + np.eye(7)[2] / 5, schema, quantiser).tolist() == [0, 1, 0, 0]
    assert clipped_where(-inside * 2, schema, quantiser).tolist() == [1, 1, 0, 1]
