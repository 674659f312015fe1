"""What every DP layer says, plans and sends, in numbers that were worked out by hand; a bound without noise, too."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import dp
from dp import ClientDP, DistributedDP, LocalDP, NormBound
from dp.accountants.reduction import SMOOTHING_VARIANCE
from dp.events import (
    DiscreteGaussianSum,
    Event,
    Gaussian,
    Relation,
    Unit,
)
from dp.layering import Price, PricedLayer, discrete, integer_sigma
from protocols.errors import Misuse, StackError
from protocols.layers import (
    UPDATE,
    Block,
    Contribution,
    Coordinate,
    Signal,
)
from tests.unit.dp.layer_rig import (
    BLOCK,
    DIMS,
    GIVEN,
    Keeps,
    facts,
    released,
    round_of,
    run_of,
    updates,
)
from tests.unit.dp.layer_rig import silent as silent


def test_a_public_name_is_found_where_it_lives() -> None:
    assert dp.__getattr__("ClientDP") is ClientDP
    with pytest.raises(AttributeError):
        dp.__getattr__("Nonsense")


def test_noise_in_steps_gives_back_what_the_price_of_discreteness_takes() -> None:
    exact = math.sqrt((1.5 * 4) ** 2 + SMOOTHING_VARIANCE)
    assert exact < integer_sigma(1.5, 4.0) <= exact * (1 + 2.0**-38)


def test_a_nominal_release_is_priced_like_continuous_noise() -> None:
    event = discrete(2.0, Unit.CLIENT, Relation.REPLACE, 7, shares=4, rate=0.25)
    assert isinstance(event, DiscreteGaussianSum)
    assert (event.sensitivity, event.shares, event.dims, event.sample_rate) == (1024.0, 4, 7, 0.25)
    assert event.variance == pytest.approx((2.0 * 1024) ** 2 + SMOOTHING_VARIANCE, rel=1e-11)
    plain = discrete(2.0, Unit.CLIENT, Relation.REPLACE, 7)
    assert isinstance(plain, DiscreteGaussianSum)
    assert (plain.shares, plain.sample_rate) == (1, 1.0)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ((None, None, None), "not neither"),
        ((1.0, None, 1.0), "not both"),
        ((0.0, None, None), "epsilon: expected a number > 0"),
        ((math.inf, None, None), "epsilon: expected a number > 0"),
        ((1.0, 0.0, None), r"delta: expected a number in \(0, 1\)"),
        ((1.0, 1.0, None), r"delta: expected a number in \(0, 1\)"),
        ((1.0, 1.5, None), r"delta: expected a number in \(0, 1\)"),
        ((None, None, 0.0), "noise_multiplier: expected a number > 0 and at most 1e10"),
        ((None, None, math.inf), "noise_multiplier: expected a number > 0 and at most 1e10"),
    ],
)
def test_a_price_out_of_range_is_refused(given: tuple[Any, Any, Any], why: str) -> None:
    with pytest.raises(Misuse, match=why):
        Price(*given)


def test_small_prices_are_prices_and_the_layers_delta_counts_before_the_runs() -> None:
    run = run_of(delta=1e-3)
    assert Price(0.5, 0.5, None).at(run) == 0.5
    assert Price(None, None, 0.5).at(run) == 1e-3
    assert Price(None, None, 0.5).at(replace(run, delta=None)) == 1e-5
    event = Gaussian(noise_multiplier=3.0, unit=Unit.CLIENT, relation=Relation.ZERO_OUT)
    once, twice = (Price(None, None, 0.5).of(event, times, run) for times in (1, 2))
    assert 0 < once < twice
    found = [Price(1.0, 1e-5, None, name).multiplier(lambda m: replace(event, noise_multiplier=m), 3, run)
             for name in ("rdp", "pld")]  # fmt: skip
    assert found[1] < found[0]  # the other accountant is tighter


@pytest.mark.parametrize("clip", [True, "1", None, 0.0, -1.0, math.inf, math.nan])
@pytest.mark.parametrize("layer", [DistributedDP, LocalDP])
def test_a_clip_that_is_no_positive_number_is_refused(layer: Any, clip: Any) -> None:
    with pytest.raises(Misuse, match=r"clip: expected a number from 2\^-500 to 2\^500"):
        layer(noise_multiplier=1.0, clip=clip)


@pytest.mark.parametrize("layer", [ClientDP, DistributedDP, LocalDP])
def test_the_clip_is_1_unless_it_is_given(layer: Any) -> None:
    assert layer(noise_multiplier=1.0).clip == 1.0
    assert layer(noise_multiplier=1.0, clip=0.5).clip == 0.5
    assert layer(epsilon=1.0).price == Price(1.0, None, None, "rdp")
    assert layer(noise_multiplier=2.0, delta=0.25, accountant="pld").price == Price(None, 0.25, 2.0, "pld")


class Cheap(PricedLayer):
    """Toy: what its own ledger is charged is not what the run is."""

    name = "cheap"

    def own(self, event: Event) -> Event:
        return replace(event, unit=Unit.EXAMPLE)


def test_a_clients_ledger_is_told_what_when_for_whom_and_by_whom() -> None:
    ledger = Keeps()
    event = Gaussian(noise_multiplier=3.0, unit=Unit.CLIENT, relation=Relation.ZERO_OUT)
    told = {"round": 1, "party": "c1", "note": "cheap"}
    ledgers: Any = {"c1": ledger}
    for given in (ledgers, ledgers.get):
        Cheap(Price(None, None, 1.0), given, 1.0).charge(event, facts())
    Cheap(Price(None, None, 1.0), ledgers.get, 1.0).charge(event, replace(facts(), client="c2"))
    Cheap(Price(None, None, 1.0), ledgers, 1.0).charge(event, facts(), 3)
    own = replace(event, unit=Unit.EXAMPLE)
    assert ledger.charged == [(own, 1, told), (own, 1, told), (own, 3, told)]


def test_a_calibration_is_made_once_for_each_run() -> None:
    layer, made = Cheap(Price(None, None, 1.0), None, 1.0), iter(range(9))
    run = run_of()
    assert [layer.calibrated(run, lambda: next(made)) for _ in range(2)] == [0, 0]
    for change in ({"rounds": 3}, {"rate": 0.5}, {"corrupt": 2}, {"failing": 0.5}):
        first = layer.calibrated(replace(run, **change), lambda: next(made))  # type: ignore[arg-type]
        assert first > 0
    assert layer.calibrated(run, lambda: next(made), "other") == 5


def test_the_update_is_the_first_vector_and_is_clipped_to_the_layers_norm() -> None:
    layer = LocalDP(noise_multiplier=1.0, clip=2.0)
    run = run_of(blocks=(BLOCK,))
    assert layer.vectors(run) == {UPDATE: Block(UPDATE, DIMS, clip=2.0), "control": BLOCK}
    assert [layer.clip_of(run, name) for name in (UPDATE, "control")] == [2.0, 0.5]
    with pytest.raises(StackError, match="'control' has no clip of its own"):
        layer.vectors(run_of(blocks=(replace(BLOCK, clip=None),)))


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (replace(GIVEN, kind="integer"), "takes a vector of floats"),
        (replace(GIVEN, coordinates=(Coordinate("n", 1, 1),)), "takes a vector of floats"),
        (replace(GIVEN, l2=1.0, exact_coordinates=False), "takes a vector of floats"),
        (replace(GIVEN, dimension=DIMS - 1), f"sends {DIMS - 1}: take ClientDP"),
    ],
)
@pytest.mark.parametrize("layer", [DistributedDP(noise_multiplier=1.0), LocalDP(noise_multiplier=1.0)])
def test_what_makes_integers_itself_takes_whole_floats(layer: Any, given: Signal, why: str) -> None:
    with pytest.raises(StackError, match=why):
        layer.transform(given, facts())
    for fine in (GIVEN, replace(GIVEN, l2=1.0), replace(GIVEN, exact_coordinates=False)):
        layer.transform(fine, facts())


@pytest.mark.parametrize(("kind", "root"), [(ClientDP, 12), (LocalDP, math.sqrt(12))])
def test_a_layer_drowns_by_the_noise_of_all_its_vectors(kind: Any, root: float) -> None:
    run = run_of(dimension=10_000, blocks=(replace(BLOCK, dimension=10_000),))
    said = kind(noise_multiplier=4.0, clip=0.5).outlook(run)
    assert f"has norm {4 * math.sqrt(2) * 0.5 * 100 / root:.3g}, and no mean" in said
    few = run_of(dimension=10_000, sampling="poisson", rate=0.01)
    assert f"has norm {4 * 0.5 * 100:.3g}, and no mean" in kind(noise_multiplier=4.0, clip=0.5).outlook(few)


@pytest.mark.parametrize("bound", [True, "1", 0, -1.0, math.inf, math.nan])
def test_a_norm_bound_out_of_range_is_refused(bound: Any) -> None:
    with pytest.raises(Misuse, match="bound: expected a number > 0"):
        NormBound(bound)


def test_a_norm_bound_bounds_what_comes() -> None:
    assert NormBound().bound == 1.0
    layer = NormBound(0.5)
    assert layer.describe() == (
        "norm-bound: every client clips its update to norm 0.5: robust, not private, for no noise is added; a secure "
        "sum does not prove that a client clipped"
    )
    assert layer.transform(GIVEN, facts()) == replace(GIVEN, l2=0.5, linf=0.5, range=0.5)
    within = replace(GIVEN, l2=0.25, range=0.125)
    assert layer.transform(within, facts()) == replace(within, l2=0.25, linf=0.25, range=0.125)
    made = layer.encode(Contribution(np.array([3.0, 4.0]), 7), GIVEN, facts())
    assert (made.vector, made.weight) == (pytest.approx(np.array([0.3, 0.4])), 7)
    with pytest.raises(StackError, match="before the layer that makes integers"):
        layer.transform(replace(GIVEN, kind="integer"), facts())


def test_a_whole_round_without_noise_gives_the_clipped_sum(silent: list[float]) -> None:
    mine = updates(3.0)
    for layer in (
        ClientDP(noise_multiplier=1.0),
        DistributedDP(noise_multiplier=1.0),
        LocalDP(noise_multiplier=1.0),
    ):
        out = released(round_of(layer, run_of()), mine)
        assert out.vector == pytest.approx(np.sum(mine, axis=0) / 3, abs=0.2)
