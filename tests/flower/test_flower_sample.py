"""SampleDP where the data live: what the server prints covers every part of the run, a node is charged what its steps
cost and refuses them before it trains."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dp import Ledger, SampleDP
from dp.accountants import accountant
from dp.events import UnknownEvent
from fl import Federation
from fl.round.party_ledger import LEDGER
from protocols.policy import Policy
from tests.flower.direct import DirectGrid
from tests.flower.test_flower_apps import federation, loader_for, serve, train

DELTA, ROUNDS = 1e-5, 2


def unknown() -> SampleDP:
    """The server knows neither how many examples a node has nor its batches."""
    return SampleDP(epsilon=8.0, delta=DELTA)


def public() -> SampleDP:
    return SampleDP(epsilon=8.0, delta=DELTA, batch_size=8, examples=24)


def private(layer: Callable[[], SampleDP], loop: Any = train, **options: Any) -> Federation:
    made = federation([layer()], **options)
    return Federation(
        model=made.setup.model,
        clients=loader_for,
        names=made.setup.names,
        train=loop,
        privacy=[layer()],
        **options,
    )


def nodes(folder: Path, make: Callable[[], Federation]) -> DirectGrid:
    return DirectGrid(
        {n: (make().client_app(site=folder / f"n{n}"), {"partition-id": n - 1}) for n in range(1, 5)}
    )


def charged(folder: Path) -> list[list[float]]:
    """What each node's own ledger says."""
    paths = [folder / f"n{n}" / LEDGER for n in range(1, 5)]
    return [[line.epsilon for line in Ledger(path).spent()] if path.exists() else [] for path in paths]


def in_memory() -> list[float]:
    """What is printed, round by round, where every client's steps are known."""
    printed: list[float] = []
    private(unknown).fit(ROUNDS, on_round=lambda r: printed.append(r.guarantees[0].epsilon))
    return printed


@pytest.mark.parametrize("layer", [unknown, public])
def test_what_is_printed_covers_every_prefix_and_a_nodes_ledger_is_exact(tmp_path: Path, layer: Any) -> None:
    """By round 2.9, 4.2, ... 8 were printed where 5.4 and more were spent: a Gaussian a round costs less early on than
    sampled steps of the same total price."""
    exact, printed = in_memory(), list[float]()
    serve(
        nodes(tmp_path, lambda: private(layer)),
        private(layer),
        ROUNDS,
        on_round=lambda r: printed.append(r.guarantees[0].epsilon),
    )
    assert printed == ([8.0] * ROUNDS if layer is unknown else pytest.approx(exact))
    assert all(stated >= spent - 1e-6 for stated, spent in zip(printed, exact, strict=True))
    assert charged(tmp_path) == [[pytest.approx(exact[-1])]] * 4


def test_a_node_that_accepts_less_refuses_before_it_trains(tmp_path: Path) -> None:
    called: list[int] = []

    def counted(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
        called.append(1)
        train(model, loader, optimizer, criterion)

    first = in_memory()[0]
    for limit, played in ((first * 0.9, 0), (first * 1.01, 1)):
        policy, folder = Policy(max_epsilon=limit, allow_resend=True), tmp_path / str(played)

        def make(policy: Policy = policy) -> Federation:
            return private(unknown, counted, policy=policy, min_survivors=2)

        called.clear()
        history = serve(nodes(folder, make), make(), ROUNDS).history
        assert [entry.abandoned is None for entry in history] == [round < played for round in range(ROUNDS)]
        assert all("max_epsilon" in why for entry in history for why in entry.refusals.values())
        assert len(called) == 4 * 2 * played  # the check, and the training
        assert charged(folder) == [[pytest.approx(first)] if played else []] * 4


def test_a_loop_that_takes_more_passes_than_planned_sends_nothing(tmp_path: Path) -> None:
    """160 steps left a node whose ledger said 8."""

    def many(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
        for _ in range(20):
            train(model, loader, optimizer, criterion)

    history = serve(nodes(tmp_path, lambda: private(unknown, many)), private(unknown, many), 1).history
    assert history[0].abandoned is not None
    assert charged(tmp_path) == [[]] * 4


def test_a_servers_ledger_takes_no_promise_for_steps_that_it_does_not_know(tmp_path: Path) -> None:
    """A price at one delta says nothing of the price at another, nor of two runs together."""
    for layer, refused in ((unknown, True), (public, False)):
        ledger = Ledger(tmp_path / layer.__name__, epsilon=20.0, delta=1e-6)
        own = private(layer, ledger=ledger)
        grid = nodes(tmp_path / f"of {layer.__name__}", lambda layer=layer: private(layer))
        if refused:
            with pytest.raises(UnknownEvent, match="batch_size, and examples or the clients' sizes"):
                serve(grid, own, 1)
        else:
            serve(grid, own, 1)
        assert bool(ledger.entries()) != refused


class Stopped(Exception):
    """The server's process ends."""


def stop(_: Any) -> None:
    raise Stopped


@pytest.mark.parametrize("layer", [unknown, public])
def test_what_is_printed_covers_nodes_that_restart_answers_that_are_lost_and_a_server_that_goes_on(
    tmp_path: Path, layer: Any
) -> None:
    """Node 2 is a new process at every message, and its first answer of round 2 is lost; the server stops after one.
    Every training that was finished counts as spent, whether or not its update came."""
    finished, trips = dict.fromkeys(range(1, 5), 0), list[int]()

    def make(node: int = 0) -> Federation:
        def loop(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
            train(model, loader, optimizer, criterion)  # the check leaves it before its end
            finished[node] += 1

        return private(layer, loop, min_survivors=2, output=tmp_path / "run")

    def app(node: int) -> Any:
        return make(node).client_app(site=tmp_path / f"n{node}"), {"partition-id": node - 1}

    def restarted(node: int, message: Any) -> Any:
        grid.apps[node] = app(node) if node == 2 else grid.apps[node]
        return message

    def lost(node: int, reply: Any) -> Any:
        trips.append(finished[2])
        return None if node == 2 and finished[2] == 2 and trips.count(2) == 1 else reply

    grid = DirectGrid({n: app(n) for n in finished}, before=restarted, after=lost)
    with pytest.raises(Stopped):
        serve(grid, make(), 3, timeout=0.5, on_round=stop)
    result = serve(grid, make(), 3, timeout=0.5)
    assert [entry.abandoned for entry in result.history] == [None] * 3
    assert "site-2" not in result.history[1].survivors
    step = layer()._planned(24, 8, 1, make().coordinator.prepare(3))
    spent = {
        n: accountant("rdp").add(step.event, step.steps * count).epsilon(DELTA)
        for n, count in finished.items()
    }
    assert finished == dict.fromkeys(range(1, 5), 3)
    assert result.epsilon >= max(spent.values())
    assert [[pytest.approx(price)] for price in spent.values()] == charged(tmp_path)


def test_a_second_run_over_the_same_nodes_has_a_plan_of_its_own_and_one_ledger(tmp_path: Path) -> None:
    """A node took the steps of its first run for those of the second, and refused it as overspent."""
    charges = []
    for _ in range(2):
        assert (
            serve(nodes(tmp_path, lambda: private(public)), private(public), 1).history[0].abandoned is None
        )
        charges.append(charged(tmp_path)[0][0])
    assert charges[1] > charges[0] * 1.2
