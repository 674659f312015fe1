"""Who takes part over a network: the first to answer of more than are awaited, and turns that every node knows."""

from pathlib import Path
from typing import Any

from flwr.app import Message

from fl import Federation
from secagg import SecAggPlus
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
