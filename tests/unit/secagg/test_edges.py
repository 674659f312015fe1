"""Edges of plans, costs, streams and packing: the last that is allowed, the first that is not."""

import itertools
import math
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from protocols.errors import Misuse, WireError
from secagg.masks import expand
from secagg.packing import check_packed, pack, unpack
from secagg.parameters import Cohort, calibration, plan
from secagg.parameters.calibration import calibrate
from secagg.parameters.conditions import (
    MOST_CLIENTS,
    MOST_HOLDERS,
    largest_threshold,
    least_connected_degree,
    least_threshold,
)
from secagg.parameters.costs import costs, ring_bits
from secagg.parameters.plan import Infeasible
from secagg.ring import Ring


def cohort(**changes: Any) -> Cohort:
    known: dict[str, Any] = {
        "clients": 100,
        "dropout": 0.1,
        "collusion": 0.1,
        "threat": "semi-malicious",
        "security": 40.0,
        "correctness": 20.0,
    }
    return Cohort(**known | changes)


class TestCohorts:
    @pytest.mark.parametrize(
        "edge",
        [
            {"clients": 1},
            {"clients": MOST_CLIENTS},
            {"dropout": 0.0},
            {"dropout": math.nextafter(1.0, 0.0)},
            {"collusion": 0.0},
            {"security": 1e-9},
            {"security": 1000.0},
            {"correctness": 0.5},
            {"correctness": 1000.0},
        ],
    )
    def test_the_last_that_is_allowed(self, edge: dict[str, Any]) -> None:
        (name,) = edge
        assert getattr(cohort(**edge), name) == edge[name]

    @pytest.mark.parametrize(
        "edge",
        [
            {"clients": 0},
            {"clients": MOST_CLIENTS + 1},
            {"dropout": 1.0},
            {"dropout": 1.5},
            {"dropout": -1e-9},
            {"collusion": 1.0},
            {"security": 0.0},
            {"security": 1000.5},
            {"correctness": 0.0},
            {"correctness": math.inf},
            {"threat": "evil"},
        ],
    )
    def test_the_first_that_is_not(self, edge: dict[str, Any]) -> None:
        (name,) = edge
        with pytest.raises(Misuse, match="bits" if name in ("security", "correctness") else name):
            cohort(**edge)


class TestPlans:
    def test_defaults_and_bounds_reach_the_cohort(self) -> None:
        assert plan(Cohort(12, 0.0, 0.1, complete=True)).cohort == cohort(
            clients=12, dropout=0.0, complete=True
        )
        assert plan(Cohort(12, 0.0, 0.1, "malicious", security=60.0, complete=True)).cohort == cohort(
            clients=12, dropout=0.0, threat="malicious", security=60.0, complete=True
        )
        assert plan(Cohort(200, 0.1, 0.1)).cohort == cohort(clients=200)

    def test_a_complete_graph_has_at_most_as_many_as_the_field_has_points(self) -> None:
        found = plan(Cohort(MOST_HOLDERS + 1, 0.0, 0.0, "semi-honest", complete=True))
        assert found.degree == MOST_HOLDERS
        with pytest.raises(Infeasible, match="more than 65535 neighbours"):
            plan(Cohort(MOST_HOLDERS + 2, 0.0, 0.0, "semi-honest", complete=True))

    def test_every_remedy_is_named(self) -> None:
        with pytest.raises(Infeasible) as refusal:
            plan(Cohort(5, 0.4, 0.2, "semi-malicious"))
        assert refusal.value.relax == (
            "lower dropout to 0.39",
            "lower collusion to 0.19",
            "choose threat semi-honest",
            "have 6 clients",
        )

    def test_a_remedy_may_be_nobody(self) -> None:
        with pytest.raises(Infeasible) as refusal:
            plan(Cohort(3, 0.5, 0.4, "semi-malicious"))
        assert refusal.value.relax[0].startswith("lower")

    def test_thresholds_where_none_is_safe_are_above_the_degree(self) -> None:
        lost = cohort(collusion=0.95, dropout=0.0)
        for threat in ("semi-honest", "semi-malicious", "malicious"):
            for degree in (10, 20):
                assert least_threshold(cohort(collusion=0.95, threat=threat), degree) == degree + 1
        assert largest_threshold(lost, 20) == 20
        assert largest_threshold(cohort(dropout=0.97), 20) == 0

    def test_the_least_connected_degree_is_that_of_exact_fractions(self) -> None:
        """Rule (a): n (n - k - 1) C(bad, k) / (2 C(n, k)) at most half the failure bound."""
        for n in (33, 35, 39, 43, 45, 64, 100, 150, 211):
            for dropout, collusion in itertools.product((0.0, 0.1, 0.25, 0.4), (0.0, 0.1, 0.3)):
                for security in (5.0, 10.0, 20.0, 40.0):
                    asked = cohort(clients=n, dropout=dropout, collusion=collusion, security=security)
                    bad = min(n, asked.corrupt + asked.dropped)
                    exact = next(
                        k
                        for k in range(2, n + 2, 2)
                        if k >= n - 1
                        or Fraction(n * (n - k - 1) * math.comb(bad, k), 2 * math.comb(n, k))
                        <= Fraction(1, 2 ** int(security + 1))
                    )
                    found = least_connected_degree(asked)
                    assert found == exact or found >= exact >= n - 2, asked


class TestCosts:
    def test_the_smallest_and_the_widest(self) -> None:
        found = plan(Cohort(3, 0.0, 0.0, "semi-honest", complete=True))
        assert costs(found, 1, 2).ring_bits == 3
        assert costs(found, 1, 62).ring_bits == 64
        for dimension, bits in ((0, 2), (1, 1), (1, 65)):
            with pytest.raises(Misuse, match="at least 1 and 2 to 64 bits"):
                costs(found, dimension, bits)
        with pytest.raises(Infeasible, match="ring of 66 bits"):
            costs(found, 1, 64)

    def test_what_to_do_about_a_ring_that_is_too_wide(self) -> None:
        assert ring_bits(4, 62) == 64
        for clients, bits, remedy in ((3, 63, "lower bits to 62"), (2**62, 4, "lower bits to 2")):
            with pytest.raises(Infeasible) as refusal:
                ring_bits(clients, bits)
            assert refusal.value.relax == (remedy,)
        with pytest.raises(Infeasible) as refusal:
            ring_bits(2**63, 4)
        assert refusal.value.relax == ("have fewer clients",)


class TestCalibration:
    def test_the_call_is_measured_on_one_word_and_the_bytes_on_many(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lengths: list[int] = []
        monkeypatch.setattr(calibration, "add_mask", lambda words, seed: lengths.append(len(words)))
        monkeypatch.setattr(calibration, "_seconds", lambda work: (work(), 1.0)[1])
        monkeypatch.setattr(calibration, "_relay", lambda: 1.0)
        calibrate(8, 5, Ring(20))
        assert lengths == [1, calibration._SAMPLE]

    def test_relaying_is_the_fastest_of_small_sessions_per_client_and_neighbour(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seconds, played = iter([9.0, 5.0, 7.0]), []

        def fake(protocol: Any, vectors: Any, **named: Any) -> Any:
            demand = protocol.wishes.demand
            played.append((vectors.shape, demand.threat, demand.dropout, demand.collusion, named))
            spent = next(seconds)
            return SimpleNamespace(seconds_of=lambda role: spent if role == "server" else 1e9)

        monkeypatch.setattr(calibration, "simulate", fake)
        assert calibration._relay() == 5.0 / (24 * 23)
        options = {"bound": 1, "clock": calibration.time.thread_time}
        assert played == [((24, 1), "semi-honest", 0.0, 0.0, options)] * 3


class TestBytes:
    def test_a_stream_has_the_length_that_was_asked_for(self) -> None:
        whole = expand(b"s" * 32, b"p", (3 << 20) + 7)
        for count in (0, 1, 17, 1 << 20, (1 << 20) + 1, (3 << 20) - 1, (3 << 20) + 7):
            piece = expand(b"s" * 32, b"p", count)
            assert (len(piece), piece == whole[:count]) == (count, True)

    @pytest.mark.parametrize("bits", [1, 3, 5, 7, 9, 12, 63])
    def test_every_unused_bit_of_a_packed_vector_is_refused(self, bits: int) -> None:
        ring = Ring(bits)
        for dimension in range(1, 10):
            packed = pack(np.zeros(dimension, ring.dtype), ring)
            assert unpack(packed, dimension, ring).tolist() == [0] * dimension
            for bit in range(8 * len(packed)):
                changed = bytearray(packed)
                changed[bit // 8] |= 1 << bit % 8
                if bit < dimension * bits:
                    check_packed(changed, dimension, ring)
                else:
                    with pytest.raises(WireError, match="unused and must be zero"):
                        check_packed(changed, dimension, ring)
