"""RFA: the smoothed Weiszfeld iteration by sums alone, its step of several rounds, and what clients believe of one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dp import ClientDP, DistributedDP, LocalDP, SampleDP
from fl import RFA, FedAvg
from protocols.errors import Misuse, ProtocolViolation, SpentUpdate, StackError
from secagg import SecAgg, SecAggPlus
from tests.unit.fl.robust_rig import TARGETS, TWICE, at, federation, shown, wander, weiszfeld


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
