"""The strategy C', its dearest pattern and its price: known answers, brute force, exact enumeration of three rows."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dp.accountants import accountant
from dp.correlated.patterns import dearest, sensitivity
from dp.correlated.price import Banded, sentence
from dp.correlated.strategy import (
    LOSS,
    StrategyMatrix,
    _root,
    _squares,
    error,
    gain,
    optimised,
    real,
    series,
)
from dp.events import CorrelatedRow, DiscreteGaussianSum, Event, Gaussian, Relation, Unit, repeat
from protocols.errors import Misuse

STATEMENT = {"unit": Unit.EXAMPLE, "relation": Relation.ZERO_OUT}
KNOWN = [(50, 10, 5, 0.47), (100, 10, 10, 0.42), (200, 20, 10, 0.32), (400, 50, 8, 0.23)]
"""Rounds, separation, participations, RMSE over independent noise: BandMF's published code gives these."""


@pytest.mark.parametrize(("rounds", "separation", "participations", "known"), KNOWN)
def test_the_published_gain_with_integers(
    rounds: int, separation: int, participations: int, known: float
) -> None:
    strategy = optimised(rounds, separation)
    assert gain(strategy) <= known + 0.005
    assert gain(strategy) >= known - 0.01  # better than the best known would be a mistake of ours
    assert Banded(rounds, separation, participations).times == participations
    lost = (
        gain(strategy)
        / error(np.array(real(rounds, separation)), series(rounds))
        * error(np.ones(1), series(rounds))
    )
    assert 1 <= lost < 1 + LOSS
    assert max(strategy.coefficients) < 2 ** (5 if rounds == 400 else 4)


def test_the_error_is_that_of_the_matrices() -> None:
    rounds, momentum, decay = 12, 0.5, 0.9
    strategy = optimised(rounds, 4, momentum, decay)
    steps = np.eye(rounds)
    velocity, model, columns = np.zeros((rounds,)), np.zeros((rounds,)), []
    for step in steps:  # each model as a combination of the gradients
        velocity = momentum * velocity + step
        model = decay * model + velocity
        columns.append(model)
    whole = np.array(columns) @ np.linalg.inv(strategy.matrix().astype(float)) * strategy.norm
    assert error(np.array(strategy.coefficients, float), series(rounds, momentum, decay)) == pytest.approx(
        math.sqrt((whole**2).sum() / rounds)
    )
    independent = math.sqrt((np.array(columns) ** 2).sum() / rounds)
    assert gain(strategy, momentum, decay) == pytest.approx(
        math.sqrt((whole**2).sum() / rounds) / independent
    )


def test_the_search_begins_at_the_root_and_follows_the_slope() -> None:
    """The best full C for prefix sums is their power series' root: 1, 1/2, 3/8, 5/16."""
    root = _root(series(6))
    assert root[:4].tolist() == [1, 1 / 2, 3 / 8, 5 / 16]
    np.testing.assert_allclose(np.convolve(root, root)[:6], np.ones(6))
    bands, workload, small = np.array([1.0, 0.4, 0.2]), series(7, 0.5, 0.9), 1e-6
    _, slope = _squares(bands, workload)
    for place, move in enumerate(np.eye(3) * small):
        up, down = _squares(bands + move, workload)[0], _squares(bands - move, workload)[0]
        assert slope[place] == pytest.approx((up - down) / (2 * small), rel=1e-6)


def test_weighting_by_momentum_gains() -> None:
    assert gain(optimised(100, 10, 0.9), 0.9) < 0.95 * gain(optimised(100, 10), 0.9)


def test_separation_one_gains_nothing() -> None:
    assert Banded(100, 1).to_json()["rmse_over_independent"] == pytest.approx(1.0)
    assert Banded(100, 1, bands=4).to_json()["rmse_over_independent"] > 0.99


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=9), st.integers(1, 5), st.integers(1, 4))
def test_the_dearest_pattern_by_brute_force(costs: list[int], separation: int, most: int) -> None:
    patterns = (
        rows
        for size in range(most + 1)
        for rows in itertools.combinations(range(len(costs)), size)
        if all(b - a >= separation for a, b in itertools.pairwise(rows))
    )
    assert dearest(costs, separation, most) == max(sum(costs[row] for row in rows) for rows in patterns)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-5, 5), max_size=4), st.integers(1, 4), st.integers(1, 3))
def test_no_signs_of_any_pattern_move_more(rest: list[int], separation: int, most: int) -> None:
    matrix = StrategyMatrix((6, *rest), 7).matrix().astype(float)
    bound = sensitivity(matrix, separation, most)
    exact = 0.0
    for size in range(1, most + 1):
        for rows in itertools.combinations(range(7), size):
            if any(b - a < separation for a, b in itertools.pairwise(rows)):
                continue
            for signs in itertools.product((-1.0, 1.0), repeat=size):
                exact = max(exact, float(np.linalg.norm(matrix[:, list(rows)] @ signs)))
    assert exact <= bound * (1 + 1e-12)
    if 1 + len(rest) <= separation:  # disjoint supports: what is charged is what can happen
        assert bound == pytest.approx(exact)


def test_patterns_by_known_answers() -> None:
    assert dearest([], 3, 2) == 0
    assert dearest([1.0] * 41, 10, 9) == 5  # rows 1, 11, 21, 31 and 41
    assert dearest([1.0] * 40, 10, 9) == 4
    assert dearest([0.25], 1, 1) == 0.25
    for separation, participations in ((0, 1), (1, 0)):
        with pytest.raises(Misuse, match=r"(separation|participations): expected a whole number >= 1"):
            dearest([1.0], separation, participations)


def test_rows_that_meet_are_paid_for_together() -> None:
    """(1, 1, 1, 0, 0) + (0, 0, 1, 1, 1), and three columns of (2, 1, 1) two rows apart: (2, 1, 3, 1, 3, 1)."""
    three = StrategyMatrix((1, 1, 1), 5).matrix().astype(float)
    assert sensitivity(three, 2, 2) ** 2 == pytest.approx(8)
    assert sensitivity(three, 3, 2) ** 2 == pytest.approx(5)  # rows 1 and 4: the last column has two ones
    assert sensitivity(three, 2, 1) ** 2 == pytest.approx(3)
    assert sensitivity(np.eye(5), 3, 2) ** 2 == pytest.approx(2)
    rising = StrategyMatrix((1, 5), 3).matrix().astype(float)  # the last column is cut to its 1
    assert sensitivity(rising, 2, 2) ** 2 == pytest.approx(1 + 25 + 1)
    falling = StrategyMatrix((2, 1, 1), 6)
    assert sensitivity(falling.matrix().astype(float), 2, 3) ** 2 == pytest.approx(25)
    assert falling.matrix()[3].tolist() == [0, 1, 1, 2, 0, 0]
    assert falling.matrix().dtype == np.int64


@pytest.mark.parametrize(
    ("coefficients", "rounds", "right"),
    [
        ((1,), 1, True),
        ((1, -2), 3, True),
        ((), 3, False),
        ((0, 2), 3, False),
        ((-1,), 3, False),
        ((1,), 0, False),
    ],
)
def test_the_first_band_is_positive_and_there_is_a_row(
    coefficients: tuple[int, ...], rounds: int, right: bool
) -> None:
    if right:
        assert StrategyMatrix(coefficients, rounds).at(1, 1) == 1
        return
    with pytest.raises(Misuse, match=r"(coefficient 0 of C'|rounds): expected a whole number from 1"):
        StrategyMatrix(coefficients, rounds)


def test_the_servers_steps_by_hand() -> None:
    """v = 0.5 v + g, model = 0.9 model + v: 1; 0.9 + 0.5; 0.9 * 1.4 + 0.25."""
    np.testing.assert_allclose(series(3, 0.5, 0.9), [1, 1.4, 1.51])
    assert series(3).tolist() == [1, 1, 1]
    np.testing.assert_allclose(series(3, decay=0.5), [1, 0.5, 0.25])
    for momentum, decay in ((-0.1, 1.0), (1.0, 1.0), (0.0, 0.0), (0.0, 1.1)):
        with pytest.raises(Misuse, match=r"(momentum|decay): expected a number in"):
            series(3, momentum, decay)


def test_a_plan_in_numbers_and_in_words() -> None:
    """One band of the whole price is independent noise; more bands than the separation cost more than they gain."""
    plan = Banded(20, 4, 2, momentum=0.5, decay=0.9)
    told = plan.to_json()
    assert told.pop("rmse_over_independent") == pytest.approx(gain(plan.strategy, 0.5, 0.9))
    given_ = {"rounds": 20, "separation": 4, "momentum": 0.5, "decay": 0.9}
    assert told == {**given_, "participations": 2, "bands": 4, "bits": 4}
    wide = Banded(20, 4, 2, 6)
    ratio = wide.sensitivity / math.sqrt(2)
    assert ratio > 1
    assert wide.to_json()["rmse_over_independent"] == pytest.approx(gain(wide.strategy) * ratio)
    assert plan.event(3.0, Unit.CLIENT, Relation.REPLACE) == Gaussian(
        noise_multiplier=3 / math.sqrt(2), unit=Unit.CLIENT, relation=Relation.REPLACE
    )
    assert Banded(1, 1, 1, 1).to_json()["rmse_over_independent"] == pytest.approx(1)
    named = {"accountant": "rdp", "unit": "client", "relation": "zero-out", "rmse_over_independent": 0.41549}
    said = sentence(
        {**told, **named, "epsilon": 2.0, "delta": 1e-5, "noise_multiplier": 3.21234567, "participations": 7}
    )
    assert said == (
        "noise multiplier 3.21235 over 20 rows with 4 bands, separation 4, 7 participations: epsilon 2 at delta 1e-05 "
        "(rdp; per client, zero-out neighbours); the models' RMSE 0.415 times that of independent noise at the same "
        "price"
    )


def test_a_plans_noise_is_the_least_by_the_accountant_asked_for() -> None:
    plan = Banded(20, 4, 2)
    for name in ("rdp", "pld"):
        least = plan.multiplier(2.0, 1e-5, name, **STATEMENT)
        assert accountant(name).add(plan.event(least, **STATEMENT)).epsilon(1e-5) <= 2
        assert accountant(name).add(plan.event(least * 0.999, **STATEMENT)).epsilon(1e-5) > 2


def test_the_published_production_price() -> None:
    """Epsilon .994 at delta 1e-10: 2,000 rounds, 1,000 bands, separation 1,428, two participations."""
    plan = Banded(2000, 1428, 2, 1000)
    assert (plan.times, plan.sensitivity) == (2, math.sqrt(2))
    event = plan.event(8.3464, Unit.CLIENT, Relation.ZERO_OUT)
    assert accountant("pld").add(event).epsilon(1e-10) == pytest.approx(0.994, abs=5e-4)
    replaced = plan.event(2 * 8.3464, Unit.CLIENT, Relation.REPLACE)  # four times rho
    assert accountant("pld").add(replaced).epsilon(1e-10) == pytest.approx(0.994, abs=5e-4)


@pytest.mark.parametrize(
    "wrong", [{"rounds": 0}, {"separation": 0}, {"participations": -1}, {"bands": -2}, {"momentum": 1.0}]
)
def test_a_plan_of_nonsense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(Misuse, match="expected"):
        _ = Banded(**{"rounds": 10, "separation": 5, **wrong}).strategy  # type: ignore[arg-type]  # the case
    if "momentum" not in wrong:
        with pytest.raises(Misuse, match="expected a whole number from 1 to 1048576"):
            Banded(**{"rounds": 10, "separation": 5, **wrong})  # type: ignore[arg-type]  # the case


# -- rows in an account --


def _row(row: int, plan: str = "a", separation: int = 10, participations: int = 3) -> CorrelatedRow:
    once = Gaussian(noise_multiplier=5.0, **STATEMENT)
    return CorrelatedRow(
        event=once, plan=plan, row=row, separation=separation, participations=participations, **STATEMENT
    )


def _priced(*events: Event, name: str = "rdp") -> float:
    account = accountant(name)
    for event in events:
        account.add(event)
    return account.epsilon(1e-5)


def _times(count: int, name: str = "rdp") -> float:
    return _priced(repeat(Gaussian(noise_multiplier=5.0, **STATEMENT), count), name=name)


@pytest.mark.parametrize("name", ["rdp", "pld"])
def test_rows_cost_the_participations_that_fit(name: str) -> None:
    assert _priced(*(_row(row) for row in range(1, 11)), name=name) == _times(1, name)
    assert _priced(*(_row(row) for row in range(1, 12)), name=name) == _times(2, name)
    assert _priced(*(_row(row) for row in (2, 9, 12, 14, 21, 22)), name=name) == _times(3, name)
    assert _priced(*(_row(row) for row in range(1, 100)), name=name) == _times(3, name)  # at most three


def test_rows_of_two_runs_and_rows_paid_twice_add_up() -> None:
    assert _priced(_row(1), _row(5, plan="b")) == _times(2)  # the unit may be in either's row
    assert _priced(_row(4), _row(4)) == _times(2)
    assert _priced(_row(1), Gaussian(noise_multiplier=5.0, **STATEMENT)) == _times(2)
    other = _row(2).__class__(**{**vars(_row(2)), "separation": 9})
    assert _priced(_row(1), other) == _times(2)  # another plan's rules bound nothing here


# -- three adaptive rows, enumerated --

REACH = 34
GRID = np.arange(-REACH, REACH + 1)
STRATEGY = StrategyMatrix((3, 2), 3)


def _mass(variance: float) -> NDArray[np.float64]:
    mass = np.exp(-(GRID**2) / (2 * variance))
    return np.asarray(mass / mass.sum())


def _outcomes(variance: float, shifts: Callable[[int, int, int], int]) -> NDArray[np.float64]:
    """The exact law of three rows: row t's noise is moved by shifts(t, z1, z2), which may follow earlier rows."""
    mass, size = _mass(variance), GRID.size
    law = np.zeros((size, size, size))
    for a, z1 in enumerate(GRID):
        first = mass[a - shifts(1, 0, 0)] if 0 <= a - shifts(1, 0, 0) < size else 0.0
        for b, z2 in enumerate(GRID):
            at = b - shifts(2, int(z1), 0)
            if not 0 <= at < size:
                continue
            moved = shifts(3, int(z1), int(z2))
            third = np.zeros(size)
            low, high = max(0, moved), min(size, size + moved)
            third[low:high] = mass[low - moved : high - moved]
            law[a, b] = first * mass[at] * third
    return law


def _hockey(p: NDArray[np.float64], q: NDArray[np.float64], epsilon: float) -> float:
    forward = np.maximum(p - math.exp(epsilon) * q, 0).sum()
    return float(max(forward, np.maximum(q - math.exp(epsilon) * p, 0).sum()))


def _adaptive(row: int, z1: int, z2: int) -> int:
    """A unit in rows 1 and 3 whose second contribution follows what came out, as a gradient does."""
    later = 1 if z1 + 2 * z2 > 3 else -1
    return {1: STRATEGY.at(1, 1), 2: STRATEGY.at(2, 1), 3: STRATEGY.at(3, 3) * later}[row]


def _participation(variance: float, norm: float, rate: float = 1.0) -> DiscreteGaussianSum:
    return DiscreteGaussianSum(
        sensitivity=norm, share_variance=variance, shares=1, dims=2, sample_rate=rate, **STATEMENT
    )


def test_three_adaptive_rows_cost_no_more_than_their_price_and_hardly_less() -> None:
    variance = 60.0
    once = _participation(variance, STRATEGY.norm)
    rows = [
        CorrelatedRow(event=once, plan="", row=row, separation=2, participations=2, **STATEMENT)
        for row in (1, 2, 3)
    ]
    account = accountant("pld")
    for row in rows:
        account.add(row)
    present, absent = _outcomes(variance, _adaptive), _outcomes(variance, lambda *_: 0)
    for epsilon in (0.25, 0.5, 1.0):
        true, stated = _hockey(present, absent, epsilon), account.delta(epsilon)
        assert true <= stated * (1 + 1e-9) + 1e-9
        # the last participation enters one row of two, and 3.6 of the variance is given up
        assert true >= 0.5 * stated


def test_a_band_is_one_coin_over_all_its_rows() -> None:
    """Amplified: the coin of row 1 decides rows 1 and 2; a coin per row would claim less than what happens."""
    variance, rate = 30.0, 0.25

    def band(row: int, z1: int, z2: int) -> int:
        return {1: STRATEGY.at(1, 1), 2: STRATEGY.at(2, 1), 3: 0}[row]

    absent = _outcomes(variance, lambda *_: 0)
    present = (1 - rate) * absent + rate * _outcomes(variance, band)
    whole = accountant("pld").add(_participation(variance, STRATEGY.norm, rate))
    per_row = accountant("pld")
    for entry in STRATEGY.coefficients:
        per_row.add(_participation(variance, float(entry), rate))
    for epsilon in (0.3, 0.5):
        true = _hockey(present, absent, epsilon)
        assert true <= whole.delta(epsilon) + 1e-9
        assert per_row.delta(epsilon) < 0.9 * true
