"""What one client makes of a broadcast: its difference, its exact coordinates, and the digest that names an update."""

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dp import ClientDP
from fl import RandomK
from fl.round import Broadcast, Count, contribution_of, open_round, reference_of
from fl.round.broadcast import CAPPED, EMPTY, WHERE, impossible, require_no_statistics, told_coordinates
from fl.round.contribution import clipped_where, encoded
from protocols.errors import CapacityError, Misuse, TooFewSurvivors
from protocols.layers import Coordinate, RunFacts
from protocols.quantise import Quantiser
from protocols.stack import Numbers, Stack
from protocols.updates import Flat, schema_of

TREE = {"w": np.zeros(3, np.float32)}


def opened(weight_cap: int | None = 20, **options: Any) -> Broadcast:
    stack = Stack([], Numbers(range=1.0))
    run = RunFacts(9, 4, 4, dimension=3, weight_cap=weight_cap)
    stack.plan(run)
    return open_round(stack, run, 2, ("a", "b", "c", "d"), reference_of(TREE), **options)


def trained(broadcast: Broadcast, *values: float) -> Flat:
    return replace(broadcast.reference.flat, vector=np.array(values))


def test_the_difference_its_weight_and_what_is_counted_exactly() -> None:
    shown = opened(metrics=("loss",), counts=(Count("votes", 4),))
    made = contribution_of(shown, trained(shown, 0.5, 0.0, -3.0), 25, {"loss": 0.5}, counts={"votes": 3})
    assert (made.vector.tolist(), made.weight, made.source) == ([0.5, 0.0, -3.0], 20, None)
    told = {name: block.tolist() for name, block in made.coordinates.items()}
    assert (told[CAPPED], told[EMPTY], told[WHERE], told["count/votes"]) == ([1], [0], [1], [3])
    assert "metric/loss" in told
    assert {block.dtype for block in made.coordinates.values()} == {np.dtype(np.int64)}
    few = contribution_of(
        shown, trained(shown, 0.5, 0.0, 0.0), 20, {"loss": 0.5}, counts={"votes": 3}, empty=True
    )
    told = {name: block.tolist() for name, block in few.coordinates.items()}
    assert (few.weight, told[CAPPED], told[EMPTY], told[WHERE]) == (20, [0], [1], [0])


@pytest.mark.parametrize(("cap", "capped"), [(1, 0), (2, 1)])
def test_a_cap_of_one_is_how_all_count_alike_and_caps_nobody(cap: int, capped: int) -> None:
    shown = opened(cap)
    made = contribution_of(shown, trained(shown, 0.0, 0.0, 0.0), 3)
    assert (made.weight, made.coordinates[CAPPED].tolist()) == (cap, [capped])


def test_what_a_strategy_sends_in_place_of_the_difference() -> None:
    shown = opened()
    own = np.array([0.25, 0.5, 1.0], np.float32)
    made = contribution_of(shown, trained(shown, 9.0, 9.0, 9.0), 1, vector=own)  # type: ignore[arg-type]
    assert (made.vector.tolist(), made.vector.dtype) == ([0.25, 0.5, 1.0], np.float64)
    wide = np.ones(3)
    assert contribution_of(shown, trained(shown, 0.0, 0.0, 0.0), 1, vector=wide).vector is not wide
    for wrong in (np.zeros(2), np.zeros((1, 3)), np.array([0.0, np.nan, 0.0])):
        with pytest.raises(Misuse, match=r"finite vector of shape \(3,\)"):
            contribution_of(shown, trained(shown, 0.0, 0.0, 0.0), 1, vector=wrong)
    for weight in (-1, 1.5):
        with pytest.raises(Misuse, match="from 0 to the public cap 20"):
            contribution_of(shown, trained(shown, 0.0, 0.0, 0.0), weight)  # type: ignore[arg-type]


def test_a_source_names_an_update_whatever_is_made_of_it() -> None:
    shown = opened()
    made = [
        contribution_of(shown, trained(shown, value, 0.0, 0.0), 1, source=b"own draw") for value in (0.1, 0.2)
    ]
    names = {encoded(shown, each, shown.own("a"))[1] for each in made}
    assert names == {hashlib.sha256(b"secagg update v1\0own draw").digest()}


def test_a_value_below_the_range_is_clipped_like_one_above_and_an_empty_model_never() -> None:
    quantiser = Quantiser(8, 0.5)
    schema = schema_of({"a": np.zeros(1), "b": np.zeros(1)})
    edge = quantiser.range
    assert clipped_where(np.array([-edge - 1, -edge]), schema, quantiser).tolist() == [1, 0]
    assert clipped_where(np.array([edge, edge + 1]), schema, quantiser).tolist() == [0, 1]
    assert clipped_where(np.zeros(0), schema_of({}), quantiser).tolist() == []


def test_without_a_model_exact_coordinates_name_an_update_too() -> None:
    stack, run = Stack([]), RunFacts(9, 3, 3, dimension=0)
    stack.plan(run)
    shown = open_round(stack, run, 1, ("a", "b", "c"), reference_of({}), counts=[Count("votes", 9)])
    made = contribution_of(shown, shown.reference.flat, 1, counts={"votes": 4})
    known = b"secagg update v1\0" + shown.reference.digest
    for name in sorted(made.coordinates):
        known += name.encode() + b"\0" + made.coordinates[name].tobytes()
    assert encoded(shown, made, shown.own("a"))[1] == hashlib.sha256(known).digest()


def test_what_a_run_speaks_up_about_counts_each_client_once() -> None:
    both = [Coordinate(CAPPED, 1, 1), Coordinate(EMPTY, 1, 1)]
    assert told_coordinates(schema_of({})) == both
    assert told_coordinates(schema_of({"w": np.zeros(5), "n": np.array([1])})) == [
        *both,
        Coordinate(WHERE, 1, 1),
    ]


def test_a_round_that_cannot_work_is_a_mistake_where_it_was_planned_so_and_else_abandoned() -> None:
    error = Misuse("too few for the graph")
    run = RunFacts(9, 9, 4)
    assert impossible(error, 4, run) is error
    few = impossible(error, 3, run)
    assert isinstance(few, TooFewSurvivors)
    assert str(few) == "too few for the graph"
    full = CapacityError("too wide")
    assert impossible(full, 3, run) is full
    drawn = RunFacts(9, 9, 4, least_chosen=3, failing=1e-9)
    assert impossible(error, 3, drawn) is error
    assert isinstance(impossible(error, 4, drawn), TooFewSurvivors)


def test_noise_on_running_statistics_is_refused_with_the_layer_that_would_add_it() -> None:
    schema = schema_of({"norm.running_var": np.ones(3)})
    require_no_statistics(Stack([RandomK(0.5)]), schema)
    noisy = Stack([RandomK(0.5), ClientDP(noise_multiplier=1.0, clip=1.0)])
    with pytest.raises(Misuse, match=r"norm\.running_var: client-dp would clip"):
        require_no_statistics(noisy, schema)
