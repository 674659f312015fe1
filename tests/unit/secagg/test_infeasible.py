"""Demands on a plan that cannot be met are refused by name, with advice that works."""

from __future__ import annotations

import math

import pytest

from protocols.errors import Misuse
from secagg.parameters import Cohort, Infeasible, plan


@pytest.mark.parametrize(("collusion", "largest"), [(0.95, "0.02"), (0.97, "0.01")])
def test_the_remedy_may_be_that_hardly_anybody_leaves(collusion: float, largest: str) -> None:
    with pytest.raises(Infeasible) as refusal:
        plan(Cohort(100, 0.5, collusion, "malicious"))
    assert refusal.value.relax[0] == f"lower dropout to {largest}"
    assert plan(Cohort(100, float(largest), collusion, "malicious"))


def test_infeasible_says_what_to_relax_and_the_advice_works() -> None:
    with pytest.raises(Infeasible, match="lower dropout to") as refusal:
        plan(Cohort(100, 0.5, 0.3, "semi-malicious"))
    advice = {line.rsplit(" ", 1)[0]: line.rsplit(" ", 1)[1] for line in refusal.value.relax}
    assert plan(Cohort(100, float(advice["lower dropout to"]), 0.3, "semi-malicious"))
    assert plan(Cohort(100, 0.5, 0.3, advice["choose threat"]))
    with pytest.raises(Infeasible):
        plan(Cohort(100, float(advice["lower dropout to"]) + 0.01, 0.3, "semi-malicious"))


@pytest.mark.parametrize(
    ("demand", "said"),
    [
        (
            (100, 0.5, 0.3, "semi-malicious"),
            "infeasible (100 clients, drop-out 0.5, collusion 0.3, semi-malicious): one view of who survived needs 66 "
            "votes, and 50 are left to vote: lower dropout to 0.34; or choose threat semi-honest.",
        ),
        (
            (5, 0.9, 0.0, "semi-honest"),
            "infeasible (5 clients, drop-out 0.9, collusion 0, semi-honest): secrecy needs a threshold of 2 even if "
            "all 4 others hold shares, and 0 are left to answer: lower dropout to 0.59; or have 21 clients.",
        ),
        (
            (10, 0.9, 0.9, "malicious"),
            "infeasible (10 clients, drop-out 0.9, collusion 0.9, malicious): one view of who survived needs 10 votes, "
            "and 1 are left to vote: relax several of its numbers.",
        ),
        (
            (10**8, 0.33, 0.33, "semi-malicious"),
            "infeasible (100000000 clients, drop-out 0.33, collusion 0.33, semi-malicious): every client would need "
            "more than 65535 neighbours or voters: lower dropout to 0.31; or lower collusion to 0.3; or choose threat "
            "semi-honest.",
        ),
    ],
)
def test_the_refusal_in_words(demand: tuple[int, float, float, str], said: str) -> None:
    for complete in {False, demand[0] < 10**5}:  # the complete graph ends at 65,536 clients
        with pytest.raises(Infeasible) as refusal:
            plan(Cohort(*demand, complete=complete))
        assert str(refusal.value) == said


def test_too_many_neighbours_is_infeasible() -> None:
    with pytest.raises(Infeasible, match="more than 65535 neighbours"):
        plan(Cohort(10**8, 0.33, 0.33, "semi-malicious"))


@pytest.mark.parametrize("clients", [1, 2])
def test_too_few_clients_for_any_threshold(clients: int) -> None:
    with pytest.raises(Infeasible, match="have 3 clients"):
        plan(Cohort(clients, 0.0, 0.0))


@pytest.mark.parametrize(
    "arguments, word",
    [
        ((0, 0.1, 0.1), "clients"),
        ((10**9 + 1, 0.1, 0.1), "clients"),
        ((10, 1.0, 0.1), "dropout"),
        ((10, -0.1, 0.1), "dropout"),
        ((10, math.nan, 0.1), "dropout"),
        ((10, 0.1, 1.5), "collusion"),
        ((10, 0.1, 0.1, "none"), "threat"),
    ],
)
def test_numbers_out_of_range_are_refused_by_name(arguments: tuple[int, float, float], word: str) -> None:
    with pytest.raises(Misuse, match=word):
        plan(Cohort(*arguments))


@pytest.mark.parametrize("security, correctness", [(0, 20), (40, 0), (math.inf, 20)])
def test_failure_bounds_out_of_range_are_refused(security: float, correctness: float) -> None:
    with pytest.raises(Misuse, match="bits"):
        plan(Cohort(10, 0.1, 0.1, security=security, correctness=correctness))
