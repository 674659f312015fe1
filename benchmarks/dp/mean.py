"""Case `mean`: distributed mean estimation as in Kairouz, Liu and Steinke 2021, section 5.1: d = 250,
vectors on the sphere.

The root mean squared error of the mean beside that of the central Gaussian mechanism with the same
(epsilon, delta). For each setting one sum goes through real masks and is compared with the plain sum modulo
M bit for bit; the error is then taken over many trials.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp import DistributedDP
from dp.mechanisms import analytic_gaussian_sigma
from protocols import simulate
from protocols.layers import Contribution, RoundFacts, RunFacts
from protocols.roundplan import RoundPlan
from protocols.stack import Numbers, Stack
from secagg import SecAggPlus

DIMS, DELTA, BITS = 250, 1e-5, 16
OVERFLOW = 1e-2
"""The paper's choice of range (four standard deviations of the worst case); real data lie far below the
worst case."""


def measure(
    clients: tuple[int, ...] = (100, 1000),
    epsilons: tuple[float, ...] = (1.0, 3.0, 10.0),
    trials: int = 20,
    seed: int = 1,
) -> dict[str, Any]:
    """Rows of clients, epsilon, bits, RMSE, the central Gaussian's and their ratio."""
    rows = [_row(n, epsilon, trials, seed) for n in clients for epsilon in epsilons]
    return {"rows": rows, "worst_ratio": max(row["ratio"] for row in rows)}


def _row(clients: int, epsilon: float, trials: int, seed: int) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    run = RunFacts(1, clients, clients, dimension=DIMS, delta=DELTA)
    layer = DistributedDP(epsilon=epsilon, delta=DELTA, bits=BITS, overflow=OVERFLOW, accountant="pld")
    stack = Stack([layer, SecAggPlus(dropout=0.0)], Numbers(weight_cap=1))
    stack.plan(run)
    squares = []
    for trial in range(trials):
        names = tuple(f"c{i}" for i in range(clients))
        seed_bytes = generator.bytes(32)
        plan = stack.round(RoundFacts(run, 1, names, seed_bytes), np.zeros(DIMS))
        data = generator.normal(size=(clients, DIMS))
        data /= np.linalg.norm(data, axis=1, keepdims=True)
        vectors = _encoded(plan, data)
        total = _plain(vectors, plan.summed.modulus)
        if trial == 0 and not np.array_equal(_masked(stack, plan, vectors), total):
            raise RuntimeError("the masked sum is not the plain one")
        mean = plan.decode(total, names).vector / clients
        squares.append(float(np.mean((mean - data.mean(axis=0)) ** 2)))
    rmse = float(np.sqrt(np.mean(squares)))
    central = analytic_gaussian_sigma(epsilon, DELTA) / clients
    return {
        "clients": clients,
        "epsilon": epsilon,
        "bits": plan.summed.modulus.bit_length() - 1,
        "rmse": rmse,
        "central_rmse": central,
        "ratio": rmse / central,
        "trials": trials,
    }


def _encoded(plan: RoundPlan, data: NDArray[np.float64]) -> dict[str, NDArray[np.int64]]:
    facts = plan.facts
    return {
        name: plan.encode(Contribution(row, 1), replace(facts, client=name))
        for name, row in zip(facts.clients, data, strict=True)
    }


def _plain(vectors: dict[str, NDArray[np.int64]], modulus: int) -> NDArray[np.int64]:
    total = np.sum(list(vectors.values()), axis=0)
    reduced: NDArray[np.int64] = np.mod(total + modulus // 2, modulus) - modulus // 2
    return reduced


def _masked(stack: Stack, plan: RoundPlan, vectors: dict[str, NDArray[np.int64]]) -> NDArray[np.int64]:
    outcome = simulate(
        stack.secure_sum,
        vectors,
        modulus=plan.summed.modulus,
        bound=plan.bound,
        min_survivors=plan.summed.min_survivors,
    )
    return np.asarray(outcome.total)
