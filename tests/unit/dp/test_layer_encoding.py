"""What DP layers send: rotated, rounded within the stated bound, with room in the modulus."""

import hashlib
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dp import DistributedDP, encoding
from dp.rotation import padded, rotate, signs, unrotate
from protocols.errors import CapacityError, Misuse
from tests.unit.dp.layer_rig import DIMS, PLANS, SEED, round_of, run_of


@given(dims=st.integers(1, 300), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_rotation_keeps_norms_and_is_undone(dims: int, seed: int) -> None:
    vector = np.random.default_rng(seed).normal(size=dims)
    turned = rotate(vector, SEED)
    assert turned.size == padded(dims)
    assert math.isclose(np.linalg.norm(turned), np.linalg.norm(vector), rel_tol=1e-12)
    assert np.allclose(unrotate(turned, SEED, dims), vector, atol=1e-12)


def test_rotation_spreads_one_coordinate_evenly() -> None:
    vector = np.zeros(256)
    vector[3] = 1.0
    assert np.allclose(np.abs(rotate(vector, SEED)), 1 / 16)


def test_the_signs_are_those_of_a_labelled_hash_of_the_seed() -> None:
    digest = hashlib.shake_256(b"secagg rotation v1\0" + SEED).digest(16)
    bits = [byte >> (7 - at) & 1 for byte in digest for at in range(8)]
    for size in (1, 7, 8, 11, 64, 128):
        assert signs(SEED, size).tolist() == [1.0 - 2.0 * bit for bit in bits][:size]
    assert signs(SEED, 8).dtype == np.float64
    with pytest.raises(Misuse, match="32 bytes"):
        signs(SEED[:31], 4)


def test_a_rotated_vector_is_the_hadamard_transform_of_its_signed_values() -> None:
    a, b, c = signs(SEED, 4)[:3] * [1.0, 2.0, 3.0]
    turned = [(a + b + c) / 2, (a - b + c) / 2, (a + b - c) / 2, (a - b - c) / 2]
    assert rotate(np.array([1, 2, 3]), SEED).tolist() == turned
    given = np.array([2, 4, 6, 8])
    assert unrotate(given, SEED, 3).size == 3
    assert given.tolist() == [2, 4, 6, 8]
    with pytest.raises(Misuse, match="length 4, got 2"):
        unrotate(np.zeros(2), SEED, 3)


@pytest.mark.parametrize(("dimension", "size"), [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8)])
def test_vectors_are_padded_to_a_power_of_two(dimension: int, size: int) -> None:
    assert padded(dimension) == size
    with pytest.raises(Misuse):
        padded(0)


@pytest.mark.parametrize("bits", [12, 16, 24, None])
@pytest.mark.parametrize("clients", [2, 50, 1000])
def test_the_modulus_has_room_and_the_noise_is_never_below_what_is_priced(
    bits: int | None, clients: int
) -> None:
    demand = encoding.Demand(1.0, 256, clients, clients, 1.5, clients)
    if (bits, clients) == (12, 1000):
        with pytest.raises(CapacityError):
            encoding.choose(demand, bits)
        return
    grid = encoding.choose(demand, bits)
    assert encoding.least_modulus(demand, grid.step, encoding.OVERFLOW) <= grid.modulus
    assert grid.share_variance * clients >= (1.5 * grid.sensitivity) ** 2
    assert grid.sensitivity * grid.step >= 1.0
    assert bits is None or grid.bits == bits


@settings(max_examples=40, deadline=None)
@given(examples=st.integers(0, 400), seed=st.integers(0, 2**32 - 1))
def test_at_example_level_one_example_moves_the_rounded_sum_by_no_more_than_the_bound(
    examples: int, seed: int
) -> None:
    layer = DistributedDP(noise_multiplier=1.0, clip=0.3, unit="example", sample_rate=0.5, examples=1000)
    plan = PLANS.setdefault("examples", round_of(layer, run_of()))
    mine = plan.layers[0]
    assert isinstance(mine, DistributedDP)
    grid = mine._plan(plan.facts.run).grid
    generator = np.random.default_rng(seed)
    one = generator.normal(size=DIMS)
    fine = mine._fine_step()
    longest = np.trunc(one * (0.3 / fine / np.linalg.norm(one))).astype(np.int64)
    others = np.rint(generator.normal(size=DIMS) * examples * 0.3 / fine).astype(np.int64)
    sums = []
    for total in (others, others + longest):
        own = replace(plan.facts, client="c")
        mine._sums["c"] = total
        sums.append(mine._example_level(mine._plan(own.run), mine._exact(own), own))
    assert float(np.linalg.norm((sums[1] - sums[0]).astype(float))) <= grid.sensitivity
