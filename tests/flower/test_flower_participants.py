"""Who takes part over a network: the first to answer of more than are awaited, and turns that every node knows."""

from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message

from fl import Federation
from fl.flower.messages import unpack_request
from protocols.errors import Misuse
from secagg import SecAgg, SecAggPlus
from tests.flower.test_flower_apps import federation, grid_of, same, serve


def spare(**named: Any) -> Federation:
    masks = SecAggPlus(threat="semi-honest", dropout=0.25, collusion=0.0)
    return federation([masks], fraction=0.75, spare=0.3, **named)


def turns(**named: Any) -> Federation:
    return federation(sampling="round-robin", fraction=0.75, **named)


def test_a_trip_waits_for_as_many_as_are_awaited(tmp_path: Path) -> None:
    def last(node: int, message: Message) -> Message | None:
        return None if node == 2 and "arrays" in message.content else message  # it computes for an hour

    result = serve(grid_of(tmp_path, spare, before=last), spare(), 1, timeout=60.0)
    (played,) = result.history
    assert played.survivors == ("site-1", "site-3", "site-4")
    assert "not among the first 3 to answer" in played.refusals["site-2"]
    assert played.trips[0].seconds < 30


def spared(masks: SecAgg) -> Federation:
    return federation([masks], fraction=0.75, spare=0.3)


def test_where_clients_are_spare_keys_stay_fresh(tmp_path: Path) -> None:
    """Of reused keys only the first who enrolled would be asked, and who is spare would never be."""
    gone = {1: 4, 2: 1, 3: 2}

    def one_away(node: int, message: Message) -> Message | None:
        request = unpack_request(message.content, None)[0]
        number = 0 if request.header is None else request.header.terms.number
        return None if number and gone.get(number) == node else message

    def make() -> Federation:
        return spared(SecAgg(threat="semi-honest", dropout=0.25, collusion=0.0))

    history = serve(grid_of(tmp_path, make, before=one_away), make(), 3).history
    assert [played.abandoned for played in history] == [None] * 3
    assert [len(played.survivors) for played in history] == [3] * 3
    assert {played.trips[0].stage for played in history} == {"advertise-keys"}


def test_reused_keys_and_spare_clients_are_refused() -> None:
    with pytest.raises(Misuse, match="spare: of reused keys, only the first who enrolled are asked"):
        spared(SecAgg(setup="reuse", dropout=0.25, collusion=0.0)).fit(1)


def test_turns_are_those_of_the_run_in_memory_and_a_server_with_others_is_refused(tmp_path: Path) -> None:
    result = serve(grid_of(tmp_path / "a", turns), turns(), 3)
    expected = turns().fit(3)
    assert result.survivors == expected.survivors
    assert same(result.model, expected.model)
    server = turns()
    server.coordinator.choose = lambda number: server.setup.names[1:]  # type: ignore[method-assign]
    (played,) = serve(grid_of(tmp_path / "b", turns), server, 1).history
    assert played.abandoned
    assert all("whose turn or window it is not" in why for why in played.refusals.values())
