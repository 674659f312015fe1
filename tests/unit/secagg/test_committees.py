"""Committees and beacons: never two certificates, and a graph that is good for every round that may be chosen."""

from __future__ import annotations

from fractions import Fraction

import pytest

from secagg.parameters import Cohort, plan
from secagg.parameters.committee import largest_quorum, least_quorum
from tests.unit.secagg.urns import exact_committee_failures, share


@pytest.mark.parametrize(
    ("clients", "threat", "committee"),
    [
        (100, "semi-malicious", (49, 30)),
        (1_000, "semi-malicious", (149, 96)),
        (1_000, "malicious", (331, 235)),
    ],
)
def test_committees_of_the_design(clients: int, threat: str, committee: tuple[int, int]) -> None:
    """The same for committees: without a beacon, groups with different graphs must not each certify; of the 64 graphs
    that plans count, for one.
    """
    size, q = committee
    events = Cohort(clients, 0.2, 0.1, threat, 31.0 if threat == "malicious" else 39.0, 19.0)
    assert least_quorum(events, size) <= q
    assert q <= largest_quorum(events, size)


@pytest.mark.parametrize("threat", ["semi-malicious", "malicious"])
@pytest.mark.parametrize(
    ("clients", "dropout", "collusion"), [(501, 0.1, 0.1), (700, 0.3, 0.05), (2000, 0.2, 0.2)]
)
def test_committees_do_not_certify_twice_and_finish(
    clients: int, dropout: float, collusion: float, threat: str
) -> None:
    found = plan(Cohort(clients, dropout, collusion, threat))
    size, q, cohort = found.committee, found.quorum, found.cohort
    assert 0 < q < size < clients
    graphs = 64 if threat == "malicious" else 1
    assert exact_committee_failures(cohort, size, q) * graphs <= Fraction(1, 2**42)
    assert share(0, q, clients, cohort.survivors, size) <= Fraction(1, 2**22)
    # no vote more than it takes
    assert exact_committee_failures(cohort, size, q - 1) * graphs > Fraction(1, 2**45)


def test_a_beacon_has_one_graph_more_likely_to_be_good_for_every_round_that_may_be_chosen() -> None:
    """The server knows 2^16 rounds' graphs in advance: each fails with 2^-56 at most, all of them with 2^-40."""
    for clients in (300, 1000):
        found = plan(Cohort(clients, 0.2, 0.1, "malicious", beacon=True))
        half = found.degree // 2
        lost = clients * share(found.window, half + 1, clients, found.cohort.corrupt, half)
        lost += clients * share(
            found.threshold, found.degree + 1, clients - 1, found.cohort.corrupt, found.degree
        )
        if found.committee:
            size, q = found.committee, found.quorum
            lost += share(2 * q - size, size + 1, clients, found.cohort.corrupt, size)
        assert lost * 2**16 <= Fraction(1, 2**40)
        known = plan(Cohort(clients, 0.2, 0.1, "semi-malicious", beacon=True))
        assert (known.degree, known.window) == (
            plan(Cohort(clients, 0.2, 0.1)).degree,
            plan(Cohort(clients, 0.2, 0.1)).window,
        )


def test_reused_keys_on_sparse_graphs_share_with_the_committee() -> None:
    found = plan(Cohort(300, 0.2, 0.1, reuse=True))
    corrupt = 2 * found.quorum - found.committee - 1
    assert 0 < found.committee < 300
    assert corrupt < found.threshold == found.quorum - 1
    assert plan(Cohort(300, 0.2, 0.1)).committee == 0
