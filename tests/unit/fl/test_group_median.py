"""A median over the means of groups: who is in which, what their sums tell, masks, noise and groups too small."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dp import ClientDP, DistributedDP
from fl import FedAvg, GroupMedian
from fl.dropouts import by_stage
from protocols.errors import Misuse, StackError
from secagg import SecAgg, SecAggPlus
from tests.deterministic import DeterministicRandom
from tests.unit.fl.robust_rig import MANY, at, federation


def median_of(means: list[np.ndarray]) -> np.ndarray:
    """The reference: the middle value of each coordinate, by sorting."""
    ordered = np.sort(np.array(means), axis=0)
    low, high = (len(means) - 1) // 2, len(means) // 2
    return (ordered[low] + ordered[high]) / 2


@pytest.mark.parametrize("groups", [3, 4])
def test_the_median_is_over_the_means_of_groups_that_nobody_chose(groups: int) -> None:
    drawn: list[dict[str, tuple[str, ...]]] = []

    class Seen(GroupMedian):
        def moves(self, means: Any) -> Any:
            drawn.append({name: mean.survivors for name, mean in means.items()})
            return super().moves(means)

    (run := federation(Seen(groups), [SecAgg()], MANY, range=128.0)).fit(1)
    assert sorted(name for group in drawn[0].values() for name in group) == sorted(str(k) for k in range(13))
    means = [MANY[[int(name) for name in group]].mean(0) for group in drawn[0].values()]
    assert at(run) == pytest.approx(median_of(means), abs=1e-3)
    assert np.abs(at(run)).max() < 1.2, "one client of nine moves one group"


def test_groups_are_drawn_once_and_their_sums_of_all_rounds_tell_no_more_than_those_of_one() -> None:
    """Groups drawn anew gave the server as many equations as clients after four rounds of twelve."""
    names = tuple(f"{k:02}" for k in range(40))
    strategies = [GroupMedian(4) for _ in range(8)]
    again = GroupMedian(4)
    again.sums(names, 1)
    for strategy in strategies:
        rows = [
            [name in group for name in names]
            for number in range(1, 9)
            for group in strategy.sums(names, number).values()
        ]
        assert np.linalg.matrix_rank(np.array(rows, float)) == 4
        assert set(np.sum(rows, axis=1)) == {10}
        again.restore(strategy.state())
        assert again.sums(names, 9) == strategy.sums(names, 9), "a run that goes on keeps its groups"
    assert len({tuple(strategy.sums(names, 1).values()) for strategy in strategies}) == 8
    kept = strategies[0].sums(names[:30], 9).values()
    assert sorted(map(len, kept)) == [7, 7, 8, 8], "whoever is asked is dealt evenly"


def test_sums_that_opened_in_an_abandoned_round_are_told_and_counted(tmp_path: Path) -> None:
    run = federation(GroupMedian(3), [], MANY[1:], output=tmp_path)

    def leave(protocol: Any, session: Any) -> Any:
        # two of the first group, three of the last
        gone = session.roster[: {1: 2, 3: 3}.get(session.round, 0)]
        return set(gone), by_stage(protocol, session, 0, dict.fromkeys(gone, False))

    run.engine.departures = leave  # type: ignore[attr-defined]
    result = run.fit(2)
    assert [entry.abandoned is None for entry in result.history] == [False, True]
    assert "2 of its 3 sums had been opened" in (result.history[0].abandoned or "")
    assert "2 were the fewest so far" in str(result.statement)


def test_the_protection_told_is_that_of_the_smallest_group() -> None:
    many = np.linspace(0, 1, 28)[:, None] * np.ones(2)
    run = federation(GroupMedian(3), [SecAggPlus()], many)
    run.fit(1)
    protocol = SecAggPlus()
    assert protocol.withstands(10) > protocol.withstands(9)
    assert "of the 9 clients" in run.protection.collusion  # type: ignore[union-attr]


def criterion_of_mine(model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
    """A loop that a layer may take over."""


def test_several_sums_are_refused_where_a_price_or_a_mean_counts_on_one() -> None:
    hidden = ClientDP(noise_multiplier=1.0, amplify=True)
    run = federation(GroupMedian(3), [hidden], MANY, fraction=0.5, sampling="poisson")
    with pytest.raises(StackError, match="their sizes would tell who was chosen"):
        run.fit(1)
    by_example = DistributedDP(noise_multiplier=1.0, unit="example", sample_rate=0.5, examples=13)
    run = federation(GroupMedian(3), [by_example, SecAgg()], MANY, train=criterion_of_mine)
    with pytest.raises(StackError, match="divides each by the examples of all clients"):
        run.fit(1)


def test_the_median_under_masks_is_that_of_the_plain_sum_bit_for_bit() -> None:
    models = []
    for layers in ([], [SecAgg()], [SecAggPlus()]):
        strategy = GroupMedian(4, random=DeterministicRandom(5))
        (run := federation(strategy, layers, MANY, range=128.0, bits=16)).fit(2)
        models.append(at(run))
    assert np.array_equal(models[0], models[1])
    assert np.array_equal(models[0], models[2])


def test_the_statement_says_among_how_many_a_client_hides() -> None:
    statement = str(federation(GroupMedian(3), [SecAgg()], MANY, range=128.0).fit(1).statement)
    assert "hides among its group's survivors alone, at least 2; 4 were the fewest so far" in statement


def without_4(protocol: Any, session: Any) -> Any:
    return (), {"masked-input": [name for name in session.roster if name == "4"]}


def test_a_group_with_too_few_survivors_abandons_the_round() -> None:
    run = federation(GroupMedian(3, min_survivors=5), [SecAggPlus()], MANY[1:])
    with pytest.raises(
        Misuse, match="min_survivors=5, but the sum 'group-1' has 4 clients: no round could end"
    ):
        run.fit(1)
    run = federation(GroupMedian(3, min_survivors=4), [SecAggPlus()], MANY[1:])
    run.engine.departures = without_4  # type: ignore[attr-defined]
    (result,) = run.fit(1).history
    assert "4" in (result.abandoned or "")
    assert np.array_equal(at(run), [0, 0])
    with pytest.raises(Misuse, match="at least 2 in a group"):
        GroupMedian(3, min_survivors=1)


@pytest.mark.parametrize(
    "privacy", [[SecAgg()], [DistributedDP(noise_multiplier=1.0, min_survivors=3), SecAgg()]]
)
def test_a_round_whose_groups_are_too_small_is_abandoned_and_the_run_goes_on(privacy: list[Any]) -> None:
    run = federation(GroupMedian(3), privacy, MANY, fraction=0.75, sampling="poisson", seed=3)
    history = run.fit(8).history
    small = [len(result.asked) < 9 for result in history]
    assert [bool(result.abandoned) for result in history] == small
    assert len(set(small)) == 2, "some rounds ask enough clients, some do not"


@pytest.mark.parametrize("layer", [ClientDP, DistributedDP])
def test_each_groups_sum_is_noised_and_a_client_is_charged_for_its_own(layer: Any) -> None:
    def noised(strategy: Any, multiplier: float) -> Any:
        layers = [layer(noise_multiplier=multiplier, clip=200.0), SecAgg()]
        return federation(strategy, layers, MANY)

    (run := noised(GroupMedian(3), 1e-4)).fit(1)  # hardly any noise: the median of the groups' own means
    assert np.abs(at(run)).max() < 1.5
    grouped, whole = noised(GroupMedian(3), 5.0).fit(4), noised(FedAvg(), 5.0).fit(4)
    assert grouped.epsilon == pytest.approx(whole.epsilon, rel=0.05)
    uneven = noised(GroupMedian(4), 5.0).fit(4)
    assert uneven.epsilon == pytest.approx(whole.epsilon, rel=0.05)
