"""What statistical properties state is so: their power at the stated effect, and their false-alarm rate."""

import numpy as np
import pytest

from protocols.audit import PROPERTIES
from protocols.audit.prop import Finding
from protocols.audit.properties import masks, views
from protocols.audit.properties.freshness import nothing_in_common
from protocols.audit.reading import SAMPLES
from protocols.audit.statistics import ALPHA, POWER, Design, chi_square_uniform, two_sample

DESIGNS = {
    "uniform-over-the-ring": masks.UNIFORM,
    "fresh-masks": masks.FRESH,
    "stream-is-uniform": masks.STREAM,
    "views-indistinguishable": views.VIEWS,
    "masked-after-unmasking": views.RESIDUAL,
    "hidden-from-insiders": views.INSIDERS,
    "hidden-in-its-component": views.COMPONENTS,
}
RUNS = 300
LEAST = 290
"""Of 300 runs at power 0.99 fewer than this are hits with probability 0.0005 (binomial). Each test draws from a fixed
seed of its own, so that it ends the same in every run, whatever ran before it.
"""


def drawn(*seed: int) -> np.random.Generator:
    return np.random.default_rng([11, *seed])


def number(name: str) -> int:
    return list(DESIGNS).index(name)


def skewed(cells: int, distance: float) -> np.ndarray:
    """Cell probabilities at this total variation distance from uniform, in the shape that is hardest to find."""
    p = np.full(cells, 1 / cells)
    p[::2] += 2 * distance / cells
    p[1::2] -= 2 * distance / cells
    return p


def hits(design: Design, probabilities: np.ndarray, rng: np.random.Generator) -> int:
    """How many of RUNS samples the design tells from uniform ones."""
    return sum(p_value(design, probabilities, rng) < design.level for _ in range(RUNS))


def p_value(design: Design, probabilities: np.ndarray, rng: np.random.Generator) -> float:
    cells = len(probabilities)  # the tests look at counts alone, not at what order they come in
    sample = np.repeat(np.arange(cells), rng.multinomial(design.samples, probabilities))
    if design.two:
        return two_sample(sample, rng.integers(0, cells, design.samples), cells)
    return chi_square_uniform(sample, cells)


@pytest.mark.parametrize("name", DESIGNS)
def test_every_statistical_property_states_its_own_power(name: str) -> None:
    stated = next(p.statistics for p in PROPERTIES if p.name == name)
    assert stated == str(DESIGNS[name])
    assert {p.name for p in PROPERTIES if p.statistical} == set(DESIGNS)


@pytest.mark.parametrize("cells", [16, 256])
@pytest.mark.parametrize("name", [name for name in DESIGNS if name != "stream-is-uniform"])
def test_the_stated_distance_is_found_with_the_stated_power(name: str, cells: int) -> None:
    design = DESIGNS[name]
    distance = design.distance(cells, 1)
    assert design.power(distance, cells, 1) >= POWER > design.power(distance - 0.002, cells, 1)
    assert hits(design, skewed(cells, distance), drawn(number(name), cells)) >= LEAST


@pytest.mark.parametrize("name", [name for name in DESIGNS if name != "stream-is-uniform"])
def test_a_value_that_never_comes_is_found_in_the_stated_ring(name: str) -> None:
    design = DESIGNS[name]
    probabilities = np.full(design.ring(), 1 / (design.ring() - 1))
    probabilities[3 % design.ring()] = 0
    assert hits(design, probabilities, drawn(number(name))) >= LEAST


@pytest.mark.parametrize("modulus", [300, 1271, 12289, 3 * 5**20, (1 << 64) - 59])
@pytest.mark.parametrize("name", [name for name in DESIGNS if not DESIGNS[name].two])
def test_rings_that_are_no_power_of_two_raise_no_false_alarm(name: str, modulus: int) -> None:
    design, rng = DESIGNS[name], drawn(modulus)
    for _ in range(5):
        sample = rng.integers(0, modulus, design.samples, np.uint64)
        assert chi_square_uniform(sample, modulus) > design.level
    bent = np.where(sample < modulus // 16, sample + np.uint64(modulus // 2), sample)
    assert chi_square_uniform(bent, modulus) < design.level


@pytest.mark.parametrize("modulus", [300, 1 << 64, (1 << 64) - 59])
def test_differences_are_taken_in_the_ring(modulus: int) -> None:
    rng = drawn(7)
    rows = [(str(i), i, rng.integers(0, modulus - 1, SAMPLES, np.uint64, endpoint=True)) for i in range(3)]
    nothing_in_common(rows, [], modulus)
    with pytest.raises(Finding, match="masks are not fresh"):
        nothing_in_common([*rows, rows[0]], [], modulus)


@pytest.mark.parametrize("modulus", [16, 256, 1 << 17, 300, 1271, 3 * 5**20])
def test_false_alarms_are_as_rare_as_their_level(modulus: int) -> None:
    rng = drawn(modulus)
    alarms = sum(chi_square_uniform(rng.integers(0, modulus, 4096), modulus) < 0.01 for _ in range(1000))
    assert alarms <= 30  # of 10 expected at most; more with probability below 10^-7


def test_a_whole_audit_raises_a_false_alarm_at_most_once_in_a_million_runs() -> None:
    assert len(DESIGNS) * ALPHA <= 1e-6
    assert all(design.level * design.tests <= ALPHA * (1 + 1e-9) for design in DESIGNS.values())


def test_every_bit_of_a_wide_ring_is_judged() -> None:
    width = 44
    values = drawn(width).integers(0, 1 << width, 1 << 14).astype(np.uint64)
    assert chi_square_uniform(values, 1 << width) > 1e-6
    for bit in range(width):
        assert chi_square_uniform(values | np.uint64(1 << bit), 1 << width) < 1e-12
