"""A client holds a session to its own configuration: no number that protects it is the server's choice."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from protocols.errors import Misuse, PolicyRefusal
from protocols.policy import Policy
from protocols.randomness import SystemRandom
from secagg import Credentials, SecAgg, SecAggPlus
from secagg.client.joining import Joining
from secagg.mask_parameters import MaskParameters
from secagg.parameter_choice import choose, insist
from secagg.session_rules import rules_of

NAMES = [f"c{i}" for i in range(40)]


class TestDemands:
    """A client refuses less than its own wishes, and takes exactly them."""

    def enter(self, offered: SecAgg | SecAggPlus, own: SecAgg | SecAggPlus, clients: int = 10) -> bool:
        random = SystemRandom()
        session = offered.session([f"c{i}" for i in range(clients)], 1, 1, random=random)
        step = own.client(
            session, 0, np.zeros(1, np.int64), random=random, policy=Policy(min_threshold_share=0.0)
        )
        return isinstance(step.state, Joining)  # it takes part and waits for the others

    def test_more_than_demanded_is_taken(self) -> None:
        assert self.enter(SecAgg(threat="semi-malicious"), SecAgg(threat="semi-honest"))
        assert self.enter(
            SecAgg(threshold=8, threat="semi-malicious"), SecAgg(threshold=7, threat="semi-malicious")
        )
        assert self.enter(
            SecAggPlus(neighbours=6, threshold=5, threat="semi-honest"),
            SecAggPlus(neighbours=4, threshold=3, threat="semi-honest"),
        )

    def test_a_threshold_below_ones_own_is_refused(self) -> None:
        """Nine set here, six offered: three corrupt clients would open more than this client stands."""
        own = SecAgg(threat="semi-malicious", threshold=9, dropout=0.0)
        for threshold in (6, 8):
            with pytest.raises(PolicyRefusal, match="threshold: this client demands at least 9"):
                self.enter(SecAgg(threat="semi-malicious", threshold=threshold, dropout=0.0), own)
        assert self.enter(own, own)

    @pytest.mark.parametrize(
        ("name", "less"),
        [
            ("threat", "semi-honest"),
            ("degree", 28),
            ("threshold", 17),
            ("corrupt", 4),
            ("window", 5),
            ("quorum", 22),
            ("survivors", 22),
            ("committee", 30),
            ("reuse", True),
        ],
    )
    def test_no_number_that_protects_a_client_is_the_servers_choice(self, name: str, less: Any) -> None:
        own = SecAggPlus(0.1, 0.125, "semi-malicious", neighbours=30, threshold=20)
        planned = MaskParameters.decode(own.session(NAMES, 1, 1, random=SystemRandom()).parameters)
        assert (planned.corrupt, planned.window, planned.quorum) == (5, 6, 23)
        insist(own.wishes, 40, planned)
        with pytest.raises(PolicyRefusal, match="setup" if name == "reuse" else name):
            insist(own.wishes, 40, replace(planned, **{name: less}))

    @pytest.mark.parametrize("degree", [8, 14, 20])
    def test_more_neighbours_never_stand_fewer_corrupt_clients(self, degree: int) -> None:
        """Four of 6 stand one corrupt client, four of 8 none: a server that offers 8 would halve that client's plan."""
        own, more = (SecAggPlus(neighbours=k, threshold=4) for k in (6, degree))
        session = more.session(NAMES[:21], 1, 1, random=SystemRandom())
        planned, offered = own.parameters(21, 1, 1, 0), MaskParameters.decode(session.parameters)
        assert (planned.corrupt, planned.quorum) == (1, 12)
        assert (offered.corrupt, offered.quorum) == (0, 11)
        with pytest.raises(PolicyRefusal, match="corrupt: this client demands at least 1"):
            insist(own.wishes, 21, offered)

    def test_more_neighbours_never_mean_fewer_survivors(self) -> None:
        """A sparse plan opens with as many shares as answer, the complete graph with as many as two views cannot both
        gather: a server that offers the latter would let fewer clients into a total.
        """
        own, complete = (
            SecAggPlus(0.1, 0.1, "semi-malicious", neighbours=22),
            SecAgg(0.1, 0.1, "semi-malicious"),
        )
        planned, offered = (p.parameters(24, 1, 1, 0) for p in (own, complete))
        assert (planned.survivors, offered.survivors) == (21, 14)
        with pytest.raises(PolicyRefusal, match="survivors: this client demands at least 21"):
            insist(own.wishes, 24, offered)
        insist(own.wishes, 24, replace(offered, survivors=21))

    def test_a_plan_with_a_vote_is_not_traded_for_the_complete_graph_without_one(self) -> None:
        """Reused keys, 100 clients: 56 are sure to be in every total of the sparse plan, 13 on the complete graph."""
        own, names = SecAggPlus(setup="reuse"), [f"c{i}" for i in range(100)]
        sparse, complete = (
            p.session(names, 1, 1, random=SystemRandom()) for p in (own, SecAgg(setup="reuse"))
        )
        assert (rules_of(sparse).survivors, rules_of(complete).survivors) == (56, 13)
        insist(own.wishes, 100, rules_of(sparse).parameters)
        with pytest.raises(PolicyRefusal, match="degree: this client's holders vote in every round"):
            insist(own.wishes, 100, rules_of(complete).parameters)

    def test_a_quorum_counts_for_a_policy_only_where_somebody_votes(self) -> None:
        """Reused keys on the complete graph have no vote: no quorum, however large, stands for shares that open."""
        own, random = SecAgg(setup="reuse"), SystemRandom()
        session = own.session(NAMES[:20], 1, 1, random=random)
        offered = replace(MaskParameters.decode(session.parameters), quorum=20)
        session = replace(session, parameters=offered.encode())
        with pytest.raises(PolicyRefusal, match=r"more than 0\.8 of 19 share holders, the session offers 11"):
            own.client(
                session, 0, np.zeros(1, np.int64), random=random, policy=Policy(min_threshold_share=0.8)
            )

    def test_the_statement_counts_the_committee_as_holders_of_reused_keys(self) -> None:
        own = SecAggPlus(setup="reuse")
        session = own.session([f"c{i}" for i in range(100)], 1, 1, random=SystemRandom())
        p = MaskParameters.decode(session.parameters)
        assert p.committee != p.degree
        assert own.protection(session).mechanism.endswith(f"shared {p.threshold} of {p.committee}")

    def test_more_neighbours_bring_their_own_numbers(self) -> None:
        """What was planned for few neighbours is too little for many: a client works it out anew."""
        own = SecAggPlus(0.1, 0.125, "semi-malicious", neighbours=30)
        more = SecAggPlus(0.1, 0.125, "semi-malicious", neighbours=36)
        few, many = (
            MaskParameters.decode(s.session(NAMES, 1, 1, random=SystemRandom()).parameters)
            for s in (own, more)
        )
        assert many.threshold > few.threshold
        insist(own.wishes, 40, many)
        with pytest.raises(PolicyRefusal, match="threshold"):
            insist(own.wishes, 40, replace(many, threshold=few.threshold))

    def test_a_beacon_matters_on_sparse_malicious_graphs_only(self) -> None:
        names = [f"c{i}" for i in range(10)]
        known = Credentials.simulated(names)
        complete = [SecAgg(threat="malicious", credentials=known, beacon=b) for b in (b"", b"x")]
        assert self.enter(*complete)
        assert self.enter(
            SecAggPlus(neighbours=4, threshold=3, threat="semi-malicious", beacon=b"x"),
            SecAggPlus(neighbours=4, threshold=3, threat="semi-malicious"),
        )

    @pytest.mark.parametrize("bad", [{"setup": "old"}, {"renew": 0}, {"threat": "malicious"}])
    def test_bad_options_are_misuse(self, bad: dict[str, Any]) -> None:
        with pytest.raises(Misuse):
            SecAgg(**bad)
        assert SecAgg(setup="reuse", renew=1).reuse

    def test_a_threshold_of_ones_own_allows_for_no_collusion_unless_it_is_said(self) -> None:
        assert SecAgg().wishes.demand.collusion == 0.1
        assert SecAgg(threshold=5).wishes.demand.collusion == 0.0
        assert SecAgg(threshold=5, collusion=0.2).wishes.demand.collusion == 0.2


@pytest.mark.parametrize("setup", ["fresh", "reuse"])
def test_behind_a_beacon_other_neighbours_than_ones_own_are_refused(setup: str) -> None:
    """The seed is known before the session: each degree is one more graph to pick from, and no plan counts them."""
    lit = SecAggPlus(
        dropout=0.2,
        collusion=0.1,
        threat="malicious",
        setup=setup,
        beacon=b"light",
        credentials=Credentials.simulated(range(100)),
    )
    planned = choose(lit.wishes, 100)
    insist(lit.wishes, 100, planned)
    for degree in (planned.degree + 2, 98):
        more = choose(replace(lit.wishes, neighbours=degree), 100)
        assert more.degree == degree
        with pytest.raises(PolicyRefusal, match=r"degree: this client demands .* behind a beacon"):
            insist(lit.wishes, 100, more)
