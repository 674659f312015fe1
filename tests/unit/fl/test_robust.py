"""Robust aggregation by sums alone: a norm bound, RFA's median, the refusal of what needs single updates."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import fl
from dp import ClientDP, DistributedDP, LocalDP, NormBound, SampleDP
from fl import RFA, FedAvg, Federation, GroupMedian
from fl.dropouts import by_stage
from fl.registry import STRATEGIES
from fl.round import Broadcast
from protocols import PlainSum
from protocols.errors import Misuse, ProtocolViolation, SpentUpdate, StackError
from protocols.policy import Policy
from protocols.stack import Stack
from secagg import SecAgg, SecAggPlus
from tests.deterministic import DeterministicRandom

AGAIN = Policy(min_cohort=1, min_survivors=1, allow_resend=True)
TARGETS = np.array([[0.0, 0.0], [0.2, 0.1], [0.1, -0.2], [-0.1, 0.1], [8.0, 9.0]])
"""Where the clients' training ends: four agree, one does not."""
TWICE = np.concatenate([TARGETS, TARGETS])


class Point(torch.nn.Module):
    """A model of one vector."""

    def __init__(self) -> None:
        super().__init__()
        self.at = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))


def go(model: Any, loader: Any, optimizer: Any) -> None:
    """Train at once to where this client's data is."""
    with torch.no_grad():
        model.at.copy_(loader.dataset.tensors[0][0])


def wander(model: Any, loader: Any, optimizer: Any, round: int) -> None:
    """The same, with every round at another place: two trainings make two updates."""
    go(model, loader, optimizer)
    with torch.no_grad():
        model.at += 0.1 * round


def federation(
    strategy: Any, privacy: Any = (), targets: Any = TARGETS, train: Any = go, **options: Any
) -> Federation:
    clients = [DataLoader(TensorDataset(torch.tensor(row)[None])) for row in targets]
    given = {"policy": AGAIN, "metrics": (), "bits": 24, "range": None, **options}
    return Federation(Point, clients, train, strategy, privacy, **given)


def at(run: Federation) -> np.ndarray:
    return np.array(run.model.at.detach().numpy())


def weiszfeld(points: np.ndarray, radius: float, iterations: int) -> np.ndarray:
    """The reference: equation 9 of the paper, its weights scaled by the radius."""
    v = np.zeros(points.shape[1])
    for _ in range(iterations):
        w = 1 / np.maximum(radius, np.linalg.norm(points - v, axis=1))
        v = (w[:, None] * points).sum(0) / w.sum()
    return v


# -- RFA --


@pytest.mark.parametrize("iterations", [1, 3, 8])
def test_rfa_is_the_smoothed_weiszfeld_iteration(iterations: int) -> None:
    run = federation(RFA(0.3, iterations))
    run.fit(iterations)
    assert at(run) == pytest.approx(weiszfeld(TARGETS, 0.3, iterations), abs=1e-5)


def test_rfa_ends_at_the_geometric_median_and_the_mean_does_not() -> None:
    (robust := federation(RFA(0.05, 40))).fit(40)
    (mean := federation(FedAvg(), range=16.0)).fit(1)
    objective = lambda v: np.linalg.norm(TARGETS - v, axis=1).sum()  # noqa: E731 - one line
    near = [objective(at(robust) + step) for step in 0.1 * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])]
    assert objective(at(robust)) < min(near)
    assert np.linalg.norm(at(robust)) < 0.2 < 2 < np.linalg.norm(at(mean))


def test_a_client_pulls_by_no_more_than_the_radius_wherever_it_is() -> None:
    for far in (10.0, 1e6):
        targets = np.array([[0.0, 0.0]] * 4 + [[far, 0.0]])
        (run := federation(RFA(0.1, 1, damped=True), targets=targets)).fit(1)
        assert at(run) == pytest.approx([0.1 / 5, 0], abs=1e-6)


@pytest.mark.parametrize("damped", [False, True])
def test_rfa_under_masks_is_that_of_the_plain_sum_bit_for_bit(damped: bool) -> None:
    models = []
    for layers in ([], [SecAgg()], [SecAggPlus()]):
        (run := federation(RFA(0.3, 3, damped), layers, TWICE, bits=16)).fit(5)
        models.append(at(run))
    assert np.array_equal(models[0], models[1])
    assert np.array_equal(models[0], models[2])


def test_a_step_trains_once_and_sends_again() -> None:
    trained: list[int] = []

    def loop(model: Any, loader: Any, optimizer: Any, round: int) -> None:
        trained.append(round)
        wander(model, loader, optimizer, round)

    federation(RFA(0.3, 3), train=loop).fit(7)
    assert trained == [1] * 5 + [4] * 5 + [7] * 5


def test_a_steps_clients_are_those_of_its_first_round() -> None:
    run = federation(RFA(0.3, 3), train=wander, fraction=0.6, seed=4)
    asked = [result.asked for result in run.fit(9).history]
    assert [asked[k] == asked[k - k % 3] for k in range(9)] == [True] * 9
    assert len(set(asked)) > 1


def test_who_leaves_ends_the_step_and_no_total_opens_without_it() -> None:
    run = federation(RFA(0.3, 4), [SecAggPlus(dropout=0.3)], TWICE, train=wander)
    gone = {3: "masked-input"}  # in the step's third round, after two sums of all

    def leave(protocol: Any, session: Any) -> Any:
        stage = gone.get(session.round)
        return (), {stage: ["1"]} if stage else {}

    run.engine.departures = leave  # type: ignore[attr-defined]
    moves: list[np.ndarray] = []
    history = run.fit(6, on_round=lambda result: moves.append(at(run))).history
    assert [bool(result.abandoned) for result in history] == [False, False, True, False, False, False]
    assert np.array_equal(moves[1], moves[2]), "the model stays at the point that was reached"
    assert [len(result.survivors) for result in history] == [10, 10, 0, 10, 10, 10]


def test_a_stopped_step_goes_on_to_the_same_model(tmp_path: Path) -> None:
    federation(RFA(0.3, 3), [SecAgg()], TWICE, output=tmp_path).fit(2)
    (again := federation(RFA(0.3, 3), [SecAgg()], TWICE, output=tmp_path)).fit(5, resume=True)
    (whole := federation(RFA(0.3, 3), [SecAgg()], TWICE)).fit(5)
    assert np.array_equal(at(again), at(whole))


def test_sending_again_needs_the_clients_policy() -> None:
    with pytest.raises(Misuse, match=r"allow_resend=True"):
        federation(RFA(), policy=None).fit(1)


def test_the_statement_names_every_iterations_sum_and_each_is_charged() -> None:
    layer = ClientDP(noise_multiplier=1.0, clip=0.3)
    result = federation(RFA(0.3, 3, damped=True), [layer, SecAgg()]).fit(6)
    assert "the server sees the sum of every iteration, each is charged" in str(result.statement)
    once = federation(FedAvg(), [ClientDP(noise_multiplier=1.0, clip=0.3), SecAgg()]).fit(6)
    assert result.epsilon == once.epsilon, "a round is charged as any other"


def test_damped_rfa_is_never_clipped_at_its_radius() -> None:
    layer = ClientDP(noise_multiplier=1e-9, clip=0.3)
    (run := federation(RFA(0.3, 4, damped=True), [layer])).fit(4)
    v = np.zeros(2)
    for _ in range(4):
        away = TARGETS - v
        v = v + (away * np.minimum(1, 0.3 / (np.linalg.norm(away, axis=1) + 1e-99))[:, None]).mean(0)
    assert at(run) == pytest.approx(v, abs=1e-5)


def test_rfa_beside_noise_noises_weights_too_or_says_what_to_do() -> None:
    (run := federation(RFA(0.3, 3), [ClientDP(noise_multiplier=1e-7, clip=0.3), SecAgg()])).fit(3)
    assert at(run) == pytest.approx(weiszfeld(TARGETS, 0.3, 3), abs=1e-3)
    with pytest.raises(StackError, match="distributed-dp shares one grid between vectors of one length"):
        federation(RFA(), [DistributedDP(noise_multiplier=1.0), SecAgg()]).fit(1)
    federation(RFA(0.5, 2, damped=True), [DistributedDP(noise_multiplier=1.0), SecAgg()]).fit(2)
    with pytest.raises(StackError, match="rfa cannot stand beside it: it sends an update again"):
        federation(RFA(damped=True), [SampleDP(noise_multiplier=1.0)])


def shown(run: Federation, number: int, step: int) -> Broadcast:
    public = {"rfa": {"step": float(step)}, "closed": dict.fromkeys(run.setup.names, float(number - 1))}
    return run.coordinator.open(number, run.setup.names, public)


def test_a_client_sends_no_update_to_one_point_twice_and_believes_no_steps() -> None:
    run = federation(RFA(0.3, 3))
    run.fit(1)
    work, store = run.engine.work, run.engine.stores["0"]  # type: ignore[attr-defined]
    run.coordinator.run = replace(run.coordinator.run, rounds=9)  # type: ignore[type-var]
    again = shown(run, 2, 1)
    work(again, again.own("0", store))
    work(again, again.own("0", store))  # all of the same clients or nobody: the same sum
    for name in store.names("point/"):
        store.put(name, b"others")
    with pytest.raises(SpentUpdate, match="this update left for this point"):
        work(again, again.own("0", store))
    for number, step in ((2, 3), (9, 2)):
        told = shown(run, number, step)
        with pytest.raises(ProtocolViolation):
            work(told, told.own("0", store))


def test_every_client_insists_on_all_survivors_of_the_step() -> None:
    run = federation(RFA(0.3, 3), [SecAgg()], TWICE)
    run.fit(1)
    run.coordinator.run = replace(run.coordinator.run, rounds=9)  # type: ignore[type-var]
    assert shown(run, 1, 1).plan.min_survivors == 6, "twice as many as there are sums of one update"
    assert shown(run, 2, 1).plan.min_survivors == 10


def test_no_step_has_as_many_sums_as_clients_where_a_secure_sum_alone_hides_updates() -> None:
    """Three sums of three clients' updates, weights known functions of them, were solved for every one."""
    for damped in (False, True):
        with pytest.raises(StackError, match="would tell single updates among fewer than 6"):
            federation(RFA(0.3, 3, damped), [SecAgg()]).fit(1)
    federation(RFA(0.3, 2), [SecAgg()]).fit(1)
    federation(RFA(0.3, 3), [ClientDP(noise_multiplier=1.0), SecAgg()]).fit(1)  # priced
    run = federation(RFA(0.3, 5), [SecAggPlus(dropout=0.3)], TWICE)
    run.engine.departures = lambda protocol, session: ((), {"masked-input": ["3"]})  # type: ignore[attr-defined]
    assert run.fit(1).history[0].abandoned, "nine are fewer than twice five"


@pytest.mark.parametrize(
    ("strategy", "layer"),
    [
        (RFA(0.3, 2), ClientDP(noise_multiplier=1e-3)),
        (RFA(0.3, 2, damped=True), ClientDP(noise_multiplier=1e-3)),
        (RFA(0.3, 2, damped=True), DistributedDP(noise_multiplier=1.0)),
        (RFA(0.3, 2, damped=True), LocalDP(noise_multiplier=1.0)),
    ],
)
@pytest.mark.parametrize("broken", [np.nan, np.inf, 1e200])
def test_a_broken_update_counts_as_zero_beside_noise_and_ends_nothing(
    strategy: Any, layer: Any, broken: float
) -> None:
    targets = np.array(TARGETS)
    targets[2, 0] = broken
    run = federation(strategy, [layer], targets)
    for result in run.fit(2).history:
        assert (len(result.survivors), result.refusals, result.abandoned) == (5, {}, None)
    assert np.isfinite(at(run)).all()


@pytest.mark.parametrize("options", [{"radius": 0.0}, {"radius": float("inf")}, {"iterations": 0}])
def test_numbers_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(Misuse):
        RFA(**options)


# -- a median over groups --


def median_of(means: list[np.ndarray]) -> np.ndarray:
    """The reference: the middle value of each coordinate, by sorting."""
    ordered = np.sort(np.array(means), axis=0)
    low, high = (len(means) - 1) // 2, len(means) // 2
    return (ordered[low] + ordered[high]) / 2


MANY = np.array([[0.1 * k, -0.1 * k] for k in range(12)] + [[50.0, -80.0]])
"""Thirteen clients, the last of whom lies."""


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
        gone = session.roster[
            : {1: 2, 3: 3}.get(session.round, 0)
        ]  # two of the first group, three of the last
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


# -- the norm bound --


@pytest.mark.parametrize("layers", [[], [SecAgg()], [SecAggPlus()]])
def test_a_norm_bound_is_a_clip_of_every_update(layers: list[Any]) -> None:
    (run := federation(FedAvg(), [NormBound(0.25), *layers])).fit(1)
    norms = np.linalg.norm(TARGETS, axis=1)
    clipped = TARGETS * np.minimum(1, 0.25 / np.maximum(norms, 1e-300))[:, None]
    assert at(run) == pytest.approx(clipped.mean(0), abs=1e-6)


def test_a_norm_bound_claims_no_privacy() -> None:
    result = federation(FedAvg(), [NormBound(0.25), SecAgg()]).fit(2)
    assert (result.epsilon, result.guarantees) == (None, ())
    assert "robust, not private" in str(result.statement)
    assert "the sum itself may reveal an update" in str(result.statement)


def test_a_norm_bound_goes_before_noise_and_changes_nothing_of_its_price() -> None:
    def layers(*first: Any) -> list[Any]:
        return [*first, ClientDP(noise_multiplier=1.0, clip=0.5), SecAgg()]

    bounded, plain = (federation(FedAvg(), layers(*first)).fit(2) for first in ([NormBound(0.25)], []))
    assert bounded.epsilon == plain.epsilon
    with pytest.raises(StackError, match="before the layer that makes integers"):
        federation(FedAvg(), [DistributedDP(noise_multiplier=1.0), NormBound(), SecAgg()]).fit(1)
    with pytest.raises(Misuse, match="bound > 0"):
        NormBound(0.0)


# -- what no sum carries --


@pytest.mark.parametrize(
    "name", ["krum", "multi-krum", "Trimmed_Mean", "median", "coordinate-median", "bulyan"]
)
def test_what_needs_single_updates_is_refused_by_name_with_the_nearest_alternative(name: str) -> None:
    with pytest.raises(Misuse, match=rf"{name} needs single updates: .* take .*(rfa|group-median)"):
        STRATEGIES.build(name)


def test_what_needs_single_updates_is_refused_in_python_too() -> None:
    with pytest.raises(Misuse, match="Krum needs single updates"):
        fl.Krum  # noqa: B018  # the look-up is what is tried
    assert not hasattr(fl, "Nonsense")


def test_rfa_is_built_by_its_name() -> None:
    made = STRATEGIES.build("rfa:radius=0.2,iterations=4,damped=true")
    assert (made.radius, made.iterations, made.damped) == (0.2, 4, True)  # type: ignore[attr-defined]
    assert isinstance(Stack([NormBound(), PlainSum()]).layers[0], partial(NormBound).func)
