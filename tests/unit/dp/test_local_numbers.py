"""What noise of every client says, plans, sends and opens, in numbers that were worked out by hand."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dp import LocalDP
from dp.events import (
    Relation,
    Unit,
)
from dp.layering import discrete, integer_sigma
from dp.mechanisms.grid import noise_step, rounded_bound
from protocols.errors import CapacityError, Misuse
from protocols.layers import (
    UPDATE,
    Aggregate,
    Block,
    Contribution,
)
from tests.unit.dp.layer_rig import (
    BLOCK,
    CLIENTS,
    DIMS,
    GIVEN,
    NAMES,
    Keeps,
    facts,
    opened,
    run_of,
)
from tests.unit.dp.layer_rig import silent as silent


@pytest.mark.parametrize("resolution", [3, 31])
def test_a_resolution_out_of_range_is_refused(resolution: int) -> None:
    with pytest.raises(Misuse, match="resolution: expected a whole number from 4 to 30"):
        LocalDP(noise_multiplier=1.0, resolution=resolution)
    assert [LocalDP(noise_multiplier=1.0, resolution=fine).resolution for fine in (4, 30)] == [4, 30]
    assert LocalDP(noise_multiplier=1.0).resolution == 14


def test_local_noise_says_what_it_is_and_plans_its_grid() -> None:
    layer = LocalDP(noise_multiplier=2.0, clip=0.5, resolution=8)
    assert layer.describe() == (
        "local-dp: discrete Gaussian noise on every update, clip 0.5 per client, zero-out neighbours"
    )
    assert layer.kind(None) == discrete(1.0, Unit.CLIENT, Relation.ZERO_OUT, 1)
    run = run_of(blocks=(replace(BLOCK, dimension=9),))
    root = math.sqrt(2)
    for name, clip, dims in ((UPDATE, 0.5, DIMS), ("control", 0.5, 9)):
        step = noise_step(2.0 * root * clip, 8)
        bound = rounded_bound(clip, dims, step)
        assert layer._grid(run, name) == (step, bound, integer_sigma(2.0 * root, bound))
        assert layer._most(run, name) == math.ceil(bound + 40 * integer_sigma(2.0 * root, bound))
    thin = LocalDP(noise_multiplier=1e-9, resolution=8)
    assert thin._grid(run_of(), UPDATE)[0] == noise_step(2.0**-10, 8)
    wide = LocalDP(noise_multiplier=2.0**-10 * 1.01, resolution=8)
    assert wide._grid(run_of(), UPDATE)[0] == noise_step(2.0**-10 * 1.01, 8)
    event = layer._priced(run)
    assert event == discrete(2.0, Unit.CLIENT, Relation.ZERO_OUT, DIMS + 9)


def test_a_local_clients_integers_fit_the_modulus() -> None:
    layer, own = LocalDP(noise_multiplier=2.0, clip=0.5, resolution=8), facts(blocks=(BLOCK,))
    step, bound, _ = layer._grid(own.run, UPDATE)
    most = max(layer._most(own.run, name) for name in (UPDATE, "control"))
    signal = layer.transform(replace(GIVEN, linf=9.0), own)
    power = 1 << (2 * CLIENTS * most + 1).bit_length()
    assert signal == replace(
        GIVEN, kind="integer", weight_cap=1, l2=bound * step, linf=None, exact_coordinates=False, step=step,
        modulus=power, bound=most, clip=0.5,
    )  # fmt: skip
    assert layer.transform(replace(GIVEN, block="control"), own).clip == 0.5


@pytest.mark.parametrize(("most", "modulus"), [(7, 16), (8, 32), (14, 32), (15, 32), (16, 64)])
def test_a_local_sum_has_room_for_its_largest_and_least(
    most: int, modulus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = LocalDP(noise_multiplier=1.0)
    monkeypatch.setattr(layer, "_most", lambda *given: most)
    assert layer.transform(GIVEN, replace(facts(), clients=NAMES[:1])).modulus == modulus


def test_a_local_sum_one_beyond_a_power_of_two_has_room_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its logarithm is that of the power, once it is rounded: the modulus was half as large."""
    layer = LocalDP(noise_multiplier=1.0)
    monkeypatch.setattr(layer, "_most", lambda *given: 2**58)
    assert layer.transform(GIVEN, replace(facts(), clients=NAMES[:1])).modulus == 2**60


def test_a_local_sum_of_more_than_sixty_bits_is_refused() -> None:
    layer, own = LocalDP(noise_multiplier=1.0, resolution=30), facts()
    most = layer._most(own.run, UPDATE)
    for clients, fits in ((2**59 // most, True), (2**59 // most + 1, False)):
        many = replace(own, clients=range(clients))  # type: ignore[arg-type]  # their number alone counts
        if fits:
            assert layer.transform(GIVEN, many).modulus == 2**60
        else:
            with pytest.raises(CapacityError, match="61 bits per value do not fit"):
                layer.transform(GIVEN, many)


def test_a_local_client_sends_its_grid_values_and_the_sum_is_read_back(silent: list[float]) -> None:
    ledger: Any = Keeps()
    layer, own = LocalDP(noise_multiplier=2.0, clip=5.0, ledger=lambda client: ledger), facts(dimension=2)
    given = replace(GIVEN, dimension=2)
    made = layer.encode(Contribution(np.array([3.0, -4.0]), 7), given, own)
    step, _, sigma = layer._grid(own.run, UPDATE)
    assert (made.weight, made.vector.tolist()) == (1, [round(3 / step), round(-4 / step)])
    assert (silent, len(ledger.charged)) == ([sigma], 1)
    blocks = facts(dimension=2, blocks=(Block("control", 2, clip=2.5),))
    layer.encode(Contribution(np.array([3.0, -4.0]), 7), replace(given, block="control"), blocks)
    assert len(ledger.charged) == 1  # the update's turn pays
    out = layer.decode(Aggregate(np.array([4, -2]), 9.0), opened(1.0, 0.25), own)
    assert (out.vector.tolist(), out.vector.dtype, out.weight) == ([1.0, -0.5], np.float64, float(CLIENTS))
    assert [(fact.party, fact.adversary) for fact in layer.events(own, NAMES[:2])] == [
        ("c0", "server"),
        ("c1", "server"),
    ]
