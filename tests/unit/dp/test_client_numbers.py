"""What noise on the sum says, plans, sends and opens, in numbers that were worked out by hand."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dp import ClientDP
from dp.client import UNCLIPPED, Quantile
from dp.events import (
    DiscreteGaussianSum,
    Failing,
    FixedSizeGaussian,
    Gaussian,
    PoissonGaussian,
    Relation,
    Unit,
)
from dp.layering import Price, discrete, integer_sigma
from protocols.errors import Misuse, ProtocolViolation, StackError
from protocols.layers import (
    Aggregate,
    Block,
    Contribution,
    Coordinate,
    RoundFacts,
    RunFacts,
)
from protocols.party_state import CLOSED
from protocols.store import MemoryStore
from tests.unit.dp.layer_rig import (
    BLOCK,
    CLIENTS,
    DIMS,
    GIVEN,
    NAMES,
    SEED,
    facts,
    opened,
    run_of,
)
from tests.unit.dp.layer_rig import silent as silent


@pytest.mark.parametrize(
    "wrong",
    [{"start": 0.0}, {"start": math.inf}, {"target": 0.0}, {"target": 1.0}, {"target": 1.5}, {"rate": 0.0},
     {"rate": -1.0}, {"count_noise": 0.0}, {"count_noise": -1.0}],
)  # fmt: skip
def test_a_quantile_out_of_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Misuse, match=r"expected a number (> 0|in \(0, 1\))"):
        Quantile(**wrong)
    assert Quantile(start=0.5, target=0.25, rate=0.5, count_noise=0.5).start == 0.5


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"weights": "any"}, "expected weights"),
        ({"weights": "bounded", "weight_cap": 0}, "weight_cap: expected a whole number from 1"),
        ({"weight_cap": 2}, "expected weights"),
        ({"relation": "add-remove"}, "add-remove is not on offer"),
        ({"denominator": 0.0}, "denominator: expected a number > 0"),
        ({"denominator": math.inf}, "denominator: expected a number > 0"),
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
