"""From wishes to parameters: what is given is kept or refused, what is not is planned, at every limit."""

import contextlib
from dataclasses import replace
from typing import Any

import pytest

from protocols.errors import Misuse
from protocols.randomness import SystemRandom
from secagg import SecAgg, SecAggPlus
from secagg.parameter_choice import Wishes, choose
from secagg.parameters import Cohort, plan
from secagg.parameters.conditions import complete_threshold, largest_threshold, least_threshold, least_window
from secagg.session_rules import rules_of


def wishes(**changes: Any) -> Wishes:
    known: dict[str, Any] = {
        "clients": 3,
        "dropout": 0.0,
        "collusion": 0.1,
        "threat": "semi-honest",
    } | changes
    own = {name: known.pop(name, None) for name in ("neighbours", "threshold")}
    beacon = known.pop("beacon", b"")
    demand = Cohort(**known | {"threat": known["threat"] or "semi-malicious"})
    return Wishes(demand, **own, beacon=beacon)


class TestGiven:
    @pytest.mark.parametrize("clients", [10, 11, 40])
    def test_neighbours_are_as_many_as_were_asked_for_and_there_are(self, clients: int) -> None:
        made = choose(wishes(neighbours=10, collusion=0.0), clients)
        assert made.degree == min(10, clients - 1)
        assert made.survivors == made.threshold + 1

    @pytest.mark.parametrize(
        ("clients", "shares", "why"),
        [
            (30, (0.45, 0.2), "needs 19 votes, and 17 are left to vote"),
            (70_000, (0.3, 0.4), "70000 clients are too many to vote on who survived"),
        ],
    )
    def test_neighbours_of_ones_own_bring_no_votes(
        self, clients: int, shares: tuple[float, float], why: str
    ) -> None:
        given = SecAggPlus(neighbours=20, dropout=shares[0], collusion=shares[1])
        with pytest.raises(Misuse, match=why):
            choose(given.wishes, clients)

    def test_the_complete_graph_takes_no_neighbours(self) -> None:
        with pytest.raises(Misuse, match="use SecAggPlus to set neighbours"):
            wishes(complete=True, neighbours=4)

    def test_on_the_complete_graph_everybody_is_a_neighbour(self) -> None:
        made = choose(wishes(complete=True, threshold=6), 12)
        assert (made.degree, made.threshold) == (11, 6)

    def test_a_threshold_alone_keeps_the_planned_degree_of_the_same_threat(self) -> None:
        planned = plan(Cohort(1000, 0.0, 0.1, "semi-honest", security=40.0, correctness=20.0))
        made = choose(wishes(threshold=planned.threshold + 1), 1000)
        assert (made.degree, made.threshold) == (planned.degree, planned.threshold + 1)
        stricter = plan(Cohort(200, 0.1, 0.1, "semi-malicious", security=40.0, correctness=20.0))
        for threat in ("semi-honest", "semi-malicious"):
            planned = plan(Cohort(200, 0.1, 0.1, threat, security=40.0, correctness=20.0))
            made = choose(wishes(threat=threat, dropout=0.1, threshold=planned.threshold), 200)
            assert (made.degree, made.degree == stricter.degree) == (planned.degree, threat != "semi-honest")

    @pytest.mark.parametrize("threat", ["semi-honest", "semi-malicious", "malicious"])
    def test_neighbours_alone_get_what_is_planned_for_so_many(self, threat: str) -> None:
        asked = wishes(neighbours=60, dropout=0.1, collusion=0.05, threat=threat)
        cohort = asked.cohort(200)
        least, most = least_threshold(cohort, 60), largest_threshold(cohort, 60)
        made = choose(asked, 200)
        assert (made.degree, made.threshold) == (60, least if threat == "semi-honest" else most)
        assert made.window == (0 if threat == "semi-honest" else least_window(cohort, 60))

    def test_neighbours_too_few_for_their_windows_are_refused(self) -> None:
        asked = wishes(neighbours=30, dropout=0.1, threat="semi-malicious")
        assert least_window(asked.cohort(200), 30) > 11
        with pytest.raises(Misuse, match="successive clients, got at most"):
            choose(asked, 200)

    @pytest.mark.parametrize("clients", [40, 101])
    def test_only_the_complete_graph_leaves_nothing_to_chance(self, clients: int) -> None:
        asked = wishes(
            dropout=0.2, collusion=0.2, security=60.0, correctness=5.0, threat="malicious", complete=True
        )
        made = choose(asked, clients)
        cohort = Cohort(clients, 0.2, 0.2, "malicious", 60.0, 5.0)
        least, most = complete_threshold(cohort)
        assert least == cohort.corrupt + 1 <= made.threshold <= most
        assert 2 * made.threshold > clients - 1 + cohort.corrupt
        assert made.quorum == (clients + cohort.corrupt) // 2 + 1

    def test_the_bounds_of_a_cohort_are_those_that_were_asked_for(self) -> None:
        asked = wishes(dropout=0.1, security=55.0, correctness=33.0, threat="malicious")
        assert asked.cohort(9) == Cohort(9, 0.1, 0.1, "malicious", 55.0, 33.0)

    def test_a_threshold_from_the_least_to_the_degree(self) -> None:
        least = choose(wishes(neighbours=30), 200).threshold
        for threshold in (least, 30):
            assert choose(wishes(neighbours=30, threshold=threshold), 200).threshold == threshold
        for threshold in (least - 1, 31):
            with pytest.raises(Misuse, match=f"threshold from {least} .* to 30"):
                choose(wishes(neighbours=30, threshold=threshold), 200)

    @pytest.mark.parametrize("name", ["neighbours", "threshold"])
    def test_two_is_the_least_of_either(self, name: str) -> None:
        assert getattr(wishes(**{name: 2}), name) == 2
        with pytest.raises(Misuse, match=f"{name} >= 2"):
            wishes(**{name: 1})


class TestPlanned:
    def test_security_and_correctness_reach_the_plan(self) -> None:
        for bits in ({"security": 40.0}, {"security": 60.0}, {"correctness": 30.0}):
            asked = wishes(dropout=0.2, **bits)
            found = plan(
                Cohort(
                    500,
                    0.2,
                    0.1,
                    "semi-honest",
                    security=asked.demand.security,
                    correctness=asked.demand.correctness,
                )
            )
            assert (choose(asked, 500).degree, choose(asked, 500).threshold) == (
                found.degree,
                found.threshold,
            )
        assert choose(wishes(dropout=0.2, security=60.0), 500) != choose(wishes(dropout=0.2), 500)
        assert choose(wishes(dropout=0.2, correctness=40.0), 500) != choose(wishes(dropout=0.2), 500)
        complete = wishes(dropout=0.2, complete=True, security=60.0)
        assert (
            choose(complete, 50).threshold
            == plan(Cohort(50, 0.2, 0.1, "semi-honest", security=60.0, complete=True)).threshold
        )

    @pytest.mark.parametrize("dropout", [0.2, 0.4, 0.45, 0.5])
    @pytest.mark.parametrize("more", [{}, {"setup": "reuse"}, {"neighbours": 10, "threshold": 6}])
    @pytest.mark.parametrize("kind", [SecAgg, SecAggPlus])
    def test_the_server_picks_no_threat_model_with_the_size_of_the_cohort(
        self, kind: type[SecAgg], dropout: float, more: dict[str, Any]
    ) -> None:
        """At drop-out .4 with reused keys 11 clients were semi-malicious and 10 semi-honest with a threshold of 2: a
        server that lied opened one client's exact vector.
        """
        if kind is SecAgg and "neighbours" in more:
            return
        for clients in range(3, 70):
            with contextlib.suppress(Misuse):
                made = choose(kind(dropout=dropout, **more).wishes, clients)
                assert made.threat == "semi-malicious"

    def test_at_least_three_clients(self) -> None:
        assert choose(wishes(collusion=0.0), 3).degree == 2
        with pytest.raises(Misuse, match="at least 3 clients, got 2"):
            choose(wishes(collusion=0.0), 2)


class TestCountedOn:
    """A layer (noise shared by the clients, say) counts on so many clients in every total."""

    def test_neighbours_by_hand_that_may_fall_apart_are_refused_with_a_reason(self) -> None:
        few = SecAggPlus(0.3, 0.1, "semi-honest", neighbours=12, threshold=11)
        names = [str(i) for i in range(100)]
        assert few.session(names, 1, 1, random=SystemRandom())
        with pytest.raises(Misuse, match="may fall apart into smaller sums; give at least 30 neighbours"):
            few.session(names, 1, 1, random=SystemRandom(), min_survivors=50)

    @pytest.mark.parametrize("threat", ["semi-honest", "semi-malicious"])
    def test_plans_and_complete_graphs_carry_it(self, threat: str) -> None:
        names = [str(i) for i in range(100)]
        for protocol in (SecAggPlus(threat=threat), SecAgg(threat=threat)):
            session = protocol.session(names, 1, 1, random=SystemRandom(), min_survivors=70)
            assert rules_of(session).survivors == 70


class TestMalicious:
    def test_sparse_graphs_are_drawn_together_or_from_a_beacon(self) -> None:
        sparse = wishes(threat="malicious", neighbours=10, collusion=0.0)
        drawn, lit = choose(sparse, 14), choose(replace(sparse, beacon=b"light"), 14)
        assert (drawn.committed, drawn.beacon) == (True, b"")
        assert (lit.committed, lit.beacon) == (False, b"light")
        for clients, threat in ((11, "malicious"), (14, "semi-malicious")):
            made = choose(wishes(threat=threat, neighbours=10, collusion=0.0, beacon=b"light"), clients)
            assert (made.committed, made.beacon) == (False, b"")

    @pytest.mark.parametrize("threat", ["semi-honest", "semi-malicious"])
    def test_corrupt_is_of_the_whole_cohort_and_the_quorum_follows(self, threat: str) -> None:
        for clients, collusion in ((14, 0.0), (40, 0.1), (41, 0.2)):
            made = choose(wishes(threat=threat, collusion=collusion), clients)
            assert made.corrupt == int(collusion * clients)
            assert made.quorum == ((clients + made.corrupt) // 2 + 1 if threat == "semi-malicious" else 0)


def test_reused_keys_without_a_vote_carry_no_layer_that_counts_on_all_who_stay() -> None:
    given = SecAgg(setup="reuse", dropout=0.2, collusion=0.1)
    names = [str(i) for i in range(20)]
    with pytest.raises(Misuse, match="every holder must be shown"):
        given.session(names, 1, 1, random=SystemRandom(), min_survivors=16)
    assert given.session(names, 1, 1, random=SystemRandom(), min_survivors=10).min_survivors == 10
