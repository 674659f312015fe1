"""What layers say, plan, send and open, in numbers that were worked out by hand; the noise is left out, or known."""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import dp
from dp import ClientDP, DistributedDP, LocalDP, NormBound, encoding
from dp.accountants.reduction import SMOOTHING_VARIANCE
from dp.client import UNCLIPPED, Quantile
from dp.distributed_plan import unknown
from dp.events import (
    DiscreteGaussianSum,
    Event,
    Failing,
    FixedSizeGaussian,
    Gaussian,
    PoissonGaussian,
    Relation,
    Skellam,
    Unit,
)
from dp.layering import Price, PricedLayer, discrete, integer_sigma
from dp.mechanisms.grid import noise_step, rounded_bound
from dp.rotation import rotate
from dp.rounding import l1_bound
from dp.sample.options import ASSUMED
from protocols.errors import Aborted, CapacityError, Misuse, ProtocolViolation, StackError, TooFewSurvivors
from protocols.layers import (
    UPDATE,
    Aggregate,
    Block,
    Contribution,
    Coordinate,
    RoundFacts,
    RunFacts,
    Signal,
    SumFacts,
)
from protocols.party_state import CLOSED
from protocols.store import MemoryStore
from tests.unit.dp.layer_rig import CLIENTS, DIMS, SEED, released, round_of, run_of, updates

NAMES = tuple(f"c{i}" for i in range(CLIENTS))
GIVEN = Signal("real", DIMS, 1000, linf=9.0)
BLOCK = Block("control", DIMS, clip=0.5)


def facts(**changes: Any) -> RoundFacts:
    return RoundFacts(run_of(**changes), 1, NAMES, SEED, client="c1")


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """No noise; how wide it would have been, in steps."""
    asked = list[float]()

    def nothing(random: object, sigma: float, count: int) -> NDArray[np.int64]:
        asked.append(sigma)
        return np.zeros(count, np.int64)

    for module in ("client", "distributed", "local"):
        monkeypatch.setattr(f"dp.{module}.discrete_gaussian", nothing)
    return asked


# -- what all share --


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
        ((0.0, None, None), "finite epsilon > 0"),
        ((math.inf, None, None), "finite epsilon > 0"),
        ((1.0, 0.0, None), "0 < delta < 1"),
        ((1.0, 1.0, None), "0 < delta < 1"),
        ((1.0, 1.5, None), "0 < delta < 1"),
        ((None, None, 0.0), "finite noise_multiplier > 0"),
        ((None, None, math.inf), "finite noise_multiplier > 0"),
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
    with pytest.raises(Misuse, match="positive, finite clip norm"):
        layer(noise_multiplier=1.0, clip=clip)


@pytest.mark.parametrize("layer", [ClientDP, DistributedDP, LocalDP])
def test_the_clip_is_1_unless_it_is_given(layer: Any) -> None:
    assert layer(noise_multiplier=1.0).clip == 1.0
    assert layer(noise_multiplier=1.0, clip=0.5).clip == 0.5
    assert layer(epsilon=1.0).price == Price(1.0, None, None, "rdp")
    assert layer(noise_multiplier=2.0, delta=0.25, accountant="pld").price == Price(None, 0.25, 2.0, "pld")


class Keeps:
    """Toy: a ledger that keeps what it is charged."""

    def __init__(self) -> None:
        self.charged: list[Any] = []

    def charge(self, event: Event, count: int, **more: Any) -> None:
        self.charged.append((event, count, more))


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


# -- noise on the sum --


@pytest.mark.parametrize(
    "wrong",
    [{"start": 0.0}, {"start": math.inf}, {"target": 0.0}, {"target": 1.0}, {"target": 1.5}, {"rate": 0.0},
     {"rate": -1.0}, {"count_noise": 0.0}, {"count_noise": -1.0}],
)  # fmt: skip
def test_a_quantile_out_of_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Misuse, match="expected start, rate, count_noise > 0 and 0 < target < 1"):
        Quantile(**wrong)
    assert Quantile(start=0.5, target=0.25, rate=0.5, count_noise=0.5).start == 0.5


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"weights": "any"}, "expected weights"),
        ({"weights": "bounded", "weight_cap": 0}, "expected weights"),
        ({"weight_cap": 2}, "expected weights"),
        ({"relation": "add-remove"}, "add-remove is not on offer"),
        ({"denominator": 0.0}, "positive denominator"),
        ({"denominator": math.inf}, "positive denominator"),
        ({"correlation": "banded", "min_separation": 3, "amplify": True}, "no amplification"),
        ({"correlation": "banded", "min_separation": 3, "clip": "adaptive"}, "give a number as clip"),
    ],
)
def test_options_of_noise_on_the_sum_that_contradict_are_refused(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(Misuse, match=why):
        ClientDP(noise_multiplier=1.0, **wrong)


def test_options_of_noise_on_the_sum() -> None:
    plain = ClientDP(noise_multiplier=1.0)
    assert (plain.weight_cap, plain.relation, plain.amplify, plain.denominator) == (
        1,
        Relation.ZERO_OUT,
        False,
        None,
    )
    assert (plain.quantile, plain.keeps_state, plain.ledger) == (None, False, None)
    assert ClientDP(noise_multiplier=1.0, clip="adaptive").quantile == Quantile()
    given = ClientDP(noise_multiplier=1.0, clip=Quantile(start=0.25), relation="replace", denominator=0.5)
    assert (given.clip, given.relation, given.denominator) == (0.25, Relation.REPLACE, 0.5)
    assert ClientDP(noise_multiplier=1.0, weights="bounded").weight_cap == 1
    rows = ClientDP(noise_multiplier=1.0, correlation="banded", min_separation=3, participations=2, bands=2)
    assert rows.correlation is not None
    assert (rows.correlation.separation, rows.correlation.participations, rows.correlation.bands) == (3, 2, 2)
    assert rows.keeps_state and rows.one_sum  # noqa: PT018  # one fact
    assert rows.correlation.momentum == 0.0
    assert rows.public() == {}  # before a run is planned


def test_noise_on_the_sum_describes_itself() -> None:
    said = (
        "client-dp: the server adds discrete Gaussian noise, clip 1 per client, weights up to 1, zero-out "
        "neighbours; "
    )
    assert ClientDP(noise_multiplier=1.0).describe() == (
        said + "holds against clients and the public, not against the server"
    )
    assert ClientDP(noise_multiplier=1.0, clip="adaptive", amplify=True).describe() == (
        said.replace("clip 1", "adaptive clip")
        + "holds against public (assuming that who leaves follows neither the choice nor the data, and no more than "
        "planned), not against the server"
    )
    rows = ClientDP(noise_multiplier=1.0, correlation="banded", min_separation=3)
    assert rows.describe() == (
        said
        + "correlated over rounds, 3 between two of one client, which every client enforces in its own store, and "
        "the server by who was in which total; the server keeps past exact sums secret; holds against clients and the "
        "public, not against the server"
    )


def test_what_is_sent_under_noise_on_the_sum_is_bounded_and_counted() -> None:
    fixed = ClientDP(noise_multiplier=1.0, clip=0.5, weights="bounded", weight_cap=50)
    bound = {"weight_cap": 50, "l2": 0.5, "linf": 0.5, "range": 0.5, "exact_coordinates": False}
    assert fixed.transform(GIVEN, facts()) == replace(GIVEN, **bound)
    assert fixed.transform(replace(GIVEN, weight_cap=7), facts()).weight_cap == 7
    adaptive = ClientDP(noise_multiplier=1.0, clip=Quantile(start=0.5, count_noise=1.0))
    before = replace(GIVEN, coordinates=(Coordinate("n", 2, 3),))
    assert adaptive.transform(before, facts()) == replace(
        before, **bound | {"weight_cap": 1}, coordinates=(Coordinate("n", 2, 3), Coordinate(UNCLIPPED, 1, 1))
    )
    run = facts(blocks=(BLOCK,))
    block = replace(GIVEN, block="control")
    told = replace(run, public={"client-dp": {"clip": 0.125}})
    for layer, clip in ((fixed, 0.5), (adaptive, 0.125)):
        assert layer.transform(GIVEN, told).l2 == clip  # a fixed clip is the party's own
        assert layer.transform(block, told).l2 == 0.5
        assert UNCLIPPED not in {each.name for each in layer.transform(block, told).coordinates}
    with pytest.raises(StackError, match="before the layer that makes integers"):
        fixed.transform(replace(GIVEN, kind="integer"), facts())


def test_a_client_clips_weighs_and_votes() -> None:
    layer = ClientDP(noise_multiplier=1.0, clip=Quantile(start=5.0, count_noise=1.0))
    given = replace(GIVEN, dimension=2, weight_cap=1)
    for vector, vote, sent in (
        ([3.0, 4.0 - 1e-6], 1, [3.0, 4.0 - 1e-6]),
        ([6.0, 8.0], -1, [3.0, 4.0]),
        ([math.nan, 0.0], 0, [0.0, 0.0]),
    ):
        made = layer.encode(Contribution(np.array(vector), 7), given, facts(dimension=2))
        assert (made.coordinates[UNCLIPPED].tolist(), made.coordinates[UNCLIPPED].dtype) == ([vote], np.int64)
        assert made.vector == pytest.approx(np.array(sent))
        assert made.weight == 1
    fixed = ClientDP(noise_multiplier=1.0, clip=5.0, weights="bounded", weight_cap=3)
    made = fixed.encode(
        Contribution(np.array([6.0, 8.0]), 7), replace(given, weight_cap=9), facts(dimension=2)
    )
    assert (made.coordinates, made.weight) == ({}, 3)
    block = facts(dimension=2, blocks=(Block("control", 2, clip=2.5),))
    made = fixed.encode(
        Contribution(np.array([6.0, 8.0]), 2), replace(given, block="control", weight_cap=9), block
    )
    assert (made.vector, made.weight) == (pytest.approx(np.array([1.5, 2.0])), 2)


def opened(l2: float, step: float, **changes: Any) -> SumFacts:
    return SumFacts(GIVEN, replace(GIVEN, kind="integer", l2=l2, step=step, **changes), NAMES)


def test_a_noised_sum_is_divided_by_what_was_fixed_beforehand(silent: list[float]) -> None:
    layer = ClientDP(noise_multiplier=2.0, clip=0.5, weights="bounded", weight_cap=3)
    total = Aggregate(np.array([4, -2]) * 0.25, 5.0, {"n": np.array([7])})
    out = layer.decode(total, opened(1.5, 0.25, weight_cap=3), facts())
    assert (out.vector.tolist(), out.vector.dtype, out.weight) == ([1.0, -0.5], np.float64, CLIENTS * 3)
    assert {name: block.tolist() for name, block in out.coordinates.items()} == {"n": [7]}
    assert silent == [integer_sigma(2.0, 1.5 / 0.25)]
    given = ClientDP(noise_multiplier=2.0, denominator=0.5)
    assert given.decode(total, opened(1.5, 0.25, weight_cap=1), facts()).weight == 0.5
    assert given.decode(total, opened(1.5, 0.25, weight_cap=1, block="control"), facts()).weight == CLIENTS
    few = facts(sampling="poisson", rate=0.01)
    assert layer.decode(total, opened(1.5, 0.25, weight_cap=3), few).weight == 3  # never below one client
    for change in ({"l2": None}, {"modulus": 4}):
        with pytest.raises(StackError, match="a sum over Z whose norm bound is known"):
            layer.decode(total, replace(opened(1.5, 0.25), released=replace(GIVEN, **change)), facts())


@pytest.mark.parametrize(
    ("balance", "clip"), [(12, 2 * math.exp(-0.5 * 0.75)), (-6, 2 * math.exp(0.0)), (0, 2 * math.exp(-0.125))]
)
def test_the_clip_moves_by_how_far_the_unclipped_share_is_from_its_target(
    balance: int, clip: float, silent: list[float]
) -> None:
    layer = ClientDP(noise_multiplier=0.5, clip=Quantile(start=2.0, target=0.25, rate=0.5, count_noise=0.5))
    total = Aggregate(np.zeros(DIMS), 5.0, {UNCLIPPED: np.array([balance]), "n": np.array([1])})
    out = layer.decode(total, opened(1.5, 0.25, weight_cap=1), facts())
    assert layer.clip == pytest.approx(clip, rel=1e-12)
    assert layer.public() == layer.state() == {"clip": layer.clip}
    assert set(out.coordinates) == {"n"}
    assert silent[1] == integer_sigma(2 * 0.5 * CLIENTS, 1.0)
    again = ClientDP(noise_multiplier=0.5, clip=Quantile(start=9.0))
    again.restore({})
    assert again.clip == 9.0
    again.restore(layer.state())
    assert again.clip == layer.clip
    assert ClientDP(noise_multiplier=0.5).public() == {}


def test_of_fewer_than_one_client_expected_one_counts(silent: list[float]) -> None:
    layer = ClientDP(noise_multiplier=0.5, clip=Quantile(start=2.0, target=0.5, rate=1.0, count_noise=0.5))
    total = Aggregate(np.zeros(DIMS), 1.0, {UNCLIPPED: np.array([1])})
    layer.decode(total, opened(1.5, 0.25), facts(sampling="poisson", rate=0.01))
    assert layer.clip == pytest.approx(2 * math.exp(-0.5), rel=1e-12)


def test_noise_on_vectors_and_count_costs_what_was_asked_for_together() -> None:
    run = run_of(blocks=(BLOCK,))
    for layer, count in (
        (ClientDP(noise_multiplier=2.0), None),
        (ClientDP(noise_multiplier=2.0, clip=Quantile(count_noise=0.25)), 0.25 * CLIENTS),
        (ClientDP(noise_multiplier=2.0, clip="adaptive"), 1.6 * 2.0),
        (ClientDP(noise_multiplier=0.25, clip="adaptive"), 0.05 * CLIENTS),
    ):
        whole = layer.price.noise_multiplier
        assert whole is not None
        alone = whole if count is None else (whole**-2 - (2 * count) ** -2) ** -0.5
        assert layer._count_std(run) == pytest.approx(count or 0.0)
        assert layer._vector_multiplier(run) == pytest.approx(alone * math.sqrt(2), rel=1e-12)
        assert layer._vector_multiplier(run_of()) == pytest.approx(alone, rel=1e-12)


def test_count_noise_at_half_the_noise_is_none() -> None:
    """All of the budget would go to the count."""
    for noise, fits in ((1.0, True), (2.0 * 0.25 * CLIENTS, False)):
        layer = ClientDP(noise_multiplier=noise, clip=Quantile(count_noise=0.25))
        if fits:
            layer.plan(run_of())
        else:
            with pytest.raises(
                Misuse, match=r"above half the noise multiplier \(6 / 2\): raise count_noise above 0.25"
            ):
                layer.plan(run_of())


@pytest.mark.parametrize(
    ("amplify", "changes", "kind", "rate"),
    [
        (False, {}, DiscreteGaussianSum, 1.0),
        (False, {"sampling": "fixed", "cohort": 3}, DiscreteGaussianSum, 1.0),
        (False, {"sampling": "poisson", "rate": 0.25}, DiscreteGaussianSum, 1.0),
        (True, {}, DiscreteGaussianSum, 1.0),
        (True, {"sampling": "poisson", "rate": 0.25}, DiscreteGaussianSum, 0.25),
        (True, {"sampling": "poisson", "rate": 0.25, "failing": 1e-9}, Failing, 0.25),
        (True, {"sampling": "fixed", "cohort": 3}, FixedSizeGaussian, 0.0),
    ],
)
def test_what_a_round_costs_follows_its_sampling_only_where_that_is_claimed(
    amplify: bool, changes: dict[str, Any], kind: Any, rate: float
) -> None:
    layer = ClientDP(noise_multiplier=2.0, amplify=amplify)
    run = run_of(**changes, blocks=(BLOCK,))
    event = layer._planned_event(2.0, run)
    assert type(event) is kind
    if isinstance(event, Failing):
        assert event.probability == 1e-9
        event = event.event
    if isinstance(event, DiscreteGaussianSum):
        assert event == discrete(2.0, Unit.CLIENT, Relation.ZERO_OUT, 2 * DIMS + 1, rate=rate)
    else:
        assert isinstance(event, FixedSizeGaussian)
        assert (event.noise_multiplier, event.population, event.sample_size) == (2.0, CLIENTS, 3)


@pytest.mark.parametrize(
    ("amplify", "changes", "kind"),
    [(False, {"sampling": "poisson", "rate": 0.5}, Gaussian), (True, {}, Gaussian),
     (True, {"sampling": "poisson", "rate": 0.5}, PoissonGaussian), (True, {"sampling": "fixed"}, FixedSizeGaussian)],
)  # fmt: skip
def test_a_round_as_continuous_noise(amplify: bool, changes: dict[str, Any], kind: Any) -> None:
    event = ClientDP(noise_multiplier=2.0, amplify=amplify)._event(3.0, run_of(**changes))
    assert type(event) is kind
    assert (event.noise_multiplier, event.unit, event.relation) == (3.0, Unit.CLIENT, Relation.ZERO_OUT)  # type: ignore[attr-defined]


def test_the_kind_of_a_round_follows_its_run_where_amplification_is_claimed() -> None:
    plain, secret = (ClientDP(noise_multiplier=2.0, amplify=amplify) for amplify in (False, True))
    assert plain.kind(None) == discrete(1.0, Unit.CLIENT, Relation.ZERO_OUT, 2)
    assert secret.kind(None) is None
    assert secret.kinds() == ()
    assert isinstance(secret.kind(run_of(sampling="fixed")), FixedSizeGaussian)
    assert isinstance(plain.kind(run_of(sampling="fixed")), DiscreteGaussianSum)
    (fact,) = plain.kinds()
    assert fact.kind == "DiscreteGaussianSum"


@pytest.mark.parametrize(("failing", "fits"), [(0.5e-6, True), (1e-3, False)])
def test_a_chance_of_too_few_clients_takes_its_part_of_delta(failing: float, fits: bool) -> None:
    layer = ClientDP(epsilon=1.0, amplify=True)
    run = run_of(sampling="poisson", rate=0.5, failing=failing, delta=1e-4, least_chosen=0)
    if fits:
        layer.plan(run)
        return
    with pytest.raises(Misuse) as found:
        layer.plan(run)
    assert str(found.value) == (
        "client-dp: amplification counts on a secret choice, and a round with fewer than 0 of 12 clients at rate 0.5 "
        "is abandoned, or with a number above that the secure sum does not carry: probability 0.001 a round, 10 "
        "rounds. That is part of the price, and delta 0.0001 has no room for it. Ask more clients, choose "
        'sampling="fixed", lower min_survivors '
        "(without a secure sum every round is played), or take amplify=False"
    )
    ClientDP(epsilon=1.0).plan(run)  # nothing is claimed, nothing can fail


@pytest.mark.parametrize("rounds", [1, 10])
def test_the_limit_of_that_chance_is_delta_over_1_plus_e_to_the_epsilon_and_the_rounds(
    rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Price, "of", lambda *given: 1.0)  # the price itself is looked at next

    def run(failing: float) -> RunFacts:
        return run_of(sampling="poisson", rate=0.5, delta=1e-4, rounds=rounds, failing=failing)

    limit = 1e-4 / (1 + math.exp(2.0)) / rounds
    with pytest.raises(Misuse, match="has no room for it"):
        ClientDP(epsilon=2.0, amplify=True).plan(run(limit * 1.0001))
    given = ClientDP(noise_multiplier=3.0, amplify=True)  # an epsilon of zero is the least that it can cost
    given.plan(run(0.99 * 1e-4 / 2 / rounds))
    with pytest.raises(Misuse, match="has no room for it"):
        given.plan(run(1.01 * 1e-4 / 2 / rounds))
    with pytest.raises(Misuse, match="has no room for it"):
        ClientDP(epsilon=1e4, amplify=True).plan(run(1e-300))  # e^700 times the chance


def test_only_the_round_that_is_abandoned_is_to_blame() -> None:
    """Noise so thin that nothing bounds what it costs is the user's own word."""
    run = run_of(sampling="poisson", rate=0.5, failing=1e-9)
    layer = ClientDP(noise_multiplier=1e-3, amplify=True)
    assert layer.price.of(layer._planned_event(1e-3, replace(run, failing=0.0)), 10, run) == math.inf
    layer.plan(run)
    fixed = replace(run, sampling="fixed", failing=0.5)
    assert (layer._chance(run), layer._chance(fixed)) == (1e-9, 0.0)
    assert ClientDP(noise_multiplier=1e-3)._chance(run) == 0.0


BANDED: dict[str, Any] = {"correlation": "banded", "min_separation": 4, "participations": 2}


def test_rows_are_priced_by_what_one_participation_costs_and_so_many_times() -> None:
    layer, run = ClientDP(epsilon=8.0, **BANDED, bands=3), run_of(rounds=8)
    assert layer.public() == {}
    event = layer._planned_event(2.0, run)
    assert event == discrete(2.0, Unit.CLIENT, Relation.ZERO_OUT, DIMS * 3 + 1)
    found = layer._multiplier(run)
    assert 7.99 < layer.price.of(layer._planned_event(found, run), 2, run) <= 8.0


def test_rows_without_noise_are_the_sums_that_went_in(silent: list[float]) -> None:
    layer, run = ClientDP(noise_multiplier=1.0, **BANDED, bands=3), run_of(rounds=8)
    assert layer.correlation is not None
    norm = layer.correlation.strategy(8).norm
    for row in range(1, 9):
        total = Aggregate(np.full(DIMS, 10.0 * row), 5.0)
        out = layer.decode(total, opened(2.0, 0.5, weight_cap=1), RoundFacts(run, row, NAMES, SEED))
        assert out.vector == pytest.approx(np.full(DIMS, 10.0 * row), rel=1e-12)
        assert silent.pop() == integer_sigma(1.0, norm * 4.0)


def test_a_client_keeps_to_the_terms_of_its_rows() -> None:
    store, given = MemoryStore(), replace(GIVEN, weight_cap=1)
    for row, clip in ((1, 1.0), (5, 1.0), (9, 2.0)):
        layer, run = (
            ClientDP(noise_multiplier=1.0, clip=clip, **BANDED | {"participations": 3}),
            run_of(rounds=12),
        )
        layer.plan(replace(run, sampling="cyclic", rate=0.25, population=48))
        public: Any = {"client-dp": layer.public(), CLOSED: {"c1": 5.0 if row > 5 else 1.0}}
        own = RoundFacts(run, row, NAMES, SEED, public, "c1", store, scope="run", schema=b"s")
        if clip == 1.0:
            layer.encode(Contribution(np.zeros(DIMS), 1), given, own)
        else:
            with pytest.raises(ProtocolViolation, match="not what this run began with"):
                layer.encode(Contribution(np.zeros(DIMS), 1), given, own)


def test_who_is_under_independent_noise_comes_when_it_is_asked() -> None:
    plain = ClientDP(noise_multiplier=1.0)
    assert plain.comes(MemoryStore(), "run", 1)
    assert plain.may_ask([1, 2], 3)


def test_the_adversary_of_an_amplified_round_is_the_public() -> None:
    run = run_of(sampling="poisson", rate=0.5)
    for amplify, adversary in ((False, "clients"), (True, "public")):
        (fact,) = ClientDP(noise_multiplier=2.0, amplify=amplify).events(replace(facts(), run=run), NAMES)
        assert fact.adversary == adversary


# -- noise of every client --


@pytest.mark.parametrize("resolution", [3, 31])
def test_a_resolution_out_of_range_is_refused(resolution: int) -> None:
    with pytest.raises(Misuse, match="from 4 to 30 bits"):
        LocalDP(noise_multiplier=1.0, resolution=resolution)
    assert [LocalDP(noise_multiplier=1.0, resolution=fine).resolution for fine in (4, 30)] == [4, 30]
    assert LocalDP(noise_multiplier=1.0).resolution == 14


def test_local_noise_says_what_it_is_and_plans_its_grid() -> None:
    layer = LocalDP(noise_multiplier=2.0, clip=0.5, resolution=8)
    assert layer.describe() == (
        "local-dp: discrete Gaussian noise on every update, clip 0.5 per client, zero-out neighbours"
    )
    assert layer.kind(None) == discrete(1.0, Unit.CLIENT, Relation.ZERO_OUT, 1)
    run = run_of(blocks=(replace(BLOCK, dimension=9),))
    root = math.sqrt(2)
    for name, clip, dims in ((UPDATE, 0.5, DIMS), ("control", 0.5, 9)):
        step = noise_step(2.0 * root * clip, 8)
        bound = rounded_bound(clip, dims, step)
        assert layer._grid(run, name) == (step, bound, integer_sigma(2.0 * root, bound))
        assert layer._most(run, name) == math.ceil(bound + 40 * integer_sigma(2.0 * root, bound))
    thin = LocalDP(noise_multiplier=1e-9, resolution=8)
    assert thin._grid(run_of(), UPDATE)[0] == noise_step(2.0**-10, 8)
    wide = LocalDP(noise_multiplier=2.0**-10 * 1.01, resolution=8)
    assert wide._grid(run_of(), UPDATE)[0] == noise_step(2.0**-10 * 1.01, 8)
    event = layer._priced(run)
    assert event == discrete(2.0, Unit.CLIENT, Relation.ZERO_OUT, DIMS + 9)


def test_a_local_clients_integers_fit_the_modulus() -> None:
    layer, own = LocalDP(noise_multiplier=2.0, clip=0.5, resolution=8), facts(blocks=(BLOCK,))
    step, bound, _ = layer._grid(own.run, UPDATE)
    most = max(layer._most(own.run, name) for name in (UPDATE, "control"))
    signal = layer.transform(replace(GIVEN, linf=9.0), own)
    power = 1 << (2 * CLIENTS * most + 1).bit_length()
    assert signal == replace(
        GIVEN, kind="integer", weight_cap=1, l2=bound * step, linf=None, exact_coordinates=False, step=step,
        modulus=power, bound=most, clip=0.5,
    )  # fmt: skip
    assert layer.transform(replace(GIVEN, block="control"), own).clip == 0.5


@pytest.mark.parametrize(("most", "modulus"), [(7, 16), (8, 32), (14, 32), (15, 32), (16, 64)])
def test_a_local_sum_has_room_for_its_largest_and_least(
    most: int, modulus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = LocalDP(noise_multiplier=1.0)
    monkeypatch.setattr(layer, "_most", lambda *given: most)
    assert layer.transform(GIVEN, replace(facts(), clients=NAMES[:1])).modulus == modulus


def test_a_local_sum_one_beyond_a_power_of_two_has_room_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its logarithm is that of the power, once it is rounded: the modulus was half as large."""
    layer = LocalDP(noise_multiplier=1.0)
    monkeypatch.setattr(layer, "_most", lambda *given: 2**58)
    assert layer.transform(GIVEN, replace(facts(), clients=NAMES[:1])).modulus == 2**60


def test_a_local_sum_of_more_than_sixty_bits_is_refused() -> None:
    layer, own = LocalDP(noise_multiplier=1.0, resolution=30), facts()
    most = layer._most(own.run, UPDATE)
    for clients, fits in ((2**59 // most, True), (2**59 // most + 1, False)):
        many = replace(own, clients=range(clients))  # type: ignore[arg-type]  # their number alone counts
        if fits:
            assert layer.transform(GIVEN, many).modulus == 2**60
        else:
            with pytest.raises(CapacityError, match="61 bits per value do not fit"):
                layer.transform(GIVEN, many)


def test_a_local_client_sends_its_grid_values_and_the_sum_is_read_back(silent: list[float]) -> None:
    ledger: Any = Keeps()
    layer, own = LocalDP(noise_multiplier=2.0, clip=5.0, ledger=lambda client: ledger), facts(dimension=2)
    given = replace(GIVEN, dimension=2)
    made = layer.encode(Contribution(np.array([3.0, -4.0]), 7), given, own)
    step, _, sigma = layer._grid(own.run, UPDATE)
    assert (made.weight, made.vector.tolist()) == (1, [round(3 / step), round(-4 / step)])
    assert (silent, len(ledger.charged)) == ([sigma], 1)
    blocks = facts(dimension=2, blocks=(Block("control", 2, clip=2.5),))
    layer.encode(Contribution(np.array([3.0, -4.0]), 7), replace(given, block="control"), blocks)
    assert len(ledger.charged) == 1  # the update's turn pays
    out = layer.decode(Aggregate(np.array([4, -2]), 9.0), opened(1.0, 0.25), own)
    assert (out.vector.tolist(), out.vector.dtype, out.weight) == ([1.0, -0.5], np.float64, float(CLIENTS))
    assert [(fact.party, fact.adversary) for fact in layer.events(own, NAMES[:2])] == [
        ("c0", "server"),
        ("c1", "server"),
    ]


# -- noise in shares --


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"unit": "house"}, 'expected unit "client" or "example"'),
        ({"noise": "pink"}, 'expected noise "gaussian" or "skellam"'),
        ({"noise": "skellam", "accountant": "pld"}, "Skellam noise has a Renyi curve only"),
        ({"colluders": -1}, "0 <= colluders < min_survivors"),
        ({"min_survivors": 2, "colluders": 2}, "0 <= colluders < min_survivors"),
        ({"sample_rate": 0.5}, "a server sees which clients take part"),
        ({"examples": 9}, "a server sees which clients take part"),
        ({"unit": "example", "examples": 9}, "needs sample_rate in"),
        ({"unit": "example", "sample_rate": 0.5}, "needs sample_rate in"),
        ({"unit": "example", "sample_rate": 0.0, "examples": 9}, "needs sample_rate in"),
        ({"unit": "example", "sample_rate": 1.5, "examples": 9}, "needs sample_rate in"),
        ({"unit": "example", "sample_rate": 0.5, "examples": 0}, "needs sample_rate in"),
        ({"unit": "example", "sample_rate": 0.5, "examples": 9, "correlation": "banded", "batches": 3, "epochs": 1},
         "leave out sample_rate"),
        ({"batches": 3}, "which the other options are for"),
        ({"epochs": 3}, "which the other options are for"),
        ({"bands": 3}, "which the other options are for"),
        ({"momentum": 0.5}, "which the other options are for"),
        ({"amplify": True}, "which the other options are for"),
        ({"correlation": "other", "batches": 3, "epochs": 3}, "which the other options are for"),
        ({"correlation": "banded", "epochs": 3}, "which the other options are for"),
        ({"correlation": "banded", "batches": 3}, "which the other options are for"),
        ({"correlation": "banded", "batches": 1, "epochs": 3}, "which the other options are for"),
        ({"correlation": "banded", "batches": 3, "epochs": 0}, "which the other options are for"),
        ({"correlation": "banded", "batches": 3, "epochs": 3, "noise": "skellam"}, 'say noise="gaussian"'),
        ({"correlation": "banded", "batches": 3, "epochs": 3}, "leave out correlation"),
        ({"correlation": "banded", "batches": 3, "epochs": 3, "even_so": True, "amplify": True},
         "leave out correlation"),
        ({"unit": "example", "examples": 9, "correlation": "banded", "batches": 3, "epochs": 3, "bands": 4,
          "amplify": True}, "at most 3 bands, got 4"),
    ],
)  # fmt: skip
def test_options_of_shares_that_contradict_are_refused(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(Misuse, match=why):
        DistributedDP(noise_multiplier=1.0, **wrong)


ROWS: dict[str, Any] = {"unit": "example", "examples": 9, "correlation": "banded", "batches": 6, "epochs": 2}


def test_options_of_shares() -> None:
    plain = DistributedDP(noise_multiplier=1.0)
    assert (plain.unit, plain.relation, plain.noise, plain.rate, plain.examples) == (
        Unit.CLIENT, Relation.ZERO_OUT, "gaussian", 1.0, 0,
    )  # fmt: skip
    assert (plain.batches, plain.epochs, plain.reduction, plain.physical_batch) == (1, 1, "mean", 256)
    assert (plain.needs_local(), plain.takes_blocks, plain.keeps_state, plain.correlation) == (
        False,
        True,
        False,
        None,
    )
    assert plain.public() == {}
    all_of_one = DistributedDP(noise_multiplier=1.0, unit="example", sample_rate=1.0, examples=1)
    assert (all_of_one.relation, all_of_one.rate, all_of_one.examples) == (Relation.ADD_REMOVE, 1.0, 1)
    assert (all_of_one.needs_local(), all_of_one.takes_blocks) == (True, False)
    assert DistributedDP(noise_multiplier=1.0, colluders=0, min_survivors=1).colluders == 0
    assert DistributedDP(noise_multiplier=1.0, noise="skellam").noise == "skellam"
    rows = DistributedDP(noise_multiplier=1.0, **ROWS, bands=3, momentum=0.5)
    assert rows.correlation is not None
    assert rows.public() == {}  # before a run is planned
    kept = rows.correlation
    assert (kept.separation, kept.participations, kept.bands, kept.momentum) == (6, 2, 3, 0.5)
    assert (rows.rate, rows._coin, rows.takes_blocks, rows.keeps_state) == (1 / 6, 1.0, False, True)
    coins = DistributedDP(noise_multiplier=1.0, **ROWS, amplify=True, momentum=0.25)
    assert coins.correlation is not None
    kept = coins.correlation
    assert (kept.separation, kept.participations, kept.bands, kept.momentum) == (4, None, 4, 0.25)
    assert coins._coin == 4 / 6
    assert DistributedDP(noise_multiplier=1.0, **ROWS, bands=6, amplify=True)._coin == 1.0
    turns = DistributedDP(noise_multiplier=1.0, correlation="banded", batches=2, epochs=1, even_so=True)
    assert (turns.batches, turns.epochs, turns.needs_local(), turns.takes_blocks) == (2, 1, False, False)


def test_noise_in_shares_describes_itself() -> None:
    tells = (
        "at most as many clients as the secure sum withstands, or one curious client, tell their noise to the "
        "adversary"
    )
    assert DistributedDP(noise_multiplier=1.0).describe() == (
        f"distributed-dp: discrete Gaussian noise in shares, clip 1 per client, zero-out neighbours; {tells}"
    )
    told = DistributedDP(noise_multiplier=1.0, noise="skellam", colluders=2).describe()
    assert told == (
        "distributed-dp: Skellam noise in shares, clip 1 per client, zero-out neighbours; at most 2 clients, or one "
        "curious client, tell their noise to the adversary"
    )
    rows = (
        f"distributed-dp: discrete Gaussian noise in shares, clip 1 per example, add-remove neighbours; {tells}; "
        "correlated over rounds, %s: parties keep their last sums, sealed, for as long as C' has bands, and 30 days at "
        f"most without a row; assumed: {ASSUMED}"
    )
    assert DistributedDP(noise_multiplier=1.0, **ROWS).describe() == rows % "6 batches in turns"
    assert (
        DistributedDP(noise_multiplier=1.0, **ROWS, amplify=True).describe() == rows % "coins within 4 bands"
    )


@pytest.mark.parametrize(
    ("survivors", "colluders", "shares"), [(9, 2, 7), (9, 0, 8), (1, 0, 1), (2, 1, 1), (2, 0, 1)]
)
def test_the_shares_that_nobody_knows(survivors: int, colluders: int, shares: int) -> None:
    assert unknown(survivors, colluders) == shares


@pytest.mark.parametrize(
    ("changes", "options", "survivors"),
    [
        ({}, {}, 12),
        ({"dropout": 0.25}, {}, 9),
        ({"dropout": 0.3}, {}, 8),
        ({"dropout": 0.99}, {}, 1),
        ({"dropout": 0.99}, {"colluders": 3}, 4),
        ({"dropout": 0.99, "corrupt": 2}, {}, 3),
        ({"cohort": 400, "sampling": "poisson", "rate": 0.25, "dropout": 0.5}, {}, 30),
        ({"sampling": "poisson", "rate": 0.5}, {}, 1),
        ({"dropout": 0.25}, {"min_survivors": 5}, 5),
    ],
)
def test_the_fewest_clients_of_a_total(
    changes: dict[str, Any], options: dict[str, Any], survivors: int
) -> None:
    assert DistributedDP(noise_multiplier=1.0, **options).survivors(run_of(**changes)) == survivors


def test_colluders_are_those_of_the_secure_sum_at_least() -> None:
    run = run_of(corrupt=3)
    assert DistributedDP(noise_multiplier=1.0)._colluders(run) == 3
    assert DistributedDP(noise_multiplier=1.0, colluders=3)._colluders(run) == 3
    with pytest.raises(StackError, match="withstands 3"):
        DistributedDP(noise_multiplier=1.0, colluders=2)._colluders(run)
    with pytest.raises(Misuse, match="3 survivors less 3 colluders leave nobody"):
        DistributedDP(noise_multiplier=1.0, min_survivors=3)._plan(run)


@pytest.mark.parametrize(
    ("options", "units"),
    [({}, 12), ({"unit": "example", "sample_rate": 0.25, "examples": 10_000}, 2500 + 500 + 100),
     ({"unit": "example", "sample_rate": 0.25, "examples": 100}, 100)],
)  # fmt: skip
def test_how_many_clips_a_sum_holds(options: dict[str, Any], units: float) -> None:
    assert DistributedDP(noise_multiplier=1.0, **options)._units(run_of()) == units


@pytest.mark.parametrize(
    ("options", "blocks"),
    [({}, ()), ({}, (BLOCK,)), ({"unit": "example", "sample_rate": 0.25, "examples": 100}, ())],
)
def test_one_release_of_shares_is_priced_as_all_that_a_unit_moves(
    options: dict[str, Any], blocks: tuple[Block, ...]
) -> None:
    layer, run = DistributedDP(noise_multiplier=2.0, **options), run_of(blocks=blocks, dropout=0.25)
    plan = layer._plan(run)
    k = 1 + len(blocks)
    assert (plan.dims, plan.survivors, plan.shares, plan.rows, plan.vectors) == (64, 9, 8, 1, k)
    demand = encoding.Demand(
        1.0, 64, CLIENTS, 8, 2.0 * math.sqrt(k), layer._units(run), conditional=not options
    )
    assert plan.grid == encoding.choose(demand, None, encoding.OVERFLOW / k)
    variance = ((2.0 * math.sqrt(k) * plan.grid.sensitivity) ** 2 + SMOOTHING_VARIANCE) / 8
    assert plan.grid.share_variance == pytest.approx(variance, rel=1e-9)
    event = layer._event(plan)
    assert isinstance(event, DiscreteGaussianSum)
    assert event.sensitivity == pytest.approx(math.sqrt(k) * plan.grid.sensitivity, rel=1e-15)
    assert (event.dims, event.shares, event.sample_rate) == (64 * k, 8, options.get("sample_rate", 1.0))
    assert (event.unit, event.relation, event.share_variance) == (
        layer.unit,
        layer.relation,
        plan.grid.share_variance,
    )
    assert event.sampler_distance < 2.0**-90


@pytest.mark.parametrize(
    "options", [{}, {"unit": "example", "sample_rate": 0.25, "examples": 100}, {"noise": "skellam"}]
)
def test_what_a_run_of_shares_costs_is_what_was_asked_for(options: dict[str, Any]) -> None:
    layer, run = DistributedDP(epsilon=5.0, bits=26, **options), run_of()
    plan = layer._plan(run)
    assert plan.grid.bits == 26
    assert 4.98 < layer.price.of(layer._event(plan), run.rounds, run) <= 5.0


def test_correlated_rows_are_priced_with_the_chance_that_a_dither_moves_further() -> None:
    layer, run = DistributedDP(noise_multiplier=2.0, **ROWS, bands=3), run_of(rounds=12)
    layer.plan(run)
    plan = layer._plan(run)
    assert (plan.rows, plan.vectors) == (3, 1)
    assert layer.correlation is not None
    weights = layer.correlation.strategy(12).weights
    units = layer._units(run)
    demand = encoding.Demand(1.0, 64, CLIENTS, 11, 2.0, units, False, weights=weights, dithered=True)
    assert plan.grid == encoding.choose(demand)
    event = layer._event(plan)
    assert isinstance(event, DiscreteGaussianSum)
    assert event.dims == 3 * 64
    assert event.sampler_distance == pytest.approx(2.0**-100 + 2.0**-70 / 64, rel=1e-9, abs=0)
    assert set(layer.public())
    for change in ({"rounds": 11}, {"sampling": "fixed"}):
        with pytest.raises(Misuse, match="6 batches and 2 epochs make 12 rounds"):
            DistributedDP(noise_multiplier=2.0, **ROWS).plan(replace(run, **change))  # type: ignore[arg-type]


def test_skellam_shares_are_priced_by_their_own_curve() -> None:
    layer = DistributedDP(epsilon=5.0, noise="skellam")
    run = run_of(blocks=(BLOCK,))
    plan = layer._plan(run)
    event = layer._event(plan)
    assert isinstance(event, Skellam)
    moved = plan.grid.sensitivity * math.sqrt(2)
    assert (event.l1, event.l2, event.dims) == (l1_bound(moved, 128), moved, 128)
    assert event.variance == pytest.approx(plan.grid.share_variance * 11)
    assert (event.shares, event.sample_rate) == (11, 1.0)
    same = layer._skellam(plan, 2.0)
    assert isinstance(same, Skellam)
    assert same.variance == pytest.approx((2.0 * plan.grid.sensitivity) ** 2 * 2)
    assert 4.99 < layer.price.of(event, run.rounds, run) <= 5.0
    given = DistributedDP(noise_multiplier=1.0, noise="skellam")._plan(run)
    gauss = DistributedDP(noise_multiplier=1.0)._plan(run)
    assert given.grid == gauss.grid  # a multiplier that is given is kept


def test_blocks_of_another_length_share_no_grid() -> None:
    layer = DistributedDP(noise_multiplier=1.0)
    layer._plan(run_of(blocks=(replace(BLOCK, dimension=DIMS + 1),)))  # of one length once they are padded
    with pytest.raises(StackError, match="the block 'control' is of another"):
        layer._plan(run_of(blocks=(replace(BLOCK, dimension=9),)))


def test_what_is_sent_in_shares() -> None:
    layer, own = DistributedDP(noise_multiplier=1.0, clip=2.0), facts(dropout=0.25, blocks=(BLOCK,))
    plan = layer._plan(own.run)
    for name, clip in ((UPDATE, 2.0), ("control", 0.5)):
        step = plan.grid.step * clip / 2.0
        given = replace(GIVEN, block=name, min_survivors=3)
        assert layer.transform(given, own) == replace(
            given, kind="integer", dimension=64, weight_cap=1, l2=plan.grid.sensitivity * step, linf=None,
            exact_coordinates=False, step=step, modulus=plan.grid.modulus, bound=plan.grid.modulus // 2,
            min_survivors=9, clip=clip,
        )  # fmt: skip
    assert layer.transform(replace(GIVEN, min_survivors=11), own).min_survivors == 11
    layer.transform(GIVEN, replace(own, clients=NAMES[:9]))
    with pytest.raises(StackError, match="demands 9 survivors, the round asks 8"):
        layer.transform(GIVEN, replace(own, clients=NAMES[:8]))
    few = DistributedDP(noise_multiplier=1.0, unit="example", sample_rate=0.5, examples=100)
    few.transform(GIVEN, facts())


def test_the_kind_of_a_round_in_shares() -> None:
    for noise, kind in (("gaussian", DiscreteGaussianSum), ("skellam", Skellam)):
        assert isinstance(DistributedDP(noise_multiplier=1.0, noise=noise).kind(None), kind)


def test_shares_go_in_and_their_sum_comes_out(silent: list[float]) -> None:
    run = run_of(blocks=(BLOCK,), dropout=0.25)
    layer = DistributedDP(noise_multiplier=1.0, clip=2.0, bits=24)
    own, plan = facts(blocks=(BLOCK,), dropout=0.25), layer._plan(run)
    for name, clip in ((UPDATE, 2.0), ("control", 0.5)):
        given, vector = replace(GIVEN, block=name), updates(3.0)[0]
        sent = layer.transform(given, own)
        made = layer.encode(Contribution(vector, 7), given, own)
        assert (made.weight, made.vector.dtype) == (1, np.int64)
        assert np.all(np.abs(made.vector - rotate(vector * clip / 3, SEED) / sent.step) <= 1 + 1e-6)
        out = layer.decode(Aggregate(made.vector, 5.0), SumFacts(given, sent, NAMES), own)
        assert out.vector == pytest.approx(vector * clip / 3, abs=64 * sent.step)
        assert (out.weight, out.vector.dtype, out.vector.size) == (CLIENTS, np.float64, DIMS)
    assert silent == [math.sqrt(plan.grid.share_variance)] * 2
    layer.decode(Aggregate(made.vector, 5.0), SumFacts(given, sent, NAMES[:9]), own)
    with pytest.raises(TooFewSurvivors, match="8 clients are in the total, 9 are needed"):
        layer.decode(Aggregate(made.vector, 5.0), SumFacts(given, sent, NAMES[:8]), own)
    (fact,) = layer.events(own, NAMES)
    assert fact.adversary == "server"


def test_integers_wrap_at_half_the_modulus(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, own = DistributedDP(noise_multiplier=1.0), facts()
    half = layer._plan(own.run).grid.modulus // 2
    monkeypatch.setattr(
        layer, "_client_level", lambda *given: np.array([half - 1, half, -half, -half - 1, 5])
    )
    monkeypatch.setattr(layer, "_share", lambda *given: np.array([0, 0, 0, 0, 2]))
    assert layer.encode(Contribution(np.zeros(5)), GIVEN, own).vector.tolist() == [
        half - 1,
        -half,
        -half,
        half - 1,
        7,
    ]


def test_a_sum_within_a_64th_of_the_modulus_edge_is_refused() -> None:
    layer, own = DistributedDP(noise_multiplier=1.0), facts()
    sent = layer.transform(GIVEN, own)
    edge = int(sent.modulus / 2 * (1 - 1 / 64))
    for value in (edge, -edge):
        layer.decode(Aggregate(np.full(64, value), 1.0), SumFacts(GIVEN, sent, NAMES), own)
        vector = np.zeros(64, np.int64)
        vector[7] = value + (1 if value > 0 else -1)
        with pytest.raises(Aborted, match="lies at the edge of the modulus"):
            layer.decode(Aggregate(vector, 1.0), SumFacts(GIVEN, sent, NAMES), own)


def test_an_exact_sum_is_sent_once_negated_and_in_coarse_steps(silent: list[float]) -> None:
    layer = DistributedDP(noise_multiplier=1.0, clip=0.5, unit="example", sample_rate=0.5, examples=60)
    own = facts()
    plan, fine = layer._plan(own.run), noise_step(0.5, 22)
    assert layer._fine_step() == fine
    shrink = 0.5 / (rounded_bound(0.5, DIMS, fine) * fine)
    assert shrink * (1 - 2.0**-23) < layer._example_clip(DIMS) < shrink * (1 - 2.0**-25)
    total = np.arange(DIMS) * 1000
    layer._sums["c1"] = total
    made = layer.encode(Contribution(np.zeros(DIMS), 7), GIVEN, own)
    assert made.vector.dtype == np.int64
    assert made.vector == pytest.approx(-rotate(total * fine * shrink, SEED) / plan.grid.step, abs=0.51)
    exact = rotate(total * 1.0, SEED) * fine * layer._example_clip(DIMS) / 4.0 / plan.grid.step
    assert layer._rotated(plan, total, 4.0, own) == pytest.approx(exact, rel=1e-12)
    with pytest.raises(StackError, match="its `local` hook did not run"):
        layer.encode(Contribution(np.zeros(DIMS), 7), GIVEN, own)
    out = layer.decode(Aggregate(made.vector, 5.0), SumFacts(GIVEN, layer.transform(GIVEN, own), NAMES), own)
    assert out.weight == 30.0


def test_a_layer_of_shares_drowns_by_the_shares_of_others() -> None:
    run = run_of(dimension=10_000, dropout=0.25)
    layer = DistributedDP(noise_multiplier=4.0, clip=0.5)
    grid = layer._plan(run).grid
    noise = math.sqrt(grid.share_variance * 8) * grid.step * 100 * math.sqrt(12 / 11) / 12
    said = layer.outlook(run)
    assert said is not None
    assert f"has norm {noise:.3g}, and no mean update is longer than the clip 0.5" in said
    assert (
        DistributedDP(noise_multiplier=4.0, unit="example", sample_rate=0.5, examples=60).outlook(run) is None
    )


def test_of_two_clients_one_is_another_and_of_fewer_than_one_expected_one_counts() -> None:
    layer = DistributedDP(noise_multiplier=4.0, clip=0.5, min_survivors=2)
    for run, clients, root in (
        (run_of(dimension=10_000), 12, math.sqrt(12 / 11)),
        (run_of(dimension=10_000, sampling="poisson", rate=0.01), 1, 1.0),
    ):
        grid = layer._plan(run).grid
        noise = math.sqrt(grid.share_variance) * grid.step * 100 * root / clients
        assert f"has norm {noise:.3g}, and no mean" in str(layer.outlook(run))


def test_a_rotation_that_lengthens_by_rounding_is_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    given = list[Any]()
    monkeypatch.setattr("dp.distributed.rotate", lambda vector, seed: 2.0 * vector)
    monkeypatch.setattr("dp.distributed.conditional_round", lambda *all_of_it: given.append(all_of_it))
    layer, own = DistributedDP(noise_multiplier=1.0, clip=3.0), facts()
    plan = layer._plan(own.run)
    for scale, longer in ((0.4, False), (0.8, True)):
        vector = np.zeros(DIMS)
        vector[2] = 3.0 * scale
        layer._client_level(vector, UPDATE, plan, own)
        _, sent, bound, beta = given.pop()
        assert (bound, beta) == (3.0 / plan.grid.step, encoding.BETA)
        assert sent[2] == pytest.approx(min(1.0, 2 * scale) * bound, rel=2.0**-44)
        assert (sent[2] < bound) or not longer


def test_the_examples_of_a_round_are_a_sample_or_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[Any]()

    class Own:
        def of(self, task: Any, step: float, own: RoundFacts, rows: Any = None) -> Any:
            seen.append((step, rows))
            return np.arange(3), {"loss": 0.5}

    monkeypatch.setattr("dp.distributed.batch", lambda own, *given: given)
    task: Any = SimpleNamespace(loader=SimpleNamespace(dataset=range(9)))
    sampled: dict[str, Any] = {"unit": "example", "sample_rate": 0.5, "examples": 9}
    for options, rows in (
        (sampled, None),
        (ROWS, ("distributed-dp", 9, 6, 1.0)),
        (ROWS | {"amplify": True}, ("distributed-dp", 9, 4, 4 / 6)),
    ):
        layer = DistributedDP(noise_multiplier=1.0, **options)
        layer._own = Own()  # type: ignore[assignment]
        assert layer.local(lambda task: {}, facts())(task) == {"loss": 0.5}
        assert seen.pop() == (layer._fine_step(), rows)
        assert layer._sums["c1"].tolist() == [0, 1, 2]
    whole = DistributedDP(noise_multiplier=1.0)
    assert whole.local(len, facts()) is len  # type: ignore[arg-type, comparison-overlap]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_client_that_takes_turns_sends_its_update_as_long_as_it_has_weight(
    place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = list[Any]()

    def rounded(random: object, vector: Any, bound: float, beta: float) -> Any:
        given.append((float(np.linalg.norm(vector)), bound))
        return np.zeros(vector.size, np.int64)

    monkeypatch.setattr("dp.distributed.conditional_round", rounded)
    options: dict[str, Any] = {
        "correlation": "banded",
        "batches": 3,
        "epochs": 2,
        "bands": 2,
        "even_so": True,
    }
    layer, run, store = (
        DistributedDP(noise_multiplier=1.0, clip=2.0, **options),
        run_of(rounds=6),
        MemoryStore(),
    )
    layer.plan(run)
    assert layer.correlation is not None
    strategy, step = layer.correlation.strategy(6), layer._plan(run).grid.step
    client = f"c{3 + place}"
    for row in range(1, 7):
        public: Any = {"distributed-dp": layer.public(), CLOSED: {client: float(row - 1)}}
        own = RoundFacts(run, row, NAMES, SEED, public, client, store, scope="run", schema=b"s")
        layer.encode(Contribution(np.full(DIMS, 9.0), 1), GIVEN, own)
        since = (row - 1 - place) % 3
        norm, bound = given.pop()
        if row - 1 < place:  # its first turn is yet to come
            assert norm == 0.0
            continue
        weight = strategy.weights[since] if since < 2 else 0.0
        assert bound == pytest.approx(weight * 2.0 / step, rel=1e-12)
        assert norm == pytest.approx(bound, rel=1e-4)
    (fact,) = layer.events(own, NAMES)
    assert (fact.kind, fact.facts["row"]) == ("CorrelatedRow", 6)
    weight = layer.decode(
        Aggregate(np.zeros(64, np.int64), 1.0), SumFacts(GIVEN, layer.transform(GIVEN, own), NAMES), own
    ).weight
    assert weight == CLIENTS / 3


@pytest.mark.parametrize(("kind", "root"), [(ClientDP, 12), (LocalDP, math.sqrt(12))])
def test_a_layer_drowns_by_the_noise_of_all_its_vectors(kind: Any, root: float) -> None:
    run = run_of(dimension=10_000, blocks=(replace(BLOCK, dimension=10_000),))
    said = kind(noise_multiplier=4.0, clip=0.5).outlook(run)
    assert f"has norm {4 * math.sqrt(2) * 0.5 * 100 / root:.3g}, and no mean" in said
    few = run_of(dimension=10_000, sampling="poisson", rate=0.01)
    assert f"has norm {4 * 0.5 * 100:.3g}, and no mean" in kind(noise_multiplier=4.0, clip=0.5).outlook(few)


# -- a bound without noise --


@pytest.mark.parametrize("bound", [True, "1", 0, -1.0, math.inf, math.nan])
def test_a_norm_bound_out_of_range_is_refused(bound: Any) -> None:
    with pytest.raises(Misuse, match="finite bound > 0"):
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
