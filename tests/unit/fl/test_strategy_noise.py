"""Strategies of several vectors beside noise: what a second vector costs, what may join a layer that protects
examples, and which stacks are refused, by name.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dp import ClientDP, DistributedDP, Ledger, LocalDP, NormBound, SampleDP
from dp.accountants import accountant
from dp.event_json import from_fact
from dp.sample.options import AdaptiveClip
from fl import (
    FedAdagrad,
    FedAdam,
    FedAdp,
    FedAvg,
    FedAvgM,
    FedDyn,
    FedNova,
    FedProx,
    FedYogi,
    FewBits,
    RandomK,
    Scaffold,
)
from fl.computation import LocalComputation
from fl.strategies import Strategy
from fl.strategies.base import Extras
from protocols.errors import Misuse, StackError
from protocols.layers import Block, Contribution, LocalTask, RoundFacts, RunFacts
from protocols.stack import Numbers, Stack
from secagg import SecAggPlus
from tests.toys.controlled import Controlled
from tests.toys.squares import EXAMPLES, federation, weights
from tests.unit.fl.test_strategy_state import DATA, WIDE, mean_kept

DIMS = 20_000


def plan_of(layer: Any, *blocks: Block) -> Any:
    run = RunFacts(10, 4, 4, dimension=DIMS, blocks=blocks)
    stack = Stack([layer], Numbers(16, None, 10))
    stack.plan(run)
    return stack.round(RoundFacts(run, 1, ("a", "b", "c", "d"), bytes(32), stack.public()), np.zeros(DIMS))


CONTROL = Block("control", DIMS, weighted=False, range=0.5, clip=0.5)

NOISED: list[tuple[Any, dict[str, Any]]] = [
    (ClientDP, {"clip": 2.0}),
    (ClientDP, {"clip": "adaptive"}),
    (LocalDP, {"clip": 2.0}),
    (DistributedDP, {"clip": 2.0, "colluders": 0}),
    (DistributedDP, {"clip": 2.0, "colluders": 0, "noise": "skellam"}),
]


def total_of_nothing(plan: Any) -> Any:
    """The sum of clients whose vectors are zero, their own noise included, as a secure sum gives it."""
    empty = Contribution(np.zeros(DIMS), 1, blocks={b.name: np.zeros(DIMS) for b in plan.facts.run.blocks})
    sent = [plan.encode(empty, replace(plan.facts, client=name)) for name in plan.facts.clients]
    half = plan.modulus // 2
    return (sum(sent) + half) % plan.modulus - half if half else sum(sent)


def priced_noise(layer: Any, *blocks: Block) -> tuple[float, list[float]]:
    """What ten rounds cost, and each vector's noise in the sum over its clip."""
    plan = plan_of(layer, *blocks)
    event, *_ = plan.events(plan.facts.clients)
    account = accountant("rdp")
    account.add(from_fact(event), 10)
    found = plan.decode(total_of_nothing(plan), plan.facts.clients)
    parts = zip([found, *found.blocks.values()], plan.parts, strict=True)
    return account.epsilon(1e-5), [float(np.std(of.vector)) / float(part.norm or 0) for of, part in parts]


@pytest.mark.parametrize(("make", "options"), NOISED)
def test_two_vectors_get_more_noise_and_cost_what_one_costs(make: Any, options: dict[str, Any]) -> None:
    """Their noise over their clips is sqrt(2) times one's: 20,000 draws, so 5 % is ten standard errors."""
    (price, (alone,)), (both, noises) = (
        priced_noise(make(epsilon=4.0, delta=1e-5, **options), *blocks) for blocks in ((), (CONTROL,))
    )
    assert both == pytest.approx(price, rel=0.01)
    assert both <= 4.0
    assert noises == pytest.approx([np.sqrt(2) * alone] * 2, rel=0.05)


def as_if_alone(kind: Any, method: str, noise: Callable[[Any], Any]) -> Any:
    """A planted defect: each vector is noised as if no other left with it."""

    def broken(self: Any, *given: Any) -> Any:
        return noise(getattr(kind, method)(self, *given))

    return type("Broken", (kind,), {method: broken})


ALONE = [
    as_if_alone(ClientDP, "_vector_multiplier", lambda m: m / np.sqrt(2)),
    as_if_alone(LocalDP, "_grid", lambda found: (*found[:2], found[2] / np.sqrt(2))),
    as_if_alone(DistributedDP, "_grid", lambda grid: replace(grid, share_variance=grid.share_variance / 2)),
]


@pytest.mark.parametrize("broken", ALONE, ids=["client-dp", "local-dp", "distributed-dp"])
def test_two_vectors_with_the_noise_of_one_are_caught(broken: Any) -> None:
    """By the noise that is measured, or by the price of what is planned."""
    sound = broken.__mro__[1]
    (price, noises), (fair, expected) = (
        priced_noise(kind(epsilon=4.0, delta=1e-5, clip=2.0), CONTROL) for kind in (broken, sound)
    )
    assert price > 1.2 * fair or noises != pytest.approx(expected, rel=0.05)


def test_each_vector_is_clipped_to_its_own_norm_last_of_all() -> None:
    """Nothing that a strategy corrects by, keeps or scales with makes what is sent longer than the clip."""
    run = federation(DATA, Scaffold(control_clip=0.25), [ClientDP(noise_multiplier=1.0, clip=0.125)], **WIDE)
    run.fit(2)
    shown = run.coordinator.open(3, run.setup.names)
    own = shown.own("0", run.engine.stores["0"])  # type: ignore[attr-defined]
    made = LocalComputation(run.setup, run.model)(shown, own)
    huge = replace(made, vector=made.vector * 1e6, blocks={"control": made.blocks["control"] + 1e6})
    for given in (made, huge):
        integers = shown.plan.encode(given, own)
        update, control = integers[:3], integers[-3:]
        assert shown.plan.parts[1].size == 3
        steps = [part.quantiser.step for part in shown.plan.parts if part.quantiser]
        slack = np.sqrt(3) / 2
        assert np.linalg.norm(update) * steps[0] <= 0.125 + slack * steps[0]
        assert np.linalg.norm(control) * steps[1] <= 0.25 + slack * steps[1]


@pytest.mark.parametrize("make", [ClientDP, LocalDP, DistributedDP])
def test_a_round_of_scaffold_under_noise_is_charged_once_for_both(make: Any, tmp_path: Path) -> None:
    spent = []
    for strategy in (Scaffold(), FedAvg(weighted=False)):
        path = tmp_path / strategy.name
        ledgers = {str(i): Ledger(path / f"{i}.jsonl", epsilon=50.0, delta=1e-5) for i in range(len(DATA))}
        result = federation(DATA, strategy, [make(noise_multiplier=2.0, ledger=ledgers)], **WIDE).fit(3)
        spent.append([len(result.statement.events), result.epsilon, ledgers["0"].epsilon()])
    assert spent[0] == pytest.approx(spent[1], rel=1e-3)


@pytest.mark.parametrize("make", [LocalDP, DistributedDP])
def test_both_vectors_are_clipped_to_their_own_norms_under_noise_of_clients(make: Any) -> None:
    """With next to no noise: what is in the sum is the clipped vectors, and the server's control variate stays the mean
    of the clients' own.
    """
    layer = make(noise_multiplier=1e-6, clip=0.125)
    run = federation(DATA, strategy := Scaffold(control_clip=0.25), [layer], **WIDE)
    start = weights(run)
    run.fit(1)
    assert np.linalg.norm(weights(run) - start) <= 0.125 * 1.001
    assert np.linalg.norm(strategy.public()["control"]) <= 0.25 * 1.001
    assert mean_kept(run, "control") == pytest.approx(strategy.public()["control"], abs=1e-3)


@pytest.mark.parametrize("make", [LocalDP, DistributedDP])
def test_scaffold_beside_next_to_no_noise_is_scaffold(make: Any) -> None:
    layer = make(noise_multiplier=1e-6, clip=64.0)
    runs = [federation(DATA, Scaffold(control_clip=64.0), layers, **WIDE) for layers in ([layer], [])]
    for run in runs:
        run.fit(4)
    assert weights(runs[0]) == pytest.approx(weights(runs[1]), abs=1e-2)


def nearly_silent() -> SampleDP:
    """All examples in every step, no clip that bites, next to no noise: steps as without the layer."""
    return SampleDP(noise_multiplier=1e-7, clip=1e3, batch_size=EXAMPLES)


@pytest.mark.parametrize(
    "make",
    [
        lambda: FedProx(6.0, weighted=False),
        Scaffold,
        lambda: FedDyn(6.0),
        lambda: FedNova(usual=3, weighted=False),
    ],
)
def test_a_correction_joins_after_the_noise_of_private_steps(make: Any) -> None:
    runs = [federation(DATA[:2], make(), layers, **WIDE) for layers in ([], [nearly_silent()])]
    for run in runs:
        run.fit(2)
    assert weights(runs[1]) == pytest.approx(weights(runs[0]), abs=1e-4)
    plain = federation(DATA[:2], FedAvg(weighted=False), [nearly_silent()], **WIDE)
    plain.fit(2)
    if make is not Scaffold and not isinstance(make(), FedNova):
        assert np.abs(weights(plain) - weights(runs[1])).max() > 0.01


def test_control_variates_of_private_updates_cost_nothing_more() -> None:
    runs = [
        federation(DATA[:2], strategy, [SampleDP(noise_multiplier=1.0, batch_size=4)], **WIDE)
        for strategy in (Scaffold(), FedDyn(), FedAvg(weighted=False))
    ]
    epsilons = [run.fit(1).epsilon for run in runs]
    assert epsilons[0] == epsilons[1] == epsilons[2]


class Peeks(Strategy):
    """Toy: sends a further vector that is no function of the update."""

    name = "peeks"
    weighted = False

    def blocks(self, dimension: int) -> tuple[Block, ...]:
        return (Block("seen", 1, False, range=1.0),)

    def extras(
        self, task: LocalTask, difference: np.ndarray, reported: Mapping[str, float], facts: RoundFacts
    ) -> Extras:
        return Extras(blocks={"seen": np.zeros(1)})


EXAMPLE_LEVEL = {"noise_multiplier": 1.0, "unit": "example", "sample_rate": 0.5, "examples": 48}

REFUSED: dict[str, tuple[Callable[[], Any], Callable[[], Any], str]] = {
    "gradients kept raw": (
        lambda: Scaffold(1),
        nearly_silent,
        r"scaffold cannot stand .* option 1 .* take option 2",
    ),
    "angles": (FedAdp, nearly_silent, r"fedadp cannot stand beside it: clients count equally"),
    "state of unknown making": (
        Controlled,
        nearly_silent,
        r"controlled cannot stand .* protected values alone",
    ),
    "a raw block": (Peeks, nearly_silent, r"sample-dp makes the update private .* block 'seen'"),
    "no steps": (
        Scaffold,
        lambda: DistributedDP(**EXAMPLE_LEVEL),
        r"no own step: Scaffold has none to correct",
    ),
    "no steps for fedprox": (FedProx, lambda: DistributedDP(**EXAMPLE_LEVEL), r"FedProx has none to correct"),
    "a norm bound": (Scaffold, NormBound, r"norm-bound protects the update alone"),
    "a vector of another length": (
        FedNova,
        lambda: DistributedDP(noise_multiplier=1.0),
        r"distributed-dp shares one grid between vectors of one length; the block 'steps'",
    ),
    "no clip under local noise": (
        Peeks,
        lambda: LocalDP(noise_multiplier=1.0),
        r"local-dp clips every vector, and the block 'seen'",
    ),
    "a residual": (
        FedDyn,
        lambda: RandomK(0.67),
        r"random-k sends later what it leaves out, and feddyn reckons",
    ),
    "no clip": (
        Peeks,
        lambda: ClientDP(noise_multiplier=1.0),
        r"client-dp clips every vector, and the block 'seen'",
    ),
    "uniform weights": (
        FedAdp,
        lambda: ClientDP(noise_multiplier=1.0),
        r"chooses weights up to 10000, and a client",
    ),
    "a secret choice": (
        Scaffold,
        lambda: ClientDP(noise_multiplier=1.0, amplify=True),
        r"clients that keep state are told",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_theory_does_not_allow_is_refused_by_name(case: str) -> None:
    strategy, layer, match = REFUSED[case]
    options = {"fraction": 0.5, "sampling": "poisson"} if case == "a secret choice" else {}
    with pytest.raises((StackError, Misuse), match=match):
        federation(DATA, strategy(), [layer(), SecAggPlus()], **options).fit(1)


COMPOSES: dict[str, tuple[Callable[[], Any], tuple[Callable[[], Any], ...]]] = {
    "sample-dp": (
        lambda: SampleDP(noise_multiplier=1.0, batch_size=6),
        (FedYogi,),
    ),
    "distributed-dp": (
        lambda: DistributedDP(noise_multiplier=1.0),
        (FedAdam, FedProx, FedDyn, lambda: FedNova(tau=3), Scaffold),
    ),
    "local-dp": (lambda: LocalDP(noise_multiplier=1.0), (FedYogi, FedDyn, FedNova, lambda: Scaffold(1))),
    "norm-bound": (lambda: NormBound(0.5), (FedAvgM, FedDyn, lambda: FedNova(tau=3))),
    "random-k": (lambda: RandomK(0.67), (FedAdagrad, lambda: FedNova(tau=3), FedAdp)),
    "few-bits": (lambda: FewBits(8, range=1.0), (FedAvgM, FedProx, lambda: FedNova(tau=3))),
    "client-dp": (lambda: ClientDP(noise_multiplier=1.0), (FedAdam, FedNova, FedDyn, lambda: Scaffold(1))),
}


@pytest.mark.parametrize("name", COMPOSES)
def test_what_the_page_says_composes_does(name: str) -> None:
    layer, strategies = COMPOSES[name]
    for make in strategies:
        run = federation(DATA, make(), [layer(), SecAggPlus()], **WIDE)
        assert [result.abandoned for result in run.fit(2).history] == [None] * 2
        assert np.isfinite(weights(run)).all()


def test_server_steps_go_over_gradients_that_a_layer_sums_itself() -> None:
    layer = DistributedDP(noise_multiplier=1.0, unit="example", sample_rate=0.5, examples=72)
    run = federation(DATA, FedAdam(0.1), [layer, SecAggPlus()])
    assert run.fit(1).history[0].abandoned is None


def test_chosen_weights_beside_noise_are_bounded_and_work() -> None:
    layer = ClientDP(noise_multiplier=1e-9, clip=9.0, weights="bounded", weight_cap=100)
    run = federation(DATA, FedAdp(weight_cap=100), [layer], **WIDE)
    assert not any(result.abandoned for result in run.fit(3).history)
    assert weights(run).any()


def test_an_adaptive_clip_of_private_steps_composes_too() -> None:
    layer = SampleDP(
        noise_multiplier=1.0, batch_size=4, clip=AdaptiveClip(count_noise=2.0), clipping="adaptive"
    )
    assert not any(
        result.abandoned for result in federation(DATA, Scaffold(), [layer], **WIDE).fit(2).history
    )
