"""Degree and threshold: published instances to the digit, exact tails, brute-force search."""

from __future__ import annotations

import math
import random
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.errors import Misuse
from secagg.parameter_choice import Wishes, choose
from secagg.parameters import Cohort, Infeasible, Plan, plan
from secagg.parameters.committee import largest_quorum, least_quorum
from secagg.parameters.conditions import (
    complete_threshold,
    largest_threshold,
    largest_window,
    least_connected_degree,
    least_threshold,
    least_window,
    votes_needed,
)
from secagg.parameters.plan import SMALL
from secagg.parameters.tails import (
    log_mass,
    log_tail_at_least,
    log_tail_below,
)
from tests.unit.secagg.urns import exact_committee_failures, exact_log, exact_ways, share

# -- the published instances (Bell et al. 2020, sigma = 40, eta = 20) --


@pytest.mark.parametrize(
    "clients, dropout, collusion, threat, degree, threshold",
    [
        (1_000, 0.33, 0.05, "semi-honest", 72, 24),
        (10_000, 0.33, 0.33, "semi-honest", 422, 221),
    ],
)
def test_published_instances(
    clients: int, dropout: float, collusion: float, threat: str, degree: int, threshold: int
) -> None:
    found = plan(Cohort(clients, dropout, collusion, threat))
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


@pytest.mark.parametrize("marked, drawn", [(-1, 0), (11, 0), (0, 11), (0, -1)])
def test_impossible_urns_are_refused(marked: int, drawn: int) -> None:
    with pytest.raises(Misuse, match="at most 10"):
        log_tail_at_least(0, 10, marked, drawn)


# -- the search --


def brute_force(cohort: Cohort) -> tuple[int, int, int]:
    """Degree, threshold and window by the rules of `secagg.parameters.conditions`, by exact fractions and trying
    everything: neighbours are drawn from the n - 1 others, windows from all.
    """
    n, corrupt, survivors, liar = cohort.clients, cohort.corrupt, cohort.survivors, cohort.two_faced
    secrecy, completion = (Fraction(1, 2 ** int(bits)) for bits in (cohort.security, cohort.correctness))
    secrecy /= 64 if cohort.threat == "malicious" else 1  # as many graphs as the server may have drawn
    bad = min(n, corrupt + cohort.dropped)
    least, largest = complete_threshold(cohort)
    for k in range(2, n - 1, 2) if n > SMALL and least <= largest else ():
        connected = Fraction(n * (n - k - 1) * math.comb(bad, k), 2 * math.comb(n, k)) <= secrecy / 2
        fits = [
            t
            for t in range(2, k + 1)
            if n * share(t, k + 1, n - 1, corrupt, k) <= secrecy / (4 if liar else 2)
            and n * share(0, t, n - 1, survivors - 1, k) <= completion / (2 if liar else 1)
        ]
        if not liar and fits and connected:
            return k, fits[0], 0
        for w in range(1, k // 2 + 1) if liar and fits else ():
            if n * share(w, k // 2 + 1, n, corrupt, k // 2) <= secrecy / 2:
                if n * share(0, w, n, survivors, k // 2) > completion / 4:
                    break
                return k, fits[-1], w
    if not liar or least > largest:
        return (n - 1, least, 0) if least <= largest else (0, 0, 0)
    return n - 1, next(t for t in range(least, largest + 1) if 2 * t > n - 1 + corrupt or t == largest), 0


@pytest.mark.parametrize("threat", ["semi-honest", "semi-malicious", "malicious"])
@pytest.mark.parametrize("clients", [3, 4, 24, 33, 61, 110])
@pytest.mark.parametrize("dropout, collusion", [(0.0, 0.0), (0.1, 0.0), (0.05, 0.1), (0.25, 0.2), (0.6, 0.3)])
def test_search_equals_trying_everything(clients: int, dropout: float, collusion: float, threat: str) -> None:
    cohort = Cohort(clients, dropout, collusion, threat, security=10, correctness=6)
    try:
        found = plan(Cohort(clients, dropout, collusion, threat, security=10, correctness=6))
        answer = (found.degree, found.threshold, found.window)
    except Infeasible:
        answer = (0, 0, 0)
    assert answer == brute_force(cohort)


@pytest.mark.parametrize(
    ("clients", "dropout", "collusion", "degree", "threshold", "window"),
    [(46, 0.4, 0.1, 44, 26, 5), (48, 0.4, 0.1, 46, 27, 5), (52, 0.4, 0.1, 50, 30, 6)],
)
def test_the_last_sparse_degree_is_tried_before_the_complete_graph(
    clients: int, dropout: float, collusion: float, degree: int, threshold: int, window: int
) -> None:
    found = plan(Cohort(clients, dropout, collusion, "malicious"))
    assert (found.degree, found.threshold, found.window) == brute_force(found.cohort)
    assert (found.degree, found.threshold, found.window) == (degree, threshold, window)


def exact_failures(found: Plan) -> tuple[Fraction, Fraction]:
    """Probabilities that a plan lets corrupt clients open something, and that too few answer, by exact fractions."""
    cohort, k, t, w = found.cohort, found.degree, found.threshold, found.window
    n, corrupt, survivors = cohort.clients, cohort.corrupt, cohort.survivors
    around = n * share(t, k + 1, n - 1, corrupt, k), n * share(0, t, n - 1, survivors - 1, k)
    size, q = found.committee or n, found.quorum
    certified = exact_committee_failures(cohort, size, q) if found.committee else Fraction(0)
    voting = share(0, q, n, survivors, size) if found.committee else Fraction(0)
    if not cohort.two_faced:
        apart = Fraction(n * max(0, n - k - 1), 2) * share(k, k + 1, n, min(n, corrupt + cohort.dropped), k)
        return around[0] + apart, around[1]
    windows = n * share(w, k // 2 + 1, n, corrupt, k // 2), n * share(0, w, n, survivors, k // 2)
    if cohort.reuse:  # the committee holds the shares: whoever may open something could certify twice as well
        return max(certified, share(t, size + 1, n, corrupt, size)) + windows[0], voting + windows[1]
    return around[0] + certified + windows[0], around[1] + voting + windows[1]


@pytest.mark.parametrize(
    "clients",
    [20, 33, 40, 50, 100, 200, 300, *(pytest.param(n, marks=pytest.mark.slow) for n in (700, 1000))],
)
@pytest.mark.parametrize(
    ("threat", "beacon", "reuse"),
    [
        ("semi-honest", False, False),
        ("semi-malicious", False, False),
        ("malicious", False, False),
        ("malicious", True, False),
        ("semi-honest", False, True),
        ("semi-malicious", False, True),
        ("malicious", True, True),
    ],
)
def test_failures_are_as_rare_as_promised(clients: int, threat: str, beacon: bool, reuse: bool) -> None:
    """A client's neighbours are drawn from the n - 1 others: at 100, .4 and .2 a draw from all n promised 2^-20 and
    kept 2^-19.6. Where nobody was planned to leave, a committee that held the shares of reused keys needed all its
    members, and all but one of them opened everything: 2^-10.7 at 100, 0 and .02.
    """
    graphs = {(False, "malicious"): 64, (True, "malicious"): 2**16}.get((beacon, threat), 1)
    for dropout, collusion in product((0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4), (0.0, 0.02, 0.1, 0.2, 0.3)):
        try:
            found = plan(Cohort(clients, dropout, collusion, threat, beacon=beacon, reuse=reuse))
        except Infeasible:
            continue
        choose(Wishes(found.cohort, None, None, b"x" * beacon), clients)
        if found.complete:
            least, largest = complete_threshold(found.cohort)
            assert found.cohort.corrupt < least <= found.threshold <= largest
            continue
        lost, short = exact_failures(found)
        assert lost * graphs <= Fraction(1, 2**40), found
        assert short <= Fraction(1, 2**20), found


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
        found = plan(Cohort(clients, dropout / 100, collusion / 100, threat))
    except Infeasible:
        return
    k, t, w = found.degree, found.threshold, found.window
    if found.complete:
        least, largest = complete_threshold(cohort)
        assert least <= t <= largest
        return

    def fits(degree: int) -> bool:
        if not cohort.two_faced and degree < least_connected_degree(cohort):
            return False
        narrow = cohort.two_faced and least_window(cohort, degree) > largest_window(cohort, degree)
        return not narrow and least_threshold(cohort, degree) <= largest_threshold(cohort, degree)

    assert fits(k)
    assert not fits(k - 2)
    if not cohort.two_faced:
        assert (t, w) == (least_threshold(cohort, k), 0)
        return
    assert (t, w) == (largest_threshold(cohort, k), least_window(cohort, k))
    size, q = found.committee or clients, found.quorum
    assert found.survivors > (clients + cohort.corrupt) // 2
    if found.committee:
        assert least_quorum(cohort, size) == q <= largest_quorum(cohort, size)
    else:
        assert q == (clients + cohort.corrupt) // 2 + 1 <= cohort.survivors


def test_one_plan_serves_both_models_but_for_a_malicious_servers_64_tries() -> None:
    for clients in (30, 100, 5_000):
        honest, lying = (
            plan(Cohort(clients, 0.2, 0.1, threat)) for threat in ("semi-honest", "semi-malicious")
        )
        malicious = plan(Cohort(clients, 0.2, 0.1, "malicious", security=34.0))
        assert (lying.degree, lying.threshold, lying.window) == (
            malicious.degree,
            malicious.threshold,
            malicious.window,
        )
        assert honest.degree <= lying.degree
        assert lying.quorum <= malicious.quorum
        assert plan(Cohort(clients, 0.2, 0.1, "malicious")).degree >= lying.degree


@pytest.mark.parametrize(
    ("clients", "degree", "thresholds", "window", "everyone"),
    [(100, 54, (11, 34), 11, 56), (1_000, 130, (44, 76), 31, 551), (10_000, 156, (54, 90), 37, 5_501)],
)
def test_the_figures_that_the_design_was_checked_with(
    clients: int, degree: int, thresholds: tuple[int, int], window: int, everyone: int
) -> None:
    """Drop-out .2, collusion .1, secrecy 2^-41 and completion 2^-21 for each event: as a reader of the code computed
    them. Plans take 2^-42 and 2^-22 where three events share a budget, and so a degree that is larger by 2.
    """
    events = Cohort(clients, 0.2, 0.1, security=40.0, correctness=19.0)
    assert (least_window(events, degree), largest_window(events, degree)) == (window, window)
    assert least_window(events, degree - 2) > largest_window(events, degree - 2)
    narrow = Cohort(clients, 0.2, 0.1, security=39.0, correctness=20.0)
    assert (least_threshold(narrow, degree), largest_threshold(narrow, degree)) == thresholds
    assert votes_needed(events) == everyone
    assert plan(Cohort(clients, 0.2, 0.1)).degree in (degree, degree + 2)


def test_shares_are_read_as_written_in_decimal() -> None:
    assert Cohort(100, 0.29, 0.57).dropped == 29
    assert Cohort(100, 0.29, 0.57).corrupt == 57


def test_default_threat_is_semi_malicious_and_nothing_less() -> None:
    assert plan(Cohort(100, 0.2, 0.1)).cohort.threat == "semi-malicious"
    with pytest.raises(Infeasible, match="or choose threat semi-honest"):
        plan(Cohort(10**8, 0.33, 0.335))


@pytest.mark.parametrize("clients, share", [(5, 0.3), (10, 0.2), (32, 0.1), (50, 0.33)])
def test_small_cohorts_get_the_complete_graph(clients: int, share: float) -> None:
    found = plan(Cohort(clients, share, share))
    assert found.complete
    assert 2 * found.threshold > clients - 1 + found.cohort.corrupt
    assert plan(Cohort(clients, share, share, complete=True)).threshold == found.threshold


def test_complete_graph_thresholds_open_nothing_to_the_corrupt_and_survive_the_dropped() -> None:
    found = plan(Cohort(100, 0.3, 0.3, "semi-honest", complete=True))
    assert (found.degree, found.threshold) == (99, 31)
    assert plan(Cohort(100, 0.3, 0.3, complete=True)).threshold == 65  # 2 t > 99 + 30


# -- windows against chosen drop-outs --


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
    """Rule (d): whoever is dropped, honest survivors who insist on w survivors in each window stay connected."""
    draw, n, k, w, checked = random.Random(7), 24, 8, 2, 0
    while checked < 300:
        ring = draw.choices(["honest", "corrupt"], [5, 1], k=n)
        if any(sum(ring[(i + s) % n] == "corrupt" for s in range(k // 2)) >= w for i in range(n)):
            continue
        alive = {i for i in range(n) if draw.random() < 0.7}
        if all(sum((i + s) % n in alive for s in range(k // 2)) >= w for i in range(n)):
            checked += 1
            assert honest_survivors_connected(ring, alive, k)


def test_connectivity_counts_every_pair_of_places() -> None:
    cohort = Cohort(1_000, 0.33, 0.05, "semi-honest")
    k = least_connected_degree(cohort)
    bound = [math.log(1_000 * (999 - j) / 2) + log_mass(j, 1_000, 380, j) for j in (k - 2, k)]
    assert bound[1] <= -41 * math.log(2) < bound[0]


def test_plan_is_plain_data() -> None:
    found = plan(Cohort(50, 0.1, 0.1))
    assert found == Plan(
        found.cohort, found.degree, found.threshold, found.window, found.committee, found.quorum
    )
    assert isinstance(found.degree, int)
    assert not isinstance(found.degree, np.integer)
