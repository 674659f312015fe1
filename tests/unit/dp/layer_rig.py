"""A layer's round, planned and released, and rounds without noise, for tests of DP layers."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dp import ClientDP, DistributedDP, LocalDP
from dp.client import Quantile
from dp.events import Event
from protocols.layers import Aggregate, Block, Contribution, RoundFacts, RunFacts, Signal, SumFacts
from protocols.roundplan import RoundPlan
from protocols.stack import Numbers, Stack

DIMS, CLIENTS = 40, 12
SEED = bytes(range(32))
Floats = NDArray[np.float64]
NAMES = tuple(f"c{i}" for i in range(CLIENTS))
GIVEN = Signal("real", DIMS, 1000, linf=9.0)
BLOCK = Block("control", DIMS, clip=0.5)


def run_of(**changes: Any) -> RunFacts:
    return replace(
        RunFacts(rounds=10, population=CLIENTS, cohort=CLIENTS, dimension=DIMS, delta=1e-5), **changes
    )


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


def opened(l2: float, step: float, **changes: Any) -> SumFacts:
    return SumFacts(GIVEN, replace(GIVEN, kind="integer", l2=l2, step=step, **changes), NAMES)


class Keeps:
    """Toy: a ledger that keeps what it is charged."""

    def __init__(self) -> None:
        self.charged: list[Any] = []

    def charge(self, event: Event, count: int, **more: Any) -> None:
        self.charged.append((event, count, more))


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
