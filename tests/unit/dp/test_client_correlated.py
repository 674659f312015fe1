"""ClientDP with correlated noise: federations in turns and by arrival, prices, noise, what is refused and kept."""

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from dp import ClientDP, DistributedDP, Ledger
from dp.event_json import from_fact
from dp.events import CorrelatedRow
from fl import FedAvgM, Federation, GroupMedian
from fl.checkpoint import load_run
from fl.engines.memory import MemoryEngine
from fl.round.run_files import encode
from protocols.errors import BudgetExceeded, Misuse, StackError
from protocols.layers import Block, Contribution, RoundFacts, RunFacts
from protocols.randomness import SystemRandom
from protocols.stack import Stack
from protocols.store import MemoryStore
from secagg import SecAgg
from tests.unit.fl.test_strategy_hooks import RefusesOnce

CLIENTS = 12


def loaders() -> list[DataLoader[Any]]:
    drawn = torch.Generator().manual_seed(3)
    x = torch.randn(CLIENTS * 8, 4, generator=drawn)
    return [DataLoader(TensorDataset(part, (part.sum(1) > 0).long()), batch_size=4) for part in x.split(8)]


def banded(**options: Any) -> ClientDP:
    return ClientDP(**{"epsilon": 8, "correlation": "banded", "min_separation": 4, **options})


def federation(*layers: Any, **options: Any) -> Federation:
    turns: dict[str, Any] = {"sampling": "cyclic", "fraction": 0.25, "delta": 1e-5, "metrics": ()}
    given = {"clients": loaders(), **turns, **options}
    return Federation(lambda: torch.nn.Linear(4, 2), privacy=list(layers), **given)


@pytest.mark.filterwarnings("ignore:.*drown")
@pytest.mark.parametrize("masked", [False, True])
def test_groups_take_turns_and_the_whole_costs_what_was_asked(masked: bool) -> None:
    outcome = federation(banded(), *([SecAgg()] if masked else []), strategy=FedAvgM(0.5)).fit(12)
    groups = [set(result.asked) for result in outcome.history]
    assert groups[:4] == groups[4:8] == groups[8:]
    assert sorted(name for group in groups[:4] for name in group) == sorted(map(str, range(CLIENTS)))
    prices = [result.guarantees[0].epsilon for result in outcome.history]
    assert prices[0] == prices[3] < prices[4] == prices[7] < prices[8] == prices[11]
    assert 7.9 < prices[-1] <= 8
    (line,) = outcome.guarantees
    assert (line.unit, line.relation, line.adversary) == ("client", "zero-out", "clients")
    rows = [from_fact(event) for event in outcome.statement.events]
    assert [row.row for row in rows if isinstance(row, CorrelatedRow)] == list(range(1, 13))
    assert "correlated over rounds, 4 between two of one client" in " ".join(outcome.statement.layers)


@pytest.mark.filterwarnings("ignore:.*drown")
@pytest.mark.parametrize(("clients", "groups"), [(11, 3), (7, 2), (10, 3)])
def test_groups_of_unlike_sizes_take_turns_whole(clients: int, groups: int) -> None:
    layer = banded(noise_multiplier=1e-6, epsilon=None, clip=100.0, min_separation=groups)
    run = federation(layer, SecAgg(), clients=loaders()[:clients], fraction=1 / groups)
    history = run.fit(2 * groups).history
    assert not any(result.abandoned for result in history)
    assert [result.survivors for result in history] == [result.asked for result in history]
    assert {len(result.asked) for result in history} == {clients // groups, -(-clients // groups)}
    turns = [set(result.asked) for result in history[:groups]]
    assert sorted(name for turn in turns for name in turn) == sorted(map(str, range(clients)))


@pytest.mark.filterwarnings("ignore:.*drown")
def test_devices_come_by_themselves_and_none_too_early() -> None:
    run = federation(banded(participations=2), sampling="arrivals", fraction=0.7, seed=1)
    history = run.fit(14).history
    for name in map(str, range(CLIENTS)):
        rows = [result.number for result in history if name in result.asked]
        assert 0 < len(rows) <= 2
        assert all(later - row >= 4 for row, later in itertools.pairwise(rows))
    assert history[-1].guarantees[0].epsilon <= 8
    assert not any(result.refusals for result in history)  # who may not come does not ask


@pytest.mark.filterwarnings("ignore:.*drown")
@pytest.mark.parametrize("stopped", [None, 2])
def test_the_server_asks_nobody_whom_its_own_totals_forbid(tmp_path: Path, stopped: int | None) -> None:
    """Every client's store is put back, empty, after every round: what is left is what the server knows, also of the
    rounds before it was stopped. The price is of rows that are 4 apart, at most 2 of a client.
    """

    def made() -> Federation:
        layer = banded(participations=2)
        return federation(layer, sampling="arrivals", fraction=1.0, seed=1, output=tmp_path / "run")

    def put_back(run: Federation, last: int | None) -> Any:
        def after(result: Any) -> bool:
            assert isinstance(run.engine, MemoryEngine)
            run.engine.stores.clear()
            return result.number != last

        return after

    run = made()
    run.fit(14, on_round=put_back(run, stopped))
    if stopped is not None:
        run = made()
        run.fit(14, resume=True, on_round=put_back(run, None))
    history = run.result.history
    for name in map(str, range(CLIENTS)):
        assert [result.number for result in history if name in result.survivors] == [1, 5]
        assert [result.number for result in history if name in result.asked] == [1, 5]


@pytest.mark.filterwarnings("ignore:.*drown")
def test_a_client_asked_too_early_refuses_and_sends_nothing() -> None:
    """The server breaks its own plan: the same groups are asked in every round."""
    run = federation(banded())
    run.coordinator.choose = lambda number: ("0", "1", "2")  # type: ignore[method-assign]  # the server's lie
    first, second, *_, fifth = run.fit(5).history
    assert first.survivors == ("0", "1", "2")
    assert (second.survivors, bool(second.abandoned)) == ((), True)
    assert "row 5 at the earliest" in second.refusals["0"]
    assert fifth.survivors == ("0", "1", "2")


@pytest.mark.filterwarnings("ignore:.*drown")
def test_an_abandoned_row_is_consumed_and_the_others_decode() -> None:
    run = federation(banded(noise_multiplier=1e-6, epsilon=None, clip=100.0), RefusesOnce(2), SecAgg())
    history = run.fit(8).history
    assert [bool(result.abandoned) for result in history] == [False, True] + 6 * [False]
    layer = run.setup.stack.layers[0]
    assert sorted(layer.state()) == []  # after the last row nobody needs any
    clear = federation(RefusesOnce(2), SecAgg()).fit(8)
    for mine, theirs in zip(run.model.parameters(), clear.model.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-2)  # hardly any noise: the same models


def the_digest_of_a_checkpoint_with_secrets_says_nothing_of_them(folder: Path) -> None:
    """Who knew all but the exact sums could try those against the public record's digest of the file."""
    run = load_run(folder)
    assert run is not None
    assert run.secrets
    assert encode(run) != encode(run)
    bare = replace(run, layers={})
    assert encode(bare) == encode(bare)


@pytest.mark.filterwarnings("ignore:.*drown")
def test_a_run_goes_on_with_its_rows_and_their_secrets_lie_in_a_file_of_the_owner(tmp_path: Path) -> None:
    def made() -> Federation:
        return federation(banded(), output=tmp_path)

    made().fit(12, on_round=lambda result: result.number < 6)
    assert (tmp_path / "checkpoint.npz").stat().st_mode & 0o777 == 0o600
    the_digest_of_a_checkpoint_with_secrets_says_nothing_of_them(tmp_path)
    again = made()
    outcome = again.fit(12, resume=True)
    assert len(outcome.history) == 12
    assert not any(result.abandoned for result in outcome.history)
    assert 7.9 < outcome.guarantees[0].epsilon <= 8
    assert isinstance(again.engine, MemoryEngine)


@pytest.mark.filterwarnings("ignore:.*drown")
def test_a_run_goes_on_with_the_rows_it_was_planned_for_and_no_more(tmp_path: Path) -> None:
    """Another length is another C', and kept sums would enter rows that nobody was charged for."""

    def made() -> Federation:
        return federation(banded(noise_multiplier=1.0, epsilon=None), output=tmp_path)

    made().fit(6, on_round=lambda result: result.number < 2)
    with pytest.raises(Misuse, match="'rounds': 6"):
        made().fit(12, resume=True)


@pytest.mark.filterwarnings("ignore:.*drown")
@pytest.mark.parametrize("distributed", [False, True])
def test_one_layer_in_two_federations_is_refused_while_it_holds_rows_of_the_first(
    tmp_path: Path, distributed: bool
) -> None:
    """Before anything of the second is charged; the first goes on, and when it is over nothing is held any more."""
    turns = DistributedDP(noise_multiplier=1.0, correlation="banded", batches=4, epochs=2, even_so=True)
    layer, plan = (turns, {"sampling": "fixed", "fraction": 1.0}) if distributed else (banded(), {})
    first = federation(layer, SecAgg(), output=tmp_path, **plan)
    second = federation(layer, SecAgg(), **plan)
    first.fit(8, on_round=lambda result: result.number < 3)
    with pytest.raises(Misuse, match="a layer of its own"):
        second.fit(8)
    assert not second.account.events
    assert len(first.fit(8, resume=True).history) == 8
    assert not any(result.abandoned for result in second.fit(8).history)


@pytest.mark.filterwarnings("ignore:.*drown")
def test_a_clients_own_ledger_is_charged_for_its_own_rows(tmp_path: Path) -> None:
    own = Ledger(tmp_path / "own", epsilon=20.0, delta=1e-5, accountant="rdp")
    layer = banded(noise_multiplier=2.0, epsilon=None, ledger={"0": own}.get)
    outcome = federation(layer).fit(12)
    mine = [result.number for result in outcome.history if "0" in result.asked]
    assert [entry.round for entry in own.entries()] == mine
    assert own.epsilon() == pytest.approx(outcome.guarantees[0].epsilon)


@pytest.mark.filterwarnings("ignore:.*drown")
def test_a_budget_for_two_participations_ends_at_the_third(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "run", epsilon=9.0, delta=1e-5, accountant="rdp")
    run = federation(banded(noise_multiplier=0.8, epsilon=None), ledger=ledger)
    with pytest.raises(BudgetExceeded):
        run.fit(12)
    assert {entry.round for entry in ledger.entries()} == set(range(1, len(ledger.entries()) + 1))
    assert len(ledger.entries()) in (4, 8)  # a row that begins another participation is one too much


def test_the_models_noise_is_that_of_the_strategy() -> None:
    """12 rows of 2^14 values: the variance of every prefix sum, relative sd 1.1 %; held to 8 %, 7 sd."""
    rounds, dims = 12, 2**14
    layer = banded(epsilon=None, noise_multiplier=1.5)
    run = RunFacts(rounds, 12, 3, "cyclic", 0.25, dimension=dims, delta=1e-5)
    stack = Stack([layer])
    stack.plan(run)
    whole, variances = np.zeros(dims), []
    for row in range(1, rounds + 1):
        names = tuple(f"{row % 4}/{i}" for i in range(3))
        public = RoundFacts(run, row, names, bytes(32), stack.public(), scope="run")
        plan = stack.round(public, np.zeros(dims))
        total = np.zeros(plan.dimension, np.int64)
        for name in names:
            own = replace(public, client=name, store=MemoryStore(), random=SystemRandom())
            total += plan.encode(Contribution(np.zeros(dims), 1), own)
        whole += plan.decode(total, names).vector
        variances.append(float(whole.var()))
    assert layer.correlation is not None
    strategy = layer.correlation.strategy(rounds)
    inverse = np.linalg.inv(strategy.matrix().astype(float))
    expected = (np.tril(np.ones((rounds, rounds))) @ inverse * strategy.norm * 1.5) ** 2
    assert plan.summed.l2 is not None
    scale = plan.summed.l2**2
    np.testing.assert_allclose(variances, expected.sum(axis=1) * scale, rtol=0.08)
    assert variances[-1] < 0.6 * rounds * 1.5**2 * scale  # independent noise of the same price


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"clip": "adaptive"}, "fixed for the run"),
        ({"amplify": True}, "no amplification"),
        ({"min_separation": None}, "min_separation"),
        ({"min_separation": 1}, "gains nothing"),
        ({"bands": 5}, "beyond the separation"),
        ({"correlation": "tree"}, "banded"),
        ({"correlation": None}, "are for correlation"),
    ],
)
def test_what_cannot_be_correlated_is_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(Misuse, match=why):
        banded(**options)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"sampling": "fixed"}, "asks them earlier"),
        ({"sampling": "poisson"}, "asks them earlier"),
        ({"fraction": 1.0, "sampling": "fixed"}, "asks them earlier"),
        ({"fraction": 0.5}, "cyclic asks them earlier"),
    ],
)
def test_a_plan_that_asks_too_early_is_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(Misuse, match=why):
        federation(banded(), **options).fit(12)


@pytest.mark.parametrize("distributed", [False, True])
def test_several_sums_a_round_are_refused(distributed: bool) -> None:
    """Each would carry what the others opened before: a client of the last group would enter every group's rows."""
    turns = DistributedDP(
        noise_multiplier=1.0, correlation="banded", batches=2, epochs=2, even_so=True, min_survivors=2
    )
    layer, options = (turns, {"sampling": "fixed", "fraction": 1.0}) if distributed else (banded(), {})
    with pytest.raises(StackError, match=f"makes 3 sums a round, and {layer.name}.* correlated noise"):
        federation(layer, SecAgg(), strategy=GroupMedian(3), **options).fit(4)


def test_turns_amplify_nothing() -> None:
    with pytest.raises(StackError, match="chosen otherwise: cyclic"):
        federation(ClientDP(epsilon=8, amplify=True)).fit(2)


def test_further_blocks_are_refused() -> None:
    run = RunFacts(12, 12, 3, "cyclic", 0.25, dimension=8, blocks=(Block("control", 8, clip=1.0),))
    with pytest.raises(StackError, match="the update alone"):
        Stack([banded()]).plan(run)


def test_replacement_costs_four_times_rho() -> None:
    found = [banded(relation=relation) for relation in ("zero-out", "replace")]
    run = RunFacts(12, 12, 3, "cyclic", 0.25, dimension=8, delta=1e-5)
    one, two = (layer._multiplier(run) for layer in found)
    assert math.isclose(two, 2 * one, rel_tol=1e-4)
