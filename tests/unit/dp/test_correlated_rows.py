"""Rows of C' x and a party's rules of taking part: exact arithmetic, deletion, nothing early and nothing twice."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dp.correlated.attendance import Attendance
from dp.correlated.options import Correlation, chosen
from dp.correlated.rows import OpenedRows, combined, decoded
from dp.correlated.strategy import StrategyMatrix, optimised
from dp.events import CorrelatedRow, Gaussian, Relation, Unit
from protocols.errors import Misuse, PolicyRefusal, ProtocolViolation
from protocols.layers import RoundFacts, RunFacts
from protocols.party_state import erase
from protocols.store import FileStore, MemoryStore

RUN = RunFacts(rounds=60, population=10, cohort=10, dimension=3)


def facts(row: int, store: MemoryStore | FileStore | None, **changes: object) -> RoundFacts:
    made = RoundFacts(RUN, row, ("a",), bytes(32), client="a", store=store, scope="run")
    return replace(made, **changes)  # type: ignore[arg-type]  # the cases


@settings(max_examples=30, deadline=None)
@given(st.sets(st.integers(1, 60)), st.integers(0, 2**32 - 1))
def test_decoding_is_that_of_rationals_whatever_rows_were_lost(lost: set[int], seed: int) -> None:
    """Within 1e-6 of what the integers say, with noise in every row and the lost rows' columns deleted."""
    strategy, draws = optimised(60, 12), np.random.default_rng(seed)
    opened, exact = OpenedRows(), dict[int, Fraction]()
    for row in range(1, 61):
        if row in lost:
            continue
        z = int(draws.integers(-(2**40), 2**40))
        past = sum((strategy.at(row, j) * x for j, x in exact.items()), Fraction(0))
        exact[row] = (z - past) / strategy.at(row, row)
        (found,) = opened.take(strategy, row, np.array([float(z)]))
        assert abs(Fraction(float(found)) - exact[row]) <= max(1, abs(exact[row])) * Fraction(1, 10**6)
        assert len(opened.known) <= strategy.bands - 1


def test_what_goes_in_comes_out() -> None:
    strategy, draws = optimised(40, 8), np.random.default_rng(0)
    given_, opened = {}, OpenedRows()
    for row in range(1, 41):
        x = draws.integers(-1000, 1000, 5)
        z = combined(strategy, row, given_ | {row: x})
        assert (strategy.matrix()[row - 1, :row] @ np.array([*given_.values(), x]) == z).all()
        np.testing.assert_allclose(opened.take(strategy, row, z.astype(float)), x, atol=1e-6)
        given_[row] = x


def test_a_sum_that_leaves_64_bits_is_refused() -> None:
    with pytest.raises(Misuse, match="64 bits"):
        combined(StrategyMatrix((2, 1), 3), 2, {1: np.array([2**61]), 2: np.array([2**61])})


def test_a_server_keeps_rows_as_long_as_they_are_needed_and_takes_them_back() -> None:
    strategy, opened = StrategyMatrix((3, 2, 1), 5), OpenedRows()
    for row in range(1, 6):
        opened.take(strategy, row, np.array([float(row)]), np.array([row]))
        other = OpenedRows()
        other.restore(opened.state())
        assert other.state().keys() == opened.state().keys()
        assert sorted(opened.exact) == sorted(opened.known) == ([row - 1, row][-row:] if row < 5 else [])
    assert "3" not in repr(opened)
    assert decoded(strategy, 3, np.array([9.0]), {1: np.array([1.0]), 2: np.array([2.0])}) == (9 - 1 - 4) / 3


def test_the_first_and_the_last_number_that_fit() -> None:
    strategy, last = StrategyMatrix((2, 1), 3), 2**60
    below = {1: np.array([2 * last - 2048]), 2: np.array([last - 2048])}
    assert combined(strategy, 2, below) == 2**62 - 3 * 2048
    with pytest.raises(Misuse, match="64 bits"):
        combined(strategy, 2, {1: np.array([-2 * last]), 2: np.array([-last])})
    assert combined(StrategyMatrix((2**61,), 3), 2, {2: np.array([1])}) == 2**61
    with pytest.raises(Misuse, match="64 bits"):
        combined(StrategyMatrix((2**62,), 3), 2, {2: np.array([1])})
    assert combined(StrategyMatrix((2**61, 2**61), 3), 2, {1: np.array([1]), 2: np.array([0])}) == 2**61
    assert combined(StrategyMatrix((2, -1), 3), 2, {1: np.array([5]), 2: np.array([7])}) == 9


def test_the_least_number_has_no_magnitude_in_64_bits_and_is_refused_too() -> None:
    with pytest.raises(Misuse, match="64 bits"):
        combined(StrategyMatrix((2, 1), 3), 2, {2: np.array([-(2**63)])})


def test_opened_rows_are_those_of_one_run_and_all_of_them_are_taken_back() -> None:
    strategy, opened = StrategyMatrix((2, 1), 5), OpenedRows()
    assert opened.of("").of("one").of("two/2").scope == "two/2"  # it holds nothing yet
    assert opened.state() == {}
    opened.take(strategy, 1, np.array([4]), np.array([3]))
    assert opened.of("").of("two/2") is opened
    with pytest.raises(Misuse, match="a layer of its own"):
        opened.of("three")
    again = OpenedRows({7: np.array([1])}, {7: np.array([1.0])}, "an older run")
    again.restore(opened.state())
    assert (again.exact, again.known, again.scope) == ({1: np.array([3])}, {1: np.array([2.0])}, "two/2")
    with pytest.raises(Misuse, match="a layer of its own"):
        again.of("three")
    again.restore({})
    assert (again.exact, again.known, again.scope) == ({}, {}, "")


def test_decoding_takes_earlier_rows_alone_and_leaves_what_it_is_given_as_it_is() -> None:
    strategy, opened = StrategyMatrix((2, 1), 5), np.array([9, 1])
    known = {row: np.array([1.0 * row, 1.0]) for row in (1, 2, 3)}
    assert decoded(strategy, 2, opened, known).tolist() == [4.0, 0.0]
    assert opened.tolist() == [9, 1]


# -- a party's own rules --

RULES = Attendance(separation=5, participations=3)


def test_rows_rise_keep_their_distance_and_end(tmp_path: Path) -> None:
    """The store is opened anew for every row: what was taken lasts."""
    path = tmp_path / "store"

    def take(row: int, terms: bytes = b"terms") -> None:
        store = FileStore(path, "a")
        may = RULES.comes(store, "run", "layer", row)  # a device asks before it comes
        try:
            RULES.take(facts(row, store), "layer", terms)
        except PolicyRefusal:
            assert not may
            raise
        assert may

    take(2)
    for row, why in ((2, "taken already"), (1, "taken already"), (3, "row 7 at the earliest"), (6, "row 7")):
        with pytest.raises(PolicyRefusal, match=why):
            take(row)
    take(7)
    with pytest.raises(ProtocolViolation, match="not what this run began with"):
        take(20, b"another C', clip or grid")
    take(20)
    with pytest.raises(PolicyRefusal, match="as many as this run allows"):
        take(40)


def test_the_end_of_a_run_forgets_no_row_and_other_runs_count_for_themselves() -> None:
    store = MemoryStore()
    RULES.take(facts(4, store), "layer", b"")
    store.put("kept/run/layer/settled", b"history")
    erase(store, "run")
    assert store.get("kept/run/layer/settled") is None
    with pytest.raises(PolicyRefusal, match="taken already"):
        RULES.take(facts(4, store), "layer", b"")
    RULES.take(facts(4, store, scope="another run"), "layer", b"")


def test_no_store_no_row() -> None:
    with pytest.raises(Misuse, match="store"):
        RULES.take(facts(1, None), "layer", b"")


def test_another_strategy_than_ones_own_is_refused() -> None:
    """C' is broadcast, so that it is in the session's digest; each party computes it for itself."""
    own = Correlation(separation=10)
    public = own.public(RUN.rounds)
    rules = own.attendance(RUN.rounds)
    other = Correlation(separation=10, bands=9).public(RUN.rounds)
    bands = np.asarray(public["strategy"])
    for said in (bands * 2, "abc", [1, [2]], bands + 1j, bands.astype(str), bands.reshape(1, -1)):
        shown = {"layer": {"strategy": said}}
        with pytest.raises(ProtocolViolation, match="another strategy"):
            own.admit(facts(1, MemoryStore(), public=shown), "layer", rules, ())
    for shown in ({}, other):
        with pytest.raises(ProtocolViolation, match="another strategy"):
            own.admit(facts(1, MemoryStore(), public={"layer": shown}), "layer", rules, ())
    store = MemoryStore()
    own.admit(facts(1, store, public={"layer": public}), "layer", rules, (1.0,))
    with pytest.raises(ProtocolViolation, match="not what this run began with"):
        own.admit(facts(11, store, public={"layer": public}), "layer", rules, (2.0,))


def test_what_a_server_breaks_is_laid_to_the_server() -> None:
    own, store = Correlation(separation=10), MemoryStore()
    other = Correlation(separation=10, bands=9)
    public = own.public(RUN.rounds)
    rules = own.attendance(RUN.rounds)

    def admit(row: int, rule: Correlation = own, **changes: object) -> None:
        shown = {"public": {"layer": rule.public(RUN.rounds)}, **changes}
        rule.admit(facts(row, store, **shown), "layer", rules, ())

    admit(1)
    for row, changes, why in (
        (0, {}, "from 1 to 60, got 0"),
        (61, {}, "from 1 to 60, got 61"),
        (11, {"public": {}}, "another strategy"),
        (11, {"run": replace(RUN, dimension=4)}, "not what this run began with"),
        (11, {"rule": other}, "not what this run began with"),
    ):
        with pytest.raises(ProtocolViolation, match=why) as found:
            admit(row, **changes)  # type: ignore[arg-type]  # the cases
        assert found.value.party == "server"
    admit(60)
    assert public["strategy"].dtype == np.float64  # the same bytes from every server


@pytest.mark.parametrize(
    ("sampling", "changes", "apart"),
    [
        ("cyclic", {"rate": 0.25}, 4),
        ("cyclic within windows", {"rate": 0.25}, 4),
        ("round-robin", {"population": 15, "cohort": 4}, 3),  # who is asked last may be asked first
        ("round-robin within windows", {"population": 16, "cohort": 4}, 4),
        ("arrivals", {}, 60),
        ("all", {}, 0),
        ("fixed", {"cohort": 1}, 0),
        ("poisson", {"rate": 0.01}, 0),
    ],
)
def test_turns_hold_a_separation_and_none_longer(
    sampling: str, changes: dict[str, float], apart: int
) -> None:
    run = replace(RUN, sampling=sampling, **changes)  # type: ignore[arg-type]  # the cases
    for separation in range(2, max(apart, 1) + 2):
        rule = Correlation(separation)
        if separation <= apart or sampling == "arrivals":  # where everybody counts for itself
            rule.require_turns(run, "layer")
            continue
        with pytest.raises(Misuse, match="layer: clients take part"):
            rule.require_turns(run, "layer")


def test_a_layers_options_become_a_rule_of_their_own() -> None:
    assert chosen(None, None, None, None, 0.0) is None
    assert chosen("banded", 5, 3, 2, 0.5) == Correlation(5, 3, 2, 0.5)
    for wrong in (("tree", 5, None), (None, 5, None), (None, None, 2), ("banded", None, None)):
        with pytest.raises(Misuse, match="banded"):
            chosen(*wrong, None, 0.0)
    with pytest.raises(Misuse, match="banded"):
        chosen(None, None, None, None, 0.5)


def test_bands_are_those_asked_for_or_as_many_as_the_separation_holds_and_32_at_most() -> None:
    for rule, bands in (
        (Correlation(2), 2),
        (Correlation(40), 32),
        (Correlation(40, bands=40), 40),
        (Correlation(40, bands=1), 1),
    ):
        assert rule.strategy(60) == optimised(60, bands)
    assert Correlation(8, momentum=0.9).strategy(60) == optimised(60, 8, 0.9) != optimised(60, 8)


def test_a_row_names_its_run_its_place_and_what_a_participation_costs() -> None:
    once = Gaussian(noise_multiplier=2.0, unit=Unit.CLIENT, relation=Relation.REPLACE)
    row = Correlation(separation=10, participations=3).row(once, facts(7, None))
    assert row == CorrelatedRow(
        event=once,
        plan="run",
        row=7,
        separation=10,
        participations=3,
        unit=Unit.CLIENT,
        relation=Relation.REPLACE,
    )
    assert Correlation(separation=25).row(once, facts(7, None)).participations == 3  # rows 1, 26 and 51
    assert Correlation(separation=25, participations=1).attendance(60) == Attendance(25, 1)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"separation": 1}, "gains nothing"),
        ({"bands": 11}, "from 1 to 10 bands"),
        ({"bands": 0}, "bands"),
        ({"participations": 0}, "participations"),
        ({"momentum": 1.0}, "momentum"),
        ({"momentum": -0.1}, "momentum"),
    ],
)
def test_what_would_not_hold_or_help_is_refused(wrong: dict[str, float], why: str) -> None:
    with pytest.raises(Misuse, match=why):
        Correlation(**{"separation": 10, **wrong})  # type: ignore[arg-type]  # the cases
