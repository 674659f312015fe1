"""Numbers that nobody means, given to what a user makes: refused by name, or taken; never a raw error."""

import contextlib
import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dp import ClientDP, DistributedDP, Ledger, LocalDP, NormBound
from dp.accountants import accountant
from dp.accountants.selected import SelectedAccountant
from dp.calibration import noise_multiplier
from dp.client import Quantile
from dp.correlated.options import Correlation
from dp.correlated.price import Banded
from dp.correlated.rows import combined
from dp.correlated.strategy import StrategyMatrix
from dp.events import Gaussian, Pure, Relation, Unit
from protocols.errors import Misuse
from protocols.roundplan import RoundPlan
from tests.unit.dp.layer_rig import round_of, run_of

ABSURD: list[Any] = [1e300, 1.7e308, 5e-324, math.inf, -math.inf, math.nan, 0, -1, 2.5, 10**400, -(10**400), True, None,
          np.float32(2), np.int64(3), Fraction(5, 2), Decimal(1), 1j, "1"]  # fmt: skip
CLIENTS_ZERO: dict[str, Any] = {"unit": Unit.CLIENT, "relation": Relation.ZERO_OUT}
ONCE = accountant("rdp").add(Gaussian(noise_multiplier=1.0, **CLIENTS_ZERO))
NUMBERS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "client": (lambda **given: planned(ClientDP(**given)), {"epsilon": 5.0, "delta": 1e-5, "clip": 1.0}),
    "sum": (
        lambda **given: planned(ClientDP(noise_multiplier=given.pop("noise"), weights="bounded", **given)),
        {"noise": 1.0, "weight_cap": 1, "denominator": 2.0},
    ),
    "quantile": (
        lambda **given: planned(ClientDP(epsilon=5.0, clip=Quantile(**given))),
        {"start": 0.1, "target": 0.5, "rate": 0.2, "count_noise": 0.5},
    ),
    "local": (
        lambda **given: planned(LocalDP(noise_multiplier=given.pop("noise"), **given)),
        {"noise": 1.0, "clip": 1.0, "resolution": 14},
    ),
    "shares": (
        lambda **given: planned(DistributedDP(noise_multiplier=given.pop("noise"), **given)),
        {"noise": 1.0, "clip": 1.0, "min_survivors": 6, "colluders": 1, "bits": 24, "overflow": 1e-6},
    ),
    "examples": (
        lambda **given: DistributedDP(epsilon=5.0, unit="example", **given),
        {"sample_rate": 0.1, "examples": 100, "physical_batch": 8},
    ),
    "rows": (
        lambda **given: DistributedDP(epsilon=5.0, unit="example", examples=9, correlation="banded", **given),
        {"batches": 3, "epochs": 2, "bands": 2},
    ),
    "correlation": (
        lambda **given: (lambda made: (made.times(9), made.strategy(9)))(Correlation(**given)),
        {"separation": 3, "participations": 2, "bands": 2, "momentum": 0.5},
    ),
    "strategy": (
        lambda first, second, rounds: combined(
            StrategyMatrix((first, second), rounds), 2, {1: np.ones(2, np.int64), 2: np.zeros(2, np.int64)}
        ),
        {"first": 2, "second": 1, "rounds": 3},
    ),
    "plan": (
        lambda **given: Banded(**given).to_json(),
        {"rounds": 9, "separation": 3, "participations": 2, "bands": 2, "momentum": 0.5, "decay": 0.9},
    ),
    "account": (
        lambda delta, epsilon: (ONCE.epsilon(delta), ONCE.delta(epsilon)),
        {"delta": 1e-5, "epsilon": 1.0},
    ),
    "selected": (
        lambda runs: SelectedAccountant(runs).add(Pure(epsilon=1.0, **CLIENTS_ZERO)).epsilon(1e-5),
        {"runs": 9.0},
    ),
    "calibration": (
        lambda **given: noise_multiplier(accountant="rdp", **given),
        {"epsilon": 1.0, "delta": 1e-5, "steps": 3, "rate": 1.0},
    ),
    "bound": (NormBound, {"bound": 1.0}),
}  # fmt: skip


def planned(layer: Any) -> RoundPlan:
    return round_of(layer, run_of())


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, (_, given) in NUMBERS.items() for name in given]
)
def test_an_absurd_number_is_refused_or_taken_and_never_a_raw_error(kind: str, name: str) -> None:
    make, given = NUMBERS[kind]
    make(**given)
    refused = 0
    for value in ABSURD:
        try:
            make(**{**given, name: value})
        except Misuse:  # any other error fails the test
            refused += 1
    assert refused


@pytest.mark.parametrize("name", ["epsilon", "delta"])
def test_an_absurd_budget_is_refused_or_taken(tmp_path: Path, name: str) -> None:
    for place, value in enumerate(ABSURD):
        with contextlib.suppress(Misuse):
            terms: dict[str, Any] = {"epsilon": 1.0, "delta": 1e-5, name: value}
            assert Ledger(tmp_path / str(place), **terms).terms == Ledger(tmp_path / str(place)).terms
    assert Ledger(tmp_path / "record", epsilon=math.inf, delta=1e-5).terms.epsilon == math.inf
