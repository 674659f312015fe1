"""What noise in shares says, plans, sends and opens, in numbers that were worked out by hand."""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dp import DistributedDP, encoding
from dp.accountants.reduction import SMOOTHING_VARIANCE
from dp.distributed_plan import unknown
from dp.events import (
    DiscreteGaussianSum,
    Relation,
    Skellam,
    Unit,
)
from dp.mechanisms.grid import noise_step, rounded_bound
from dp.rotation import rotate
from dp.rounding import l1_bound
from dp.sample.options import ASSUMED
from protocols.errors import Aborted, Misuse, StackError, TooFewSurvivors
from protocols.layers import (
    UPDATE,
    Aggregate,
    Block,
    Contribution,
    RoundFacts,
    SumFacts,
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
    run_of,
    updates,
)
from tests.unit.dp.layer_rig import silent as silent


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"unit": "house"}, 'expected unit "client" or "example"'),
        ({"noise": "pink"}, 'expected noise "gaussian" or "skellam"'),
        ({"noise": "skellam", "accountant": "pld"}, "Skellam noise has a Renyi curve only"),
        ({"colluders": -1}, "colluders: expected a whole number from 0"),
        ({"min_survivors": 2, "colluders": 2}, "0 <= colluders < min_survivors"),
        ({"sample_rate": 0.5}, "a server sees which clients take part"),
        ({"examples": 9}, "a server sees which clients take part"),
        ({"unit": "example", "examples": 9}, "needs sample_rate, and examples"),
        ({"unit": "example", "sample_rate": 0.5}, "needs sample_rate, and examples"),
        ({"unit": "example", "sample_rate": 0.0, "examples": 9}, r"sample_rate: expected a number in \(0, 1\]"),
        ({"unit": "example", "sample_rate": 1.5, "examples": 9}, r"sample_rate: expected a number in \(0, 1\]"),
        ({"unit": "example", "sample_rate": 0.5, "examples": 0}, "examples: expected a whole number >= 1"),
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
        ({"correlation": "banded", "batches": 3, "epochs": 0}, "epochs: expected a whole number >= 1"),
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
