"""The adversary that searches: it proves that there is nothing, or plays what it finds to an exact value."""

from typing import Any

import pytest

from protocols.audit import PROPERTIES, Status, WhiteBox, audit
from protocols.audit.prop import Finding
from protocols.audit.search import offers, schedules
from protocols.audit.search.planning import corrupt_set, plan, weaker
from protocols.audit.search.program import Program, Undecided
from protocols.audit.search.two_views import Arrangement, prepared, search
from protocols.audit.subject import Searched
from secagg import Credentials, SecAgg, SecAggPlus
from tests.defects import ALL
from tests.defects.homomorphic import two_of_three
from tests.defects.pieces import anything_goes, malicious
from tests.defects.planting import put
from tests.defects.views import CERTIFICATE, few_holders
from tests.paillier_fixed import shared

SEARCHES = {p.name for p in PROPERTIES if p.search}


def reusing() -> SecAggPlus:
    return SecAggPlus(setup="reuse")


def sparse() -> SecAggPlus:
    """The malicious model with a graph that clients commit to and reveal."""
    return SecAggPlus(
        neighbours=6, threshold=2, threat="malicious", credentials=Credentials.simulated(range(64))
    )


def test_a_program_is_solved_or_excluded() -> None:
    program = Program()
    one, other = program.new(), program.new()
    program.least({one: 1.0, other: 1.0}, 1.0)
    program.implies(one, other)
    program.fix(one)
    values = program.solve(10)
    assert values is not None
    assert values.tolist() == [False, True]
    program.fix(other)
    assert program.solve(10) is None


def test_the_complete_graph_is_searched_to_the_end() -> None:
    subject = WhiteBox(SecAgg)
    said = search(subject, Arrangement(subject.protocol, 5, 1, 5))
    assert " 0 undecided" in said
    assert "Not examined" in said


def test_what_is_found_is_played_and_told_with_the_exact_value() -> None:
    with put(CERTIFICATE, anything_goes)():
        subject = WhiteBox(few_holders)
        with pytest.raises(Finding) as found:
            search(subject, Arrangement(subject.protocol, 5, 1, 5))
    story = str(found.value)
    assert "was opened" in story
    assert "opens its shares for the views" in story


def test_a_plan_that_breaks_a_check_is_refused_by_the_real_states() -> None:
    subject = WhiteBox(few_holders)
    _, _, rule = prepared(subject, Arrangement(subject.protocol, 5, 1, 5))
    corrupt = corrupt_set(rule)
    found = [one.story for one in weaker(rule) if plan(one.rule, corrupt, 20) is not None]
    assert "" not in found
    assert found, "without one of its checks the rule can be got around"


def test_graphs_that_open_a_secret_without_a_lie_are_played_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many corrupt voters tie with too many holders, and five graphs are played: 1 search in 200 found nothing."""
    [defect] = [d for d in ALL if d.name == "ground beacon"]
    monkeypatch.setattr(offers, "WORST", 1_000)
    with defect.plant():
        what = Arrangement(made := defect.protocol()._drawn(40), 40, 1, 40)
        table, _, wished = prepared(WhiteBox(defect.protocol), what)
        corrupt = corrupt_set(wished)
        names = {table.session.roster[i] for i in corrupt}
        held = []
        for _, session in offers.ground(made, table.session, corrupt, 300):
            shares = offers.opening_of(made).rule(session, ()).shares
            at = {i for i, name in enumerate(session.roster) if name in names}
            held.append(max(len(holders & at) for i, holders in enumerate(shares) if i not in at))
    assert held == sorted(held, reverse=True)
    assert held[0] > held[-1], "the tie was drawn"


def test_time_that_runs_out_is_no_verdict() -> None:
    subject = WhiteBox(few_holders)
    _, _, rule = prepared(subject, Arrangement(subject.protocol, 12, 1, 12))
    with pytest.raises(Undecided):
        plan(rule, frozenset(), 0.001)


def test_an_audit_says_that_it_did_not_search() -> None:
    report = audit(WhiteBox(SecAgg), examples=1, only=["exact-sum"])
    assert "no-split-opens-few" in report.not_searched
    assert "--search" in report.to_markdown()
    assert "--search" in report.to_html()
    assert report.to_json()["not_searched"] == list(report.not_searched)


HOMOMORPHIC = [pytest.param(protocol, marks=pytest.mark.slow) for protocol in (two_of_three, shared)]


@pytest.mark.parametrize("protocol", [SecAgg, SecAggPlus, malicious, reusing, *HOMOMORPHIC])
def test_sound_sums_give_a_search_nothing(protocol: Any) -> None:
    subject = WhiteBox(protocol)
    subject.searched = Searched(complete=(5,), sparse=(), ring=())
    report = audit(subject, examples=1, only=sorted(SEARCHES))
    assert [(p.name, p.counterexample) for p in report.properties if p.status is Status.FAILED] == []


@pytest.mark.slow
@pytest.mark.parametrize("protocol", [SecAgg, SecAggPlus, malicious, sparse])
def test_sound_sums_pass_a_search_of_the_usual_size(protocol: Any) -> None:
    subject = WhiteBox(protocol)
    subject.searched = Searched(seconds=200.0)  # a busy machine decides as much
    report = audit(subject, examples=1, only=sorted(SEARCHES))
    assert [(p.name, p.reason) for p in report.properties if p.status is not Status.PASSED] == []


def test_schedules_of_a_sound_sum_tell_one_total() -> None:
    said = schedules.search(WhiteBox(SecAgg), frozenset(), examples=15)
    assert "steps in all" in said
    assert "Not examined" in said
