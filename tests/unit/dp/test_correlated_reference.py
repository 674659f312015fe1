"""The strategies, errors and sensitivities of `dp.correlated` beside jax-privacy 2.0, which has BandMF's own code.

`pip install 'jax-privacy==2.0.*'` (with jax 0.10.2 when this was run last). Without it nothing here is run.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from dp.correlated.price import Banded
from dp.correlated.strategy import LOSS, error, optimised, real, series

jax = pytest.importorskip(
    "jax", reason="pip install 'jax-privacy==2.0.*' compares strategies", exc_type=ImportError
)
toeplitz: Any = pytest.importorskip(
    "jax_privacy.matrix_factorization.toeplitz",
    reason="pip install 'jax-privacy==2.0.*' compares strategies",
    exc_type=ImportError,
)
pytestmark = pytest.mark.slow

PLANS = [(50, 10), (100, 10), (200, 20), (400, 50), (300, 30), (2000, 1000), (64, 64), (40, 1)]
"""Rounds and bands."""


@pytest.fixture(autouse=True)
def sixty_four_bits() -> Iterator[None]:
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.mark.parametrize(("rounds", "bands"), PLANS)
def test_the_strategy_is_as_good_as_theirs_and_its_integers_lose_less_than_half_a_per_cent(
    rounds: int, bands: int
) -> None:
    theirs = toeplitz.optimize_banded_toeplitz(rounds, bands)
    best = float(toeplitz.loss(theirs, rounds)) ** 0.5
    ours = error(np.array(real(rounds, bands)), series(rounds))
    assert ours == pytest.approx(best, rel=1e-4)
    assert error(np.array(optimised(rounds, bands).coefficients, float), series(rounds)) < best * (1 + LOSS)


@pytest.mark.parametrize(("momentum", "decay"), [(0.0, 1.0), (0.9, 1.0), (0.5, 0.99)])
def test_the_error_is_theirs_whatever_the_strategy_and_the_servers_momentum(
    momentum: float, decay: float
) -> None:
    workload = series(120, momentum, decay)
    for bands in (1, 7, 30):
        coefficients = np.array(real(120, bands, momentum, decay))
        squares = toeplitz.per_query_error(strategy_coef=coefficients, n=120, workload_coef=workload)
        theirs = float(np.mean(squares) * toeplitz.sensitivity_squared(coefficients, 120)) ** 0.5
        assert error(coefficients, workload) == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize(
    ("plan", "whole"),
    [
        (Banded(100, 10, 9, 10), True),
        (Banded(100, 10, 3, 4), True),
        (Banded(100, 10, 3, 25), False),  # more bands than the separation
        (Banded(60, 20, 3, 40), False),
        (Banded(2000, 1428, 2, 1000), False),  # the last rows of the second participation lie behind the run
    ],
)
def test_what_a_participation_moves_is_at_least_theirs(plan: Banded, whole: bool) -> None:
    """Theirs is exact for C' that falls; ours does not count that the end of the run cuts the last columns off."""
    coefficients = np.minimum.accumulate(np.array(plan.strategy.coefficients, float))
    if not np.array_equal(coefficients, plan.strategy.coefficients):
        pytest.skip("the integers of this plan do not fall, which their formula needs")
    exact = float(
        toeplitz.minsep_sensitivity_squared(coefficients, plan.separation, plan.times, n=plan.rounds)
    )
    ours = (plan.sensitivity * plan.strategy.norm) ** 2
    assert ours == pytest.approx(exact, rel=1e-9) if whole else exact * (1 - 1e-12) <= ours < 1.2 * exact
