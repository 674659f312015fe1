"""Masks are uniform over the whole ring and independent across coordinates, rounds and streams.

Each test is a chi-square test of `SAMPLES` draws at significance `ALPHA`; the false-alarm rate of the file
is below 10^-9 per run (count of tests x ALPHA). Effect size: a distribution that is off by w = 0.035 in
Cohen's sense (chi-square per draw w^2) is found with power above 0.99 at 256 cells, checked below; the
defects of this kind that shipped elsewhere (half the ring never used, one mask for two streams, one scalar
for all coordinates) have w >= 1.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from secagg.masks import SEED_BYTES, add_mask
from secagg.ring import Ring

SAMPLES = 1 << 18
CELLS = 256
TESTS = 40
"""Upper bound on the tests in this file, asserted below."""
ALPHA = 1e-9 / TESTS
EFFECT = 0.035

RINGS = [1, 4, 8, 16, 20, 32, 33, 64]


def mask(ring: Ring, dimension: int = SAMPLES) -> NDArray[np.uint64]:
    words = np.zeros(dimension, ring.dtype)
    add_mask(words, os.urandom(SEED_BYTES))
    return ring.residues(words)


def p_value(cells: NDArray[np.uint64], count: int) -> float:
    observed = np.bincount(cells.astype(np.int64), minlength=count)
    return float(stats.chisquare(observed).pvalue)


def top(values: NDArray[np.uint64], ring: Ring, bits: int) -> NDArray[np.uint64]:
    """The highest bits of each element (all of a small ring)."""
    return values >> np.uint64(max(0, ring.bits - bits))


@pytest.mark.parametrize("bits", RINGS)
def test_top_of_the_ring_is_uniform(bits: int) -> None:
    ring = Ring(bits)
    assert p_value(top(mask(ring), ring, 8), 1 << min(8, bits)) > ALPHA


@pytest.mark.parametrize("bits", [16, 20, 32, 33, 64])
def test_bottom_of_the_ring_is_uniform(bits: int) -> None:
    assert p_value(mask(Ring(bits)) & np.uint64(255), CELLS) > ALPHA


@pytest.mark.parametrize("bits", RINGS)
def test_successive_coordinates_are_independent(bits: int) -> None:
    ring, each = Ring(bits), min(4, bits)
    values = top(mask(ring), ring, 4)
    assert p_value(values[0::2] << np.uint64(each) | values[1::2], 1 << 2 * each) > ALPHA


@pytest.mark.parametrize("bits", RINGS)
def test_two_streams_or_rounds_are_independent(bits: int) -> None:
    ring, each = Ring(bits), min(4, bits)
    first, second = (top(mask(ring), ring, 4) for _ in range(2))
    assert p_value(first << np.uint64(each) | second, 1 << 2 * each) > ALPHA


def test_seed_halves_both_matter() -> None:
    """One changed bit anywhere in the seed gives an unrelated stream: differences are uniform."""
    ring, seed = Ring(32), bytearray(os.urandom(SEED_BYTES))
    differences = []
    for bit in (0, 127, 128, 8 * SEED_BYTES - 1):
        words = np.zeros(SAMPLES // 4, ring.dtype)
        add_mask(words, bytes(seed))
        seed[bit // 8] ^= 1 << bit % 8
        other = np.zeros(SAMPLES // 4, ring.dtype)
        add_mask(other, bytes(seed))
        differences.append(top(ring.residues(words - other), ring, 8))
    assert p_value(np.concatenate(differences), CELLS) > ALPHA


@pytest.mark.parametrize("broken", ["half the ring", "one scalar", "one mask for two streams"])
def test_shipped_defects_are_found(broken: str) -> None:
    ring = Ring(32)
    values = mask(ring)
    if broken == "half the ring":
        cells = top(values >> np.uint64(1), ring, 8)
    elif broken == "one scalar":
        cells = np.full(SAMPLES, int(top(values, ring, 8)[0]), np.uint64)
    else:
        cells = top(values, ring, 4) << np.uint64(4) | top(values, ring, 4)
    assert p_value(cells, CELLS) < ALPHA


def test_power_and_false_alarms_are_as_stated() -> None:
    critical = stats.chi2.isf(ALPHA, CELLS - 1)
    power = stats.ncx2.sf(critical, CELLS - 1, SAMPLES * EFFECT**2)
    assert power > 0.99
    assert 2 * len(RINGS) + len(RINGS) + 5 + 1 <= TESTS
