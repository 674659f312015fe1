"""Degree and threshold: published instances to the digit, exact tails, brute-force search, and refusals that help."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.errors import Misuse
from secagg.parameters import Cohort, Infeasible, Plan, plan, plan_complete
from secagg.parameters.plan import SMALL
from secagg.parameters.rules import (
    complete_threshold,
    largest_threshold,
    least_connected_degree,
    least_threshold,
)
from secagg.parameters.tails import (
    log_all_marked,
    log_tail_at_least,
    log_tail_below,
    tail_at_least_exceeds,
    tail_below_exceeds,
)


def exact_log(ways: int, population: int, drawn: int) -> float:
    """ln(ways / C(population, drawn)), by integers."""
    return -math.inf if ways == 0 else math.log(ways) - math.log(math.comb(population, drawn))


def exact_ways(low: int, high: int, population: int, marked: int, drawn: int) -> int:
    return sum(
        math.comb(marked, x) * math.comb(population - marked, drawn - x)
        for x in range(max(0, low), min(high, drawn + 1))
    )


# -- the published instances (Bell et al. 2020, sigma = 40, eta = 20) --


@pytest.mark.parametrize(
    "clients, dropout, collusion, threat, degree, threshold",
    [
        (1_000, 0.33, 0.05, "semi-honest", 72, 24),
        (10_000, 0.33, 0.33, "semi-honest", 422, 221),
        (1_000, 0.30, 0.30, "semi-malicious", 872, 584),
    ],
)
def test_published_instances(
    clients: int, dropout: float, collusion: float, threat: str, degree: int, threshold: int
) -> None:
    found = plan(clients, dropout, collusion, threat)
    assert (found.degree, found.threshold, found.complete) == (degree, threshold, False)


# -- tails --


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_tails_equal_integer_arithmetic(data: st.DataObject) -> None:
    population = data.draw(st.integers(1, 400))
    marked = data.draw(st.integers(0, population))
    drawn = data.draw(st.integers(0, population))
    least = data.draw(st.integers(-1, drawn + 2))
    above = exact_log(exact_ways(least, drawn + 1, population, marked, drawn), population, drawn)
    below = exact_log(exact_ways(0, least, population, marked, drawn), population, drawn)
    assert log_tail_at_least(least, population, marked, drawn) == pytest.approx(above, rel=1e-9, abs=1e-11)
    assert log_tail_below(least, population, marked, drawn) == pytest.approx(below, rel=1e-9, abs=1e-11)


@pytest.mark.parametrize(
    "population, marked, drawn, least", [(10**8, 33_000_000, 592, 307), (10**8, 10**7, 500, 150)]
)
def test_tails_keep_their_digits_in_large_populations(
    population: int, marked: int, drawn: int, least: int
) -> None:
    exact = exact_log(exact_ways(least, drawn + 1, population, marked, drawn), population, drawn)
    assert log_tail_at_least(least, population, marked, drawn) == pytest.approx(exact, rel=1e-12)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_quick_comparison_agrees_with_the_sum(data: st.DataObject) -> None:
    population = data.draw(st.integers(10, 10**8))
    marked = data.draw(st.integers(0, population))
    drawn = data.draw(st.integers(0, min(population, 5_000)))
    least = data.draw(st.integers(0, drawn + 1))
    limit = data.draw(st.floats(-200, -1e-9))
    assert tail_at_least_exceeds(limit, least, population, marked, drawn) == (
        log_tail_at_least(least, population, marked, drawn) > limit
    )
    assert tail_below_exceeds(limit, least, population, marked, drawn) == (
        log_tail_below(least, population, marked, drawn) > limit
    )


@pytest.mark.parametrize("marked, drawn", [(-1, 0), (11, 0), (0, 11), (0, -1)])
def test_impossible_urns_are_refused(marked: int, drawn: int) -> None:
    with pytest.raises(Misuse, match="at most 10"):
        log_tail_at_least(0, 10, marked, drawn)


# -- the search --


def brute_force(cohort: Cohort) -> tuple[int, int]:
    """The rules of `secagg.parameters.rules`, by exact fractions and trying everything."""
    n, corrupt, survivors = cohort.clients, cohort.corrupt, cohort.survivors
    secrecy = Fraction(1, 2 ** (int(cohort.security) + 1))
    completion = Fraction(1, 2 ** int(cohort.correctness))
    bad = min(n, corrupt + cohort.dropped)
    for k in range(2, n - 1, 2) if n > SMALL else ():
        whole = math.comb(n, k)
        connected = Fraction(n * (n - k - 1) * math.comb(bad, k), 2 * whole) <= secrecy
        for t in range(2, k + 1):
            opens = 2 * t - k if cohort.two_faced else t
            windows = math.comb(n, k // 2)
            chosen = cohort.threat == "malicious" and (
                t <= k // 2
                or n * Fraction(exact_ways(t - k // 2, k // 2 + 1, n, corrupt, k // 2), windows) > secrecy
            )
            if (
                connected
                and opens >= 1
                and not chosen
                and n * Fraction(exact_ways(opens, k + 1, n, corrupt, k), whole) <= secrecy
                and n * Fraction(exact_ways(0, t, n, survivors, k), whole) <= completion
            ):
                return k, t
    least, largest = complete_threshold(cohort)
    return (n - 1, least) if least <= largest else (0, 0)


@pytest.mark.parametrize("threat", ["semi-honest", "semi-malicious", "malicious"])
@pytest.mark.parametrize("clients", [3, 4, 24, 33, 61, 110])
@pytest.mark.parametrize("dropout, collusion", [(0.0, 0.0), (0.1, 0.0), (0.05, 0.1), (0.25, 0.2), (0.6, 0.3)])
def test_search_equals_trying_everything(clients: int, dropout: float, collusion: float, threat: str) -> None:
    cohort = Cohort(clients, dropout, collusion, threat, security=10, correctness=6)
    try:
        found = plan(clients, dropout, collusion, threat, security=10, correctness=6)
        answer = (found.degree, found.threshold)
    except Infeasible:
        answer = (0, 0)
    assert answer == brute_force(cohort)


@pytest.mark.parametrize(
    ("clients", "dropout", "collusion", "threat", "degree", "threshold"),
    [
        (34, 0.3, 0.3, "semi-malicious", 32, 22),
        (40, 0.3, 0.3, "semi-malicious", 38, 26),
        (40, 0.4, 0.05, "malicious", 38, 22),
    ],
)
def test_the_last_sparse_degree_is_tried_before_the_complete_graph(
    clients: int, dropout: float, collusion: float, threat: str, degree: int, threshold: int
) -> None:
    found = plan(clients, dropout, collusion, threat)
    assert (found.degree, found.threshold) == (degree, threshold) == brute_force(found.cohort)


@pytest.mark.parametrize(("collusion", "share"), [(0.95, "0.01"), (0.97, "0")])
def test_the_remedy_may_be_that_hardly_anybody_leaves(collusion: float, share: str) -> None:
    with pytest.raises(Infeasible) as refusal:
        plan(100, 0.5, collusion, "malicious")
    assert refusal.value.relax[0] == f"lower dropout to {share}"
    assert plan(100, float(share), collusion, "malicious")


@given(
    clients=st.integers(3, 10**8),
    dropout=st.integers(0, 40),
    collusion=st.integers(0, 40),
    threat=st.sampled_from(["semi-honest", "semi-malicious", "malicious"]),
)
@settings(max_examples=40, deadline=None)
def test_plan_meets_its_rules_and_its_neighbours_do_not(
    clients: int, dropout: int, collusion: int, threat: str
) -> None:
    cohort = Cohort(clients, dropout / 100, collusion / 100, threat)
    try:
        found = plan(clients, dropout / 100, collusion / 100, threat)
    except Infeasible:
        return
    k, t = found.degree, found.threshold
    if found.complete:
        assert complete_threshold(cohort)[0] == t <= complete_threshold(cohort)[1]
        return
    assert k >= least_connected_degree(cohort)
    assert least_threshold(cohort, k) == t <= largest_threshold(cohort, k)
    if k - 2 >= least_connected_degree(cohort):
        assert least_threshold(cohort, k - 2) > largest_threshold(cohort, k - 2)


def test_stricter_threats_ask_for_more() -> None:
    plans = [plan(5_000, 0.2, 0.1, threat) for threat in ("semi-honest", "semi-malicious", "malicious")]
    assert [p.degree for p in plans] == sorted(p.degree for p in plans)
    assert all(2 * p.threshold > p.degree + p.corrupt_neighbours for p in plans[1:])


def test_shares_are_read_as_written_in_decimal() -> None:
    assert Cohort(100, 0.29, 0.57).dropped == 29
    assert Cohort(100, 0.29, 0.57).corrupt == 57


def test_default_threat_is_semi_malicious_where_feasible() -> None:
    assert plan(100, 0.2, 0.1).cohort.threat == "semi-malicious"
    assert plan(10**8, 0.33, 0.33).cohort.threat == "semi-honest"


@pytest.mark.parametrize("clients, share", [(5, 0.3), (10, 0.2), (32, 0.1), (50, 0.33)])
def test_small_cohorts_get_the_complete_graph(clients: int, share: float) -> None:
    found = plan(clients, share, share)
    assert found.complete
    assert 2 * found.threshold > clients - 1 + found.cohort.corrupt
    assert plan_complete(clients, share, share).threshold == found.threshold


def test_complete_graph_thresholds_open_nothing_to_the_corrupt_and_survive_the_dropped() -> None:
    found = plan_complete(100, 0.3, 0.3, "semi-honest")
    assert (found.degree, found.threshold) == (99, 31)
    assert plan_complete(100, 0.3, 0.3).threshold == 65  # 2 t > 99 + 30


# -- the extra rule against chosen drop-outs --


def honest_survivors_connected(ring: list[str], alive: set[int], k: int) -> bool:
    n = len(ring)
    honest = [i for i in range(n) if ring[i] == "honest" and i in alive]
    seen, queue = {honest[0]}, [honest[0]]
    while queue:
        i = queue.pop()
        near = {(i + step) % n for step in range(-(k // 2), k // 2 + 1)}
        fresh = [j for j in honest if j in near and j not in seen]
        seen.update(fresh)
        queue += fresh
    return len(seen) == len(honest)


def test_no_choice_of_drop_outs_cuts_the_graph() -> None:
    """Rule (d): whoever is dropped, honest survivors who each insist on t surviving neighbours stay connected."""
    draw, n, k, t, checked = random.Random(7), 24, 8, 6, 0
    while checked < 300:
        ring = draw.choices(["honest", "corrupt"], [5, 1], k=n)
        if any(
            sum(ring[(i + s) % n] == "corrupt" for s in range(1, k // 2 + 1)) >= t - k // 2 for i in range(n)
        ):
            continue
        alive = {i for i in range(n) if draw.random() < 0.8}
        while weak := [i for i in alive if ring[i] == "honest" and _alive_around(i, alive, n, k) < t]:
            alive.discard(weak[0])  # it refuses, so it is no survivor
        if any(ring[i] == "honest" for i in alive):
            checked += 1
            assert honest_survivors_connected(ring, alive, k)


def _alive_around(i: int, alive: set[int], n: int, k: int) -> int:
    return sum((i + s) % n in alive for s in range(-(k // 2), k // 2 + 1) if s)


# -- refusals --


def test_infeasible_says_what_to_relax_and_the_advice_works() -> None:
    with pytest.raises(Infeasible, match="lower dropout to") as refusal:
        plan(100, 0.5, 0.3, "semi-malicious")
    advice = {line.rsplit(" ", 1)[0]: line.rsplit(" ", 1)[1] for line in refusal.value.relax}
    assert plan(100, float(advice["lower dropout to"]), 0.3, "semi-malicious")
    assert plan(100, 0.5, 0.3, advice["choose threat"])
    with pytest.raises(Infeasible):
        plan(100, float(advice["lower dropout to"]) + 0.01, 0.3, "semi-malicious")


@pytest.mark.parametrize(
    ("demand", "said"),
    [
        (
            (100, 0.5, 0.3, "semi-malicious"),
            "infeasible (100 clients, drop-out 0.5, collusion 0.3, semi-malicious): secrecy needs a threshold of 65 "
            "even if all 99 others hold shares, and 49 are left to answer: lower dropout to 0.34; or choose threat "
            "semi-honest.",
        ),
        (
            (5, 0.9, 0.0, "semi-honest"),
            "infeasible (5 clients, drop-out 0.9, collusion 0, semi-honest): secrecy needs a threshold of 2 even if "
            "all 4 others hold shares, and 0 are left to answer: lower dropout to 0.59; or have 21 clients.",
        ),
        (
            (10, 0.9, 0.9, "malicious"),
            "infeasible (10 clients, drop-out 0.9, collusion 0.9, malicious): secrecy needs a threshold of 10 even if "
            "all 9 others hold shares, and 0 are left to answer: relax several of its numbers.",
        ),
        (
            (10**8, 0.33, 0.33, "semi-malicious"),
            "infeasible (100000000 clients, drop-out 0.33, collusion 0.33, semi-malicious): every client would need "
            "more than 65535 neighbours: lower dropout to 0.31; or lower collusion to 0.29; or choose threat "
            "semi-honest.",
        ),
    ],
)
def test_the_refusal_in_words(demand: tuple[int, float, float, str], said: str) -> None:
    for planned in (plan, plan_complete):
        with pytest.raises(Infeasible) as refusal:
            planned(*demand)
        assert str(refusal.value) == said


def test_too_many_neighbours_is_infeasible() -> None:
    with pytest.raises(Infeasible, match="more than 65535 neighbours"):
        plan(10**8, 0.33, 0.33, "semi-malicious")


@pytest.mark.parametrize("clients", [1, 2])
def test_too_few_clients_for_any_threshold(clients: int) -> None:
    with pytest.raises(Infeasible, match="have 3 clients"):
        plan(clients, 0.0, 0.0)


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
        plan(*arguments)


@pytest.mark.parametrize("security, correctness", [(0, 20), (40, 0), (math.inf, 20)])
def test_failure_bounds_out_of_range_are_refused(security: float, correctness: float) -> None:
    with pytest.raises(Misuse, match="bits"):
        plan(10, 0.1, 0.1, security=security, correctness=correctness)


def test_connectivity_counts_every_pair_of_places() -> None:
    cohort = Cohort(1_000, 0.33, 0.05, "semi-honest")
    k = least_connected_degree(cohort)
    bound = [math.log(1_000 * (999 - j) / 2) + log_all_marked(1_000, 380, j) for j in (k - 2, k)]
    assert bound[1] <= -41 * math.log(2) < bound[0]


def test_plan_is_plain_data() -> None:
    found = plan(50, 0.1, 0.1)
    assert found == Plan(found.cohort, found.degree, found.threshold)
    assert isinstance(found.degree, int)
    assert not isinstance(found.degree, np.integer)
