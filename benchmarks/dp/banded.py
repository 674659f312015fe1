"""Case `banded`: what correlated noise gains and costs: strategies, prices, modulus, encoding, decoding; with
`--only femnist` or `--only fashion` also training, whose finished runs are kept in `--work`.

Hyperparameters follow training images (`banded_training`). The sums are taken in clear on FEMNIST (masks give the same
integers bit for bit) and behind masks on Fashion-MNIST.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.dp import banded_training
from dp import DistributedDP
from dp.accountants import accountant
from dp.correlated.price import Banded
from dp.correlated.rows import OpenedRows, combined
from dp.correlated.strategy import error, gain, optimised, real, series
from dp.events import Relation, Unit
from dp.mechanisms import discrete_gaussian
from dp.rotation import rotate
from protocols.layers import RunFacts
from protocols.randomness import SystemRandom

PLANS = ((50, 10, 5), (100, 10, 10), (200, 20, 10), (400, 50, 8))


def measure(
    seeds: int, data_dir: Path | None, work: Path, only: str | None, report: Callable[[str], None]
) -> dict[str, Any]:
    """The short figures, and rows of the training that is finished; `only` says which training to go on with. The rows
    of several tables, by `table`.
    """
    short = {
        "production": _production(),
        "encoding": _encoding(1_000_000, 32),
        "decoding": _decoding(100, 32),
    }
    tables = {
        "strategies": [_strategy(*plan) for plan in PLANS],
        "modulus": [_modulus(batches, epochs) for batches, epochs in ((30, 10), (30, 40), (100, 4))],
        **banded_training.measure(seeds, data_dir, work, only, report),
    }
    rows = [{"table": table, **row} for table, rows in tables.items() for row in rows]
    return {
        "rows": rows,
        **short,
        "femnist_gap_closed_percent": banded_training.gap_closed(tables["femnist"]),
    }


def _strategy(rounds: int, separation: int, participations: int) -> dict[str, Any]:
    """RMSE of the models over independent noise at equal rho, and what integers of a few bits lose of it."""
    real.cache_clear()
    optimised.cache_clear()
    began = time.process_time()
    strategy = optimised(rounds, separation)
    seconds = time.process_time() - began
    workload, best = series(rounds), np.array(real(rounds, separation))
    # integers of four bits, whether or not they are enough
    four = min(error(np.rint(size * best), workload) for size in np.linspace(7.5, 15.49, 64))
    return {
        "rounds": rounds,
        "separation": separation,
        "participations": participations,
        "rmse_over_independent": gain(strategy),
        "bits": max(strategy.coefficients).bit_length(),
        "lost_percent": 100
        * (error(np.array(strategy.coefficients, float), workload) / error(best, workload) - 1),
        "lost_with_four_bits_percent": 100 * (four / error(best, workload) - 1),
        "processor_s": seconds,
    }


def _production() -> dict[str, Any]:
    """The noise multiplier at which the published plan has its published price."""
    plan = Banded(2000, 1428, 2, 1000)
    facts: dict[str, Any] = {"unit": Unit.CLIENT, "relation": Relation.ZERO_OUT}
    multiplier = plan.multiplier(0.994, 1e-10, "pld", **facts)
    price = accountant("pld").add(plan.event(multiplier, **facts)).epsilon(1e-10)
    return {**plan.to_json(), "noise_multiplier": multiplier, "epsilon": price, "delta": 1e-10}


def _modulus(batches: int, epochs: int, dims: int = 39_690, examples: int = 60_000) -> dict[str, Any]:
    """Bits per value beside independent noise of the same price, 20 clients, without secret sampling."""
    common: dict[str, Any] = {"unit": "example", "examples": examples, "clip": 0.1, "colluders": 0}
    run = RunFacts(batches * epochs, 20, 20, dimension=dims)
    multiplier = 6.0
    alone = DistributedDP(noise_multiplier=multiplier, sample_rate=1 / batches, **common)
    banded = DistributedDP(
        noise_multiplier=multiplier, correlation="banded", batches=batches, epochs=epochs, **common
    )
    bits = [layer._plan(run).grid.bits for layer in (alone, banded)]
    return {"batches": batches, "epochs": epochs, "independent_bits": bits[0], "banded_bits": bits[1]}


def _encoding(values: int, bands: int, repeats: int = 5) -> dict[str, Any]:
    """Processor seconds of one party's row: combine, rotate and round; and its share of noise."""
    strategy, row = optimised(400, bands), 200
    draws = np.random.default_rng(0)
    kept = {row - j: draws.integers(-(2**30), 2**30, values) for j in range(bands)}
    seed, random = bytes(32), SystemRandom()
    rotate(kept[row].astype(np.float64), seed)  # compiled once
    encode, noise = [], []
    for _ in range(repeats):
        began = time.process_time()
        np.rint(rotate(combined(strategy, row, kept).astype(np.float64), seed) * 1e-3).astype(np.int64)
        encode.append(time.process_time() - began)
        began = time.process_time()
        discrete_gaussian(random, 1000.0, values)
        noise.append(time.process_time() - began)
    return {
        "values": values,
        "bands": bands,
        "combine_rotate_round_processor_s": statistics.median(encode),
        "noise_processor_s": statistics.median(noise),
    }


def _decoding(rounds: int, bands: int) -> dict[str, Any]:
    """The largest relative difference from rational arithmetic, over rows of noise."""
    strategy, opened, draws = optimised(rounds, bands), OpenedRows(), np.random.default_rng(0)
    exact: dict[int, Fraction] = {}
    worst = 0.0
    for row in range(1, rounds + 1):
        z = int(draws.integers(-(2**40), 2**40))
        past = sum((strategy.at(row, j) * x for j, x in exact.items()), Fraction(0))
        exact[row] = (z - past) / strategy.at(row, row)
        (found,) = opened.take(strategy, row, np.array([float(z)]))
        worst = max(
            worst, abs(float((Fraction(float(found)) - exact[row]) / max(Fraction(1), abs(exact[row]))))
        )
    return {"rounds": rounds, "bands": bands, "largest_relative_difference": worst}
