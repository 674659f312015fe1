"""Exactness of whole Paillier sessions as a property, extremes and any ring included, up to a hundred holders."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from he import KeyHolder, SharedByClients, Threshold
from he.arrangements import Arrangement
from protocols import simulate
from protocols.errors import CapacityError
from protocols.randomness import SystemRandom
from tests.contracts.protocol import RELAXED
from tests.contracts.secure_sum import exact
from tests.paillier_fixed import fixed

WAYS = pytest.mark.parametrize("arrangement", [KeyHolder(), SharedByClients(), Threshold(2, 2)], ids=str)


def drawn(data: st.DataObject, n: int, low: int, high: int) -> list[np.ndarray]:
    """Vectors of coordinates anywhere in [low, high], the ends more often than not."""
    dimension = data.draw(st.integers(1, 90), label="dimension")
    value = st.one_of(st.sampled_from([low, high, 0]), st.integers(low, high))
    column = st.lists(value, min_size=dimension, max_size=dimension)
    return [np.array(data.draw(column), np.int64) for _ in range(n)]


@WAYS
@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_sums_over_the_integers_are_exact_up_to_the_bound_that_a_cohort_allows(
    arrangement: Arrangement, data: st.DataObject
) -> None:
    n = data.draw(st.integers(2, 5), label="clients")
    most = ((1 << 63) - 1) // n
    bound = min(most, (1 << data.draw(st.integers(0, 62), label="bits")) - data.draw(st.integers(0, 1)))
    inputs = drawn(data, n, -bound, bound)
    assert simulate(fixed(arrangement), inputs, bound=bound, policy=RELAXED).total.tolist() == exact(
        inputs, tuple(range(n))
    )
    with pytest.raises(CapacityError):
        fixed(arrangement).session([str(i) for i in range(n)], 3, most + 1, random=SystemRandom())


@WAYS
@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_sums_in_any_ring_are_exact(arrangement: Arrangement, data: st.DataObject) -> None:
    power = st.integers(1, 64).map(lambda bits: 1 << bits)
    modulus = data.draw(st.one_of(power, st.integers(2, 1 << 62)), label="modulus")
    inputs = drawn(data, data.draw(st.integers(2, 4), label="clients"), -(1 << 63), (1 << 63) - 1)
    total = simulate(fixed(arrangement), inputs, bound=0, modulus=modulus, policy=RELAXED).total
    assert total.tolist() == exact(inputs, tuple(range(len(inputs))), modulus)


def test_a_hundred_decryptors_open_a_session_and_forty_nine_may_leave() -> None:
    protocol = fixed(Threshold(51, 100))
    gone = {f"decryptor {i}" for i in range(49)}
    outcome = simulate(protocol, [[3, -4], [-5, 6]], drop={"decrypt": gone})
    assert outcome.total.tolist() == [-2, 2]
