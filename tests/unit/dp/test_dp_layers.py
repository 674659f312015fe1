"""The layers in a stack: composition, sensitivity carried along, noise for the guaranteed survivors,
accounts that match."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dp import ClientDP, DistributedDP
from dp.accountants import accountant
from dp.client import UNCLIPPED, Quantile
from dp.event_json import from_fact
from dp.events import DiscreteGaussianSum, FixedSizeGaussian, Skellam
from protocols.errors import Misuse, StackError, TooFewSurvivors
from protocols.layers import UPDATE, Contribution, RoundFacts
from protocols.randomness import SystemRandom
from protocols.roundplan import RoundPlan
from protocols.stack import Numbers, Stack
from secagg import SecAggPlus
from tests.unit.dp.layer_rig import (
    CLIENTS,
    DIMS,
    LAYERS,
    PLANS,
    SEED,
    Floats,
    released,
    round_of,
    run_of,
    updates,
)


@pytest.mark.parametrize("name", LAYERS)
def test_the_mean_comes_out_with_noise_around_it(name: str) -> None:
    layer = LAYERS[name]()
    plan = round_of(layer, run_of())
    mine = updates(0.9)
    aggregate = released(plan, mine)
    error = aggregate.vector - np.sum(mine, axis=0)
    noise = float(np.std(error))
    assert aggregate.weight == CLIENTS
    assert 0.3 < noise < 60  # noise there is; how much exactly is tested below


@pytest.mark.parametrize("name", LAYERS)
def test_what_the_plan_costs_is_what_was_asked_for(name: str) -> None:
    layer = LAYERS[name]()
    plan = round_of(layer, run_of())
    names = plan.facts.clients
    account = accountant("rdp")
    mine = [fact for fact in plan.events(names) if fact.party in ("", names[0])]
    assert len(mine) == 1
    account.add(from_fact(mine[0]), 10)
    assert 0.98 * layer.price.epsilon <= account.epsilon(1e-5) <= layer.price.epsilon


@pytest.mark.parametrize("name", ["client", "gaussian", "skellam"])
def test_noise_in_the_sum_has_the_variance_that_is_accounted(name: str) -> None:
    """All shares, the one among them that is not priced too. 700 releases x 40 (or 64) coordinates: at least 28,000
    draws, relative sd of the variance below 0.85 %.
    """
    layer = LAYERS[name]()
    plan = round_of(layer, run_of())
    zero = [np.zeros(DIMS)] * CLIENTS
    draws = np.concatenate([released(plan, zero).vector for _ in range(700)])
    event = from_fact(plan.events(plan.facts.clients)[0])
    if isinstance(event, DiscreteGaussianSum):
        stated = event.variance / event.sensitivity**2
    else:
        assert isinstance(event, Skellam)
        stated = event.variance / event.l2**2
    stated *= 1 if name == "client" else CLIENTS / event.shares
    assert plan.summed.l2 is not None
    measured = float(np.var(draws)) / plan.summed.l2**2
    assert abs(measured / stated - 1) < 0.06  # 7 sd: a false alarm in less than 10^-11 of the runs


@settings(max_examples=60, deadline=None)
@given(
    scale=st.sampled_from([0.0, 1e-300, 1e-12, 0.3, 1.0, 1e6, 1e150, 1e300]),
    sparse=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_no_update_moves_the_integers_by_more_than_the_stated_bound(
    scale: float, sparse: bool, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    update = generator.normal(size=DIMS) * scale
    if sparse:
        update[1:] = 0.0
    for layer in (ClientDP(noise_multiplier=1.0, clip=0.7), DistributedDP(noise_multiplier=1.0, clip=0.7)):
        plan = PLANS.setdefault(layer.name, round_of(layer, run_of()))
        vector = _without_noise(plan, update)
        assert plan.summed.l2 is not None
        assert float(np.linalg.norm(vector.astype(float))) * plan.summed.step <= plan.summed.l2


def _without_noise(plan: RoundPlan, update: Floats) -> NDArray[np.int64]:
    layer = plan.layers[0]
    if isinstance(layer, DistributedDP):
        return layer._client_level(update, UPDATE, layer._plan(plan.facts.run), plan.facts)
    return plan.encode(Contribution(update, 1), plan.facts)[:DIMS]


@pytest.mark.parametrize("name", LAYERS)
def test_weights_and_exact_coordinates_do_not_leave_beside_the_noise(name: str) -> None:
    plan = round_of(LAYERS[name](), run_of(), weight_cap=1000)
    assert plan.summed.weight_cap == 1
    assert not plan.summed.exact_coordinates
    assert {c.name for c in plan.summed.coordinates} <= {UNCLIPPED}


def test_bounded_weights_grow_the_sensitivity_and_keep_the_denominator_fixed() -> None:
    plan = round_of(
        ClientDP(noise_multiplier=1e-3, weights="bounded", weight_cap=50), run_of(), weight_cap=1000
    )
    assert plan.summed.l2 is not None
    assert 50 <= plan.summed.l2 <= 50.5
    total = plan.encode(Contribution(updates(1.0)[0], 50), plan.facts)
    aggregate = plan.decode(total, plan.facts.clients[:1])  # eleven are missing
    assert aggregate.weight == 50 * CLIENTS


def test_the_adaptive_clip_follows_the_updates_and_is_broadcast() -> None:
    layer = ClientDP(noise_multiplier=0.1, clip=Quantile(start=10.0, count_noise=0.3, rate=1.0))
    stack = Stack([layer], Numbers(weight_cap=1))
    stack.plan(run_of())
    for number in range(1, 25):
        plan = stack.round(
            RoundFacts(run_of(), number, tuple("abcdefghijkl"), SEED, stack.public()), np.zeros(DIMS)
        )
        released(plan, updates(0.5))
    assert 0.05 < layer.clip < 2.0
    assert stack.public()["client-dp"]["clip"] == layer.clip
    again = ClientDP(noise_multiplier=0.1, clip=Quantile(start=10.0))
    again.restore(layer.state())
    assert again.clip == layer.clip


def test_the_quantiles_own_noise_is_accounted() -> None:
    fixed, adaptive = ClientDP(epsilon=8), ClientDP(epsilon=8, clip=Quantile(count_noise=0.4))
    run = run_of()
    assert adaptive._vector_multiplier(run) > fixed._vector_multiplier(run) * 1.001
    with pytest.raises(Misuse, match="count_noise"):  # a twentieth of 12 clients is too little noise
        round_of(ClientDP(epsilon=0.5, clip=Quantile(count_noise=0.05)), run)


@pytest.mark.parametrize("cohort, rounds", [(3, 50), (10, 50), (40, 50), (2000, 50)])
def test_adaptive_clipping_fits_any_cohort_by_itself(cohort: int, rounds: int) -> None:
    fixed, adaptive = ClientDP(epsilon=8), ClientDP(epsilon=8, clip="adaptive")
    run = run_of(rounds=rounds, population=cohort, cohort=cohort)
    count = adaptive._count_std(run)
    assert count >= 0.05 * cohort
    whole, vector = adaptive._multiplier(run), adaptive._vector_multiplier(run)
    assert vector**-2 + (2 * count) ** -2 == pytest.approx(whole**-2)  # Andrew et al. 2021, theorem 1
    assert fixed._multiplier(run) <= vector <= 1.06 * whole


@pytest.mark.parametrize("sampling", ["all", "fixed", "poisson"])
def test_amplification_is_claimed_only_where_the_choice_is_secret(sampling: str) -> None:
    run = run_of(
        population=100, cohort=100 if sampling == "poisson" else CLIENTS, sampling=sampling, rate=0.12
    )
    if sampling == "all":
        run = run_of()
    plain, secret = ClientDP(epsilon=5), ClientDP(epsilon=5, amplify=True)
    facts = [round_of(layer, run).events(("a",))[0] for layer in (plain, secret)]
    assert facts[0].adversary == "clients"
    assert facts[1].adversary == "public"
    assert secret.secret_sampling
    assert not plain.secret_sampling
    assert not isinstance(from_fact(facts[0]), FixedSizeGaussian)
    less = secret._multiplier(run) / plain._multiplier(run)
    assert less == 1 if sampling == "all" else less < 0.8


def test_shares_are_calibrated_to_the_guaranteed_survivors_less_the_colluders() -> None:
    layer = DistributedDP(noise_multiplier=2.0, colluders=2)
    run = run_of(dropout=0.25)
    plan = round_of(layer, run)
    assert plan.summed.min_survivors == 9
    event = from_fact(plan.events(plan.facts.clients)[0])
    assert isinstance(event, DiscreteGaussianSum)
    assert event.shares == 7  # priced: nine survivors less two who tell their noise
    assert math.sqrt(event.variance) >= 2.0 * event.sensitivity
    assert plan.summed.l2 is not None
    draws = np.concatenate([released(plan, [np.zeros(DIMS)] * 9, 9).vector for _ in range(250)])
    # 10,000 draws at least: the variance has a relative sd of 1.4 %, 0.9 is 7 of them
    assert float(np.var(draws)) > 0.9 * 9 / 7 * (2.0 * plan.summed.l2) ** 2
    with pytest.raises(TooFewSurvivors):
        released(plan, [np.zeros(DIMS)] * 8, 8)


@pytest.mark.parametrize("noise", ["gaussian", "skellam"])
@pytest.mark.parametrize("dropout,collusion,least", [(0.2, 0.1, None), (0.2, 0.2, None), (0.2, 0.2, 61)])
def test_noise_of_clients_who_may_work_with_the_server_is_not_counted(
    noise: str, dropout: float, collusion: float, least: int | None
) -> None:
    """The sum's own statement admits so many corrupt clients; they know the noise that they added."""
    layer = DistributedDP(epsilon=2.0, delta=1e-5, noise=noise, min_survivors=least)
    masks = SecAggPlus(dropout=dropout, collusion=collusion)
    stack, run = Stack([layer, masks]), run_of(population=100, cohort=100, dropout=dropout)
    stack.plan(run)
    names = tuple(f"c{i}" for i in range(run.cohort))
    plan = stack.round(RoundFacts(run, 1, names, SEED, {}), np.zeros(run.dimension))
    session = masks.session(
        names,
        plan.dimension,
        plan.summed.bound,
        modulus=plan.summed.modulus,
        random=SystemRandom(),
        min_survivors=plan.summed.min_survivors,
    )
    corrupt = masks.protection(session).parameters["corrupt"]
    assert corrupt == int(100 * collusion)
    event = from_fact(plan.events(names)[0])
    assert isinstance(event, DiscreteGaussianSum | Skellam)
    assert event.shares == plan.summed.min_survivors - corrupt
    # everybody, and every message, rests on it: a server that plans without it states another event
    assert plan.planned(run) == plan.planned(replace(run, corrupt=99))
    assert f'"shares": {event.shares}' in plan.planned(run)[0]


@pytest.mark.parametrize("noise", ["gaussian", "skellam"])
@pytest.mark.parametrize("survivors,shares", [(1, 1), (2, 1), (3, 2), (5, 4)])
def test_a_client_of_the_sum_knows_its_own_share(noise: str, survivors: int, shares: int) -> None:
    """Whoever is in the sum subtracts what it added itself: printed was the price of all shares."""
    run = run_of(population=survivors, cohort=survivors)
    layer = DistributedDP(epsilon=2.0, delta=1e-5, noise=noise)
    event = from_fact(round_of(layer, run).events(tuple(f"c{i}" for i in range(survivors)))[0])
    assert isinstance(event, DiscreteGaussianSum | Skellam)
    assert event.shares == shares
    assert accountant("rdp").add(event, run.rounds).epsilon(1e-5) <= 2.0
    variance = event.variance if isinstance(event, Skellam) else event.share_variance * event.shares
    assert layer._plan(run).grid.share_variance * shares == pytest.approx(variance)


def test_fewer_colluders_than_the_secure_sum_withstands_are_refused() -> None:
    run = run_of(population=100, cohort=100)
    with pytest.raises(StackError, match="of 100 clients the secure sum withstands 10"):
        Stack([DistributedDP(epsilon=2.0, delta=1e-5, colluders=9), SecAggPlus()]).plan(run)
    Stack([DistributedDP(epsilon=2.0, delta=1e-5, colluders=0), SecAggPlus(collusion=0.0)]).plan(run)
    Stack([DistributedDP(epsilon=2.0, delta=1e-5, colluders=12), SecAggPlus()]).plan(run)
