"""A layer's round, planned and released, for tests of DP layers."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp import ClientDP, DistributedDP, LocalDP
from dp.client import Quantile
from protocols.layers import Aggregate, Contribution, RoundFacts, RunFacts
from protocols.roundplan import RoundPlan
from protocols.stack import Numbers, Stack

DIMS, CLIENTS = 40, 12
SEED = bytes(range(32))
Floats = NDArray[np.float64]


def run_of(**changes: Any) -> RunFacts:
    return replace(
        RunFacts(rounds=10, population=CLIENTS, cohort=CLIENTS, dimension=DIMS, delta=1e-5), **changes
    )


def round_of(layer: Any, run: RunFacts, weight_cap: int = 1) -> RoundPlan:
    stack = Stack([layer], Numbers(weight_cap=weight_cap))
    stack.plan(run)
    names = tuple(f"c{i}" for i in range(run.cohort))
    return stack.round(RoundFacts(run, 1, names, SEED, stack.public()), np.zeros(run.dimension))


def released(plan: RoundPlan, updates: list[Floats], survivors: int | None = None) -> Aggregate:
    names = plan.facts.clients[: survivors or len(updates)]
    total = np.zeros(plan.dimension, np.int64)
    for name, update in zip(names, updates, strict=False):
        total += plan.encode(Contribution(update, 1), replace(plan.facts, client=name))
    modulus = plan.summed.modulus
    if modulus:
        total = np.mod(total + modulus // 2, modulus) - modulus // 2
    return plan.decode(total, names)


def updates(norm: float, clients: int = CLIENTS) -> list[Floats]:
    generator = np.random.default_rng(0)
    made = generator.normal(size=(clients, DIMS))
    return [norm * row / np.linalg.norm(row) for row in made]


LAYERS = {
    "client": lambda: ClientDP(epsilon=5),
    "adaptive": lambda: ClientDP(epsilon=8, clip=Quantile(start=1.0, count_noise=0.4)),
    "gaussian": lambda: DistributedDP(epsilon=5),
    "skellam": lambda: DistributedDP(epsilon=5, noise="skellam"),
    "local": lambda: LocalDP(epsilon=5),
}
PLANS: dict[str, RoundPlan] = {}
