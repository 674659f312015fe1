"""What DP layers refuse: stacks and options that do not fit, and prices that no accountant or ledger can tell. And what
they claim without a secure sum.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dp import ClientDP, DistributedDP, Ledger, LocalDP, SampleDP
from dp.client import Quantile
from dp.events import UnknownEvent
from protocols import PlainSum
from protocols.errors import Aborted, BudgetExceeded, Misuse, StackError
from protocols.layers import Contribution, RoundFacts
from protocols.stack import Numbers, Stack
from secagg import SecAggPlus
from tests.unit.dp.layer_rig import CLIENTS, DIMS, SEED, released, round_of, run_of, updates


def test_a_sum_at_the_edge_of_the_modulus_is_refused() -> None:
    plan = round_of(DistributedDP(noise_multiplier=1.0), run_of())
    edge = np.full(plan.dimension, plan.summed.modulus // 2 - 1, np.int64)
    with pytest.raises(Aborted, match="wrapped"):
        plan.decode(edge, plan.facts.clients)


@pytest.mark.parametrize(
    "layers",
    [
        [DistributedDP(epsilon=1), ClientDP(epsilon=1)],
        [LocalDP(epsilon=1), DistributedDP(epsilon=1)],
        [LocalDP(epsilon=1), ClientDP(epsilon=1)],
        [ClientDP(epsilon=8, clip=Quantile(count_noise=0.9)), DistributedDP(epsilon=1)],
        [ClientDP(epsilon=8), LocalDP(epsilon=8)],
        [ClientDP(epsilon=8), DistributedDP(epsilon=8)],
    ],
    ids=lambda layers: "+".join(layer.name for layer in layers),
)
def test_layers_that_do_not_fit_are_refused_when_the_stack_is_planned(layers: list[Any]) -> None:
    with pytest.raises(StackError):
        Stack(layers, Numbers(weight_cap=1)).plan(run_of())


def test_example_level_gradients_without_the_local_hook_are_refused() -> None:
    plan = round_of(
        DistributedDP(noise_multiplier=1.0, unit="example", sample_rate=0.1, examples=100), run_of()
    )
    with pytest.raises(StackError, match="local"):
        plan.encode(Contribution(np.zeros(DIMS), 1), plan.facts)


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"epsilon": 1.0, "noise_multiplier": 1.0},
        {"epsilon": -1.0},
        {"epsilon": math.inf},
        {"epsilon": 1.0, "delta": 1.0},
        {"epsilon": 1.0, "accountant": "guess"},
        {"epsilon": 1.0, "clip": 0.0},
        {"epsilon": 1.0, "clip": math.nan},
    ],
)
@pytest.mark.parametrize("layer", [ClientDP, DistributedDP, LocalDP, SampleDP])
def test_options_out_of_range_are_refused(layer: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(Misuse):
        layer(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"unit": "house"},
        {"noise": "pink"},
        {"unit": "example"},
        {"unit": "example", "sample_rate": 1.5, "examples": 10},
        {"sample_rate": 0.5},
        {"colluders": -1},
        {"min_survivors": 2, "colluders": 2},
        {"noise": "skellam", "accountant": "pld"},
    ],
)
def test_distributed_options_that_contradict_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Misuse):
        DistributedDP(epsilon=1.0, **wrong)


@pytest.mark.parametrize("kind", [ClientDP, DistributedDP, LocalDP])
def test_a_clients_own_ledger_is_charged_before_its_update_leaves(kind: Any, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "own", epsilon=2.0, delta=1e-5, accountant="rdp")
    run = run_of(rounds=1)
    layer = kind(epsilon=1.5, delta=1e-5, ledger=lambda client: ledger if client == "c3" else None)
    plan = round_of(layer, run)
    released(plan, updates(1.0))
    assert ledger.epsilon() == pytest.approx(1.5, rel=1e-2)
    assert [entry.party for entry in ledger.entries()] == ["c3"]
    with pytest.raises(BudgetExceeded):
        plan.encode(Contribution(updates(1.0)[0], 1), replace(plan.facts, client="c3"))


def test_what_its_accountant_cannot_price_is_refused_when_the_run_is_planned() -> None:
    """It died in round 1: a fixed-size sample has no privacy loss distribution, a replaced Poisson sample no curve."""
    sampled = ClientDP(noise_multiplier=2.0, amplify=True, accountant="pld")
    with pytest.raises(UnknownEvent, match="pld accountant has no price for FixedSizeGaussian"):
        Stack([sampled]).plan(run_of(cohort=3, sampling="fixed", rate=0.25))
    replaced = ClientDP(noise_multiplier=2.0, amplify=True, relation="replace")
    with pytest.raises(
        UnknownEvent, match="rdp accountant has no price for DiscreteGaussianSum under replace"
    ):
        Stack([replaced]).plan(run_of(sampling="poisson", rate=0.25))


def test_what_a_clients_own_ledger_cannot_price_is_refused_when_the_stack_is_built(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "own", epsilon=9.0, delta=1e-5, accountant="pld")
    layer = DistributedDP(epsilon=5, noise="skellam", ledger={"c0": ledger})
    with pytest.raises(UnknownEvent, match="pld accountant has no price for Skellam"):
        Stack([layer])


@pytest.mark.parametrize(("secure_sum", "adversary"), [(PlainSum(), "clients"), (SecAggPlus(), "server")])
def test_shares_of_noise_hold_against_the_server_only_behind_a_secure_sum(
    secure_sum: Any, adversary: str
) -> None:
    """Over no secure sum the server reads each update under a twelfth of the noise that was priced."""
    stack = Stack([DistributedDP(epsilon=5), secure_sum])
    run = run_of()
    stack.plan(run)
    names = tuple(f"c{i}" for i in range(CLIENTS))
    plan = stack.round(RoundFacts(run, 1, names, SEED), np.zeros(DIMS))
    assert [event.adversary for event in plan.events(names)] == [adversary]
    assert [event.layer for event in plan.events(names)] == ["distributed-dp"]
    assert ("not against the server" in stack.describe()[0]) == (adversary == "clients")


@pytest.mark.parametrize("layer", [LocalDP(epsilon=5), ClientDP(epsilon=5)])
def test_other_layers_claim_the_same_with_and_without_a_secure_sum(layer: Any) -> None:
    claimed = []
    for stack in (Stack([layer]), Stack([layer, SecAggPlus()])):
        run = run_of()
        stack.plan(run)
        names = tuple(f"c{i}" for i in range(CLIENTS))
        plan = stack.round(RoundFacts(run, 1, names, SEED, stack.public()), np.zeros(DIMS))
        claimed.append({event.adversary for event in plan.events(names)})
    assert claimed[0] == claimed[1] == {"server" if isinstance(layer, LocalDP) else "clients"}
