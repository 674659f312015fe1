"""What fits a modulus, by which range numbers are quantised, and how residues become signed again."""

from dataclasses import replace

import numpy as np
import pytest

from protocols.errors import CapacityError
from protocols.layers import Coordinate, PrivacyLayer, RoundFacts, RunFacts, Signal
from protocols.roundplan import WEIGHT, RoundPlan
from protocols.stack import Numbers, Stack
from protocols.summation import add_into, centred


class Bounded(PrivacyLayer):
    """States what it knows of a real vector."""

    def __init__(self, **known: float | None) -> None:
        self.name, self.known = "bounded", known

    def transform(self, given: Signal, facts: RoundFacts) -> Signal:
        return replace(given, **self.known)  # type: ignore[arg-type]  # bounds


class Whole(PrivacyLayer):
    """Makes integers itself, with one coordinate beside them."""

    name = "whole"

    def __init__(self, modulus: int, bound: int, beside: int) -> None:
        self.made = Signal("integer", 2, 1, exact_coordinates=False, modulus=modulus, bound=bound)
        self.beside = beside

    def transform(self, given: Signal, facts: RoundFacts) -> Signal:
        return replace(self.made, coordinates=(Coordinate("beside", 1, self.beside),))


def plan(*layers: PrivacyLayer, numbers: Numbers | None = None, clients: int = 4) -> RoundPlan:
    names = tuple(str(i) for i in range(clients))
    facts = RoundFacts(RunFacts(1, clients, clients, dimension=2), 1, names, bytes(32))
    return Stack(list(layers), numbers or Numbers(bits=8, weight_cap=1)).round(facts, np.array([8.0, -8.0]))


class TestRange:
    @pytest.mark.parametrize(
        "known, own, expected",
        [
            ({"range": 2.0, "linf": 3.0, "l2": 4.0}, 1.0, 1.0),
            ({"range": 2.0, "linf": 3.0, "l2": 4.0}, None, 2.0),
            ({"linf": 3.0, "l2": 4.0}, None, 3.0),
            ({"l2": 4.0}, None, 4.0),
            ({"range": 2.0}, None, 2.0),
            ({}, None, 16.0),
        ],
    )
    def test_the_users_range_then_the_layers_then_norms_then_the_reference(
        self, known: dict[str, float], own: float | None, expected: float
    ) -> None:
        made = plan(Bounded(**known), numbers=Numbers(bits=8, range=own, weight_cap=1))
        assert made.quantiser is not None
        assert expected <= made.quantiser.range < 2 * expected

    def test_what_is_summed_is_described(self) -> None:
        made = plan(Bounded(l2=4.0), numbers=Numbers(bits=8, range=1.0, weight_cap=5))
        quantiser, summed = made.quantiser, made.summed
        assert quantiser is not None
        assert (summed.kind, summed.step, summed.range) == ("integer", quantiser.step, quantiser.range)
        assert summed.bound == 5 * quantiser.bound
        assert summed.l2 == pytest.approx(5 * (4.0 + quantiser.step * np.sqrt(2) / 2))

    @pytest.mark.parametrize("cap, sent", [(1, False), (2, True), (3, True)])
    def test_a_weight_is_sent_where_there_is_one(self, cap: int, sent: bool) -> None:
        names = {c.name for c in plan(numbers=Numbers(bits=8, range=1.0, weight_cap=cap)).summed.coordinates}
        assert (WEIGHT in names) is sent


class TestFits:
    @pytest.mark.parametrize("modulus, beside, fits", [(80, 9, True), (80, 10, False), (81, 10, True)])
    def test_what_lies_beside_fits_the_layers_modulus(self, modulus: int, beside: int, fits: bool) -> None:
        """Four clients: twice 4 x the bound stays below the modulus."""
        if fits:
            assert plan(Whole(modulus, 1, beside)).summed.modulus == modulus
        else:
            with pytest.raises(CapacityError, match="'beside': 4 clients x 10"):
                plan(Whole(modulus, 1, beside))

    @pytest.mark.parametrize("bound, fits", [((1 << 60) - 1, True), (1 << 60, False)])
    def test_sums_over_the_integers_stay_below_half_of_the_largest_ring(self, bound: int, fits: bool) -> None:
        if fits:
            assert plan(Whole(0, bound, 1)).summed.bound == bound
        else:
            with pytest.raises(CapacityError):
                plan(Whole(0, bound, 1))
            assert plan(Whole(1 << 62, bound, 1)).summed.bound == bound  # a ring may wrap: nothing to prove

    @pytest.mark.parametrize("beside, fits", [((1 << 60) - 1, True), (1 << 60, False)])
    def test_so_does_what_lies_beside(self, beside: int, fits: bool) -> None:
        if fits:
            assert plan(Whole(0, 1, beside)).summed.modulus == 0
        else:
            with pytest.raises(CapacityError, match="beside"):
                plan(Whole(0, 1, beside))


@pytest.mark.parametrize(
    "modulus", [2, 3, 4, 5, 6, 7, 8, 100, 101, 1 << 16, (1 << 62) - 1, 1 << 62, 1 << 63, 1 << 64]
)
def test_residues_become_the_integers_next_to_zero(modulus: int) -> None:
    half = (modulus + 1) // 2
    residues = sorted({0, 1, half - 1, half % modulus, modulus - 1, modulus // 2})
    got = centred(np.array(residues, np.uint64), modulus).tolist()
    assert got == [r if r < half else r - modulus for r in residues]


@pytest.mark.parametrize("modulus", [0, 3, 4, 10, 1 << 20, (1 << 62) - 1])
def test_sums_stay_exact_in_their_group(modulus: int) -> None:
    total = np.zeros(2, np.uint64)
    vectors = [[5, -7], [-6, 2], [1, 1], [-(1 << 40), 1 << 40]]
    for vector in vectors:
        add_into(total, np.array(vector, np.int64), modulus)
    exact = [sum(v[i] for v in vectors) for i in (0, 1)]
    base = modulus or 1 << 64
    assert [int(t) % base for t in total] == [e % base for e in exact]
