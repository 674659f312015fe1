"""What a masked sum's parameters may be, at each limit exactly, and what follows from them."""

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, milp

from protocols.agreement import quorum
from protocols.errors import Misuse
from protocols.randomness import SystemRandom
from secagg import SecAgg
from secagg.graph import harary, permutation
from secagg.mask_parameters import MaskParameters
from secagg.parameters import Cohort, plan
from secagg.parameters.conditions import BEACON_ROUNDS
from secagg.places import Places
from secagg.session_rules import Rules, rules_of

CONTEXT = bytes(32)
NAMES = [f"c{i}" for i in range(40)]


def parameters(
    threat: str, degree: int, threshold: int, corrupt: int = 0, survivors: int = 2, **more: Any
) -> MaskParameters:
    return MaskParameters(threat, degree, threshold, corrupt, survivors, **more)


def rules(made: MaskParameters, clients: int, survivors: int = 2) -> Rules:
    """The rules of such parameters, with the quorum and window that a two-faced server needs at least."""
    if made.threat != "semi-honest" and not made.quorum:
        made = replace(made, quorum=quorum(clients, made.corrupt), window=int(made.degree < clients - 1))
    return Rules(made, clients, survivors, 8, CONTEXT, 1)


@pytest.mark.parametrize(
    "good",
    [
        ("semi-honest", 2, 2, 0, 2),
        ("semi-honest", 65_535, 65_535, 0, 2),
        ("semi-honest", 9, 2, 9, 2),
        ("semi-malicious", 9, 5, 0, 2),
        ("semi-malicious", 8, 5, 1, 2),
        ("malicious", 9, 6, 2, 2),
    ],
)
def test_the_limits_themselves_are_allowed(good: tuple[str, int, int, int, int]) -> None:
    assert MaskParameters.decode(MaskParameters(*good).encode()) == MaskParameters(*good)


@pytest.mark.parametrize(
    "bad",
    [
        ("honest", 9, 5, 0, 2),
        ("semi-honest", 9, 1, 0, 2),
        ("semi-honest", 4, 5, 0, 2),
        ("semi-honest", 65_536, 5, 0, 2),
        ("semi-honest", 9, 5, -1, 2),
        ("semi-honest", 9, 5, 0, 1),
        ("malicious", 8, 5, 2, 2, -1),
        ("malicious", 8, 5, 2, 2, 9, -1),
        ("malicious", 8, 5, 2, 2, 9, 0, -1),
        ("malicious", 8, 5, 2, 2, 9, 0, 5),
    ],
)
def test_one_beyond_each_limit_is_refused(bad: tuple[Any, ...]) -> None:
    with pytest.raises(Misuse, match="expected"):
        MaskParameters(*bad)


class TestSessions:
    def test_three_clients_and_a_degree_below_their_number(self) -> None:
        assert rules(parameters("semi-honest", 2, 2), 3).complete
        assert not rules(parameters("semi-honest", 2, 2), 4).complete
        assert rules(parameters("semi-honest", 4, 3), 5).complete
        for degree, clients in ((2, 2), (4, 4), (5, 5)):
            with pytest.raises(Misuse, match="at least 3 clients"):
                rules(parameters("semi-honest", degree, 2), clients)

    def test_who_votes_and_who_is_certified(self) -> None:
        seen = {t: rules(parameters(t, 2, 2), 3) for t in ("semi-honest", "semi-malicious", "malicious")}
        assert [(r.voted, r.certified) for r in seen.values()] == [
            (False, False),
            (True, False),
            (True, True),
        ]
        assert [r.advertisement_bytes for r in seen.values()] == [64, 96, 128]

    @pytest.mark.parametrize(
        "more, why",
        [
            ({"quorum": 5}, "quorum from 6 to 9"),
            ({"quorum": 10}, "quorum from 6 to 9"),
            ({"quorum": 3, "committee": 6}, "quorum from 4 to 6"),
            ({"quorum": 7, "committee": 6}, "quorum from 4 to 6"),
            ({"quorum": 6, "committee": 10}, "to 10 voters, of 9"),
            ({"quorum": 6, "window": 0}, "needs a window"),
        ],
    )
    def test_two_views_cannot_both_have_a_quorum(self, more: dict[str, int], why: str) -> None:
        with pytest.raises(Misuse, match=why):
            rules(parameters("semi-malicious", 4, 3, 1, **{"window": 1} | more), 9)

    def test_where_nobody_votes_there_is_no_quorum(self) -> None:
        for more in ({"quorum": 5}, {"committee": 5}, {"window": 1}):
            with pytest.raises(Misuse, match="no quorum"):
                rules(parameters("semi-honest", 4, 3, **more), 9)

    def test_who_is_enough_on_the_ring(self) -> None:
        """Windows of two places: two in a row who are gone leave one with nobody, around the end of the ring too."""
        made = rules(parameters("semi-malicious", 4, 3, survivors=5, quorum=6, window=1), 10)
        ring = permutation(made.seed, 10).tolist()
        everybody = set(range(10))
        assert made.shortfall(everybody, made.seed) == ""
        assert made.shortfall(everybody - set(ring[::2]), made.seed) == ""
        assert "at least 5" in made.shortfall(everybody - {*ring[::2], ring[1]}, made.seed)
        for pair in ((0, 1), (4, 5), (9, 0)):
            assert "1 of any 2 clients in a row" in made.shortfall(
                everybody - {ring[p] for p in pair}, made.seed
            )

    def test_the_larger_of_both_least_numbers_of_survivors_counts(self) -> None:
        assert rules(parameters("semi-honest", 4, 3, survivors=4), 5, 2).survivors == 4
        assert rules(parameters("semi-honest", 4, 3, survivors=2), 5, 4).survivors == 4

    @pytest.mark.parametrize(
        "clients, more, why",
        [
            (9, {"identities": bytes(32 * 8)}, "9 identities"),
            (9, {"identities": bytes(32 * 9 + 1)}, "9 identities"),
            (9, {"threat": "semi-malicious", "committed": True}, "commit and reveal"),
            (7, {"committed": True}, "commit and reveal"),
            (9, {"committed": True, "reuse": True}, "need a beacon"),
            (9, {"beacon": b"x", "reuse": True, "epoch": bytes(31), "begun": 1}, "of a set-up"),
            (9, {"beacon": b"x", "reuse": True, "epoch": bytes(32)}, "of a set-up"),
            (9, {"beacon": b"x", "reuse": True, "begun": 1}, "of a set-up"),
            (9, {"beacon": b"x", "epoch": bytes(32), "begun": 1}, "of a set-up"),
            (7, {"reuse": True, "threshold": 4, "corrupt": 2}, "threshold of at least 5 on the complete"),
            (7, {"threshold": 2, "corrupt": 2, "quorum": 5}, "threshold of at least 3 on the complete"),
            (
                9,
                {"threat": "semi-malicious", "reuse": True, "committee": 5, "quorum": 5, "window": 1},
                "threshold of at least 5 .* where 5 voters hold",
            ),
            (9, {}, "needs commit and reveal, or a beacon"),
        ],
    )
    def test_what_does_not_fit_together_is_refused(
        self, clients: int, more: dict[str, Any], why: str
    ) -> None:
        made = parameters(**{"threat": "malicious", "degree": 6, "threshold": 4} | more)
        with pytest.raises(Misuse, match=why):
            rules(made, clients)

    @pytest.mark.parametrize(
        "clients, more",
        [
            (9, {"identities": bytes(32 * 9), "beacon": b"x"}),
            (9, {"committed": True}),
            (7, {}),
            (9, {"beacon": b"x", "reuse": True, "epoch": bytes(32), "begun": 1}),
            (7, {"reuse": True, "threshold": 4, "corrupt": 1}),
            (9, {"beacon": b"x", "reuse": True}),
            (9, {"threat": "semi-malicious"}),
        ],
    )
    def test_what_fits_is_a_session(self, clients: int, more: dict[str, Any]) -> None:
        made = rules(parameters(**{"threat": "malicious", "degree": 6, "threshold": 4} | more), clients)
        assert (made.seed == b"") == bool(more.get("committed"))
        assert made.neighbours(0, made.seed) == harary(made.seed or bytes(32), clients, 6, 0)

    def test_reused_keys_keep_the_graph_of_their_set_up_and_every_set_up_has_its_own(self) -> None:
        def seed(round: int, **more: Any) -> bytes:
            made = parameters("malicious", 6, 4, beacon=b"x", quorum=5, window=1, **more)
            return Rules(made, 9, 2, 8, CONTEXT, round).seed

        later = [seed(round, reuse=True, epoch=bytes(32), begun=3) for round in (4, 5)]
        assert later[0] == later[1] == seed(3, reuse=True) == seed(3)
        assert len({seed(round, reuse=True) for round in range(1, 20)}) == 19

    def test_a_beacon_serves_so_many_rounds_that_choosing_one_is_planned_for(self) -> None:
        made = parameters("malicious", 6, 4, beacon=b"x", quorum=5, window=1)
        assert Rules(made, 9, 2, 8, CONTEXT, BEACON_ROUNDS).seed
        with pytest.raises(Misuse, match="a beacon serves rounds up to 65536"):
            Rules(made, 9, 2, 8, CONTEXT, BEACON_ROUNDS + 1)
        assert (
            plan(Cohort(1000, 0.2, 0.1, "malicious", beacon=True)).window
            == plan(Cohort(1000, 0.2, 0.1, "malicious", security=50)).window  # 2^16 rounds, or 64 tries
        )

    def test_the_sessions_order_chooses_no_graph_under_a_beacon(self) -> None:
        """Client by client, by its key: the same neighbours, voters and places in any order of the roster."""
        keys = [bytes([i]) * 32 for i in (7, 1, 5, 2, 9, 3, 8, 4, 6, 0)]
        seen = []
        for order in (range(10), range(9, -1, -1), (3, 1, 4, 5, 9, 2, 6, 8, 7, 0)):
            named = [keys[i] for i in order]
            p = parameters(
                "malicious", 4, 3, beacon=b"x", identities=b"".join(named), quorum=5, committee=6, window=1
            )
            made = Rules(p, 10, 2, 8, CONTEXT, 1)
            ring = [named[i] for i in made.circle(made.seed)]
            around = {named[i]: {named[j] for j in made.neighbours(i, made.seed)} for i in range(10)}
            seen.append((ring, around, {named[i] for i in made.voters(made.seed)}))
            for at, key in enumerate(ring):
                assert around[key] == {ring[(at + step) % 10] for step in (-2, -1, 1, 2)}
        assert seen[0] == seen[1] == seen[2]


class TestReuse:
    def test_who_is_surely_in_the_sum(self) -> None:
        """9 holders of whom 1 is corrupt, threshold 6: five honest ones shown a client gone put it out of the sum."""
        honest = rules(parameters("semi-honest", 9, 6, 1, reuse=True), 10)
        lying = rules(parameters("semi-malicious", 9, 6, 1, survivors=7, reuse=True), 10)
        fresh = rules(parameters("semi-malicious", 9, 6, 1, survivors=7), 10)
        for made in (honest, fresh):
            assert [made.sure(n) for n in (10, 9, 5)] == [10, 9, 5]
        assert [lying.sure(n) for n in (10, 9, 8, 5)] == [10, 10 - 1, 10 - 3, 10 - 8]
        assert (lying.shown, lying.survivors) == (7, 10 - 4)
        assert (fresh.shown, fresh.survivors) == (7, 7)

    @pytest.mark.parametrize(("least", "shown"), [(1, 7), (6, 7), (7, 8), (8, 9), (9, 9), (10, 10)])
    def test_holders_are_shown_so_many_that_the_least_are_in_the_sum(self, least: int, shown: int) -> None:
        made = parameters("semi-malicious", 9, 6, 1, 7, quorum=6, reuse=True)
        assert Rules(made, 10, least, 8, CONTEXT, 1).shown == shown
        assert Rules(made, 10, least, 8, CONTEXT, 1).survivors >= least

    @pytest.mark.parametrize(
        ("n", "t", "corrupt"), [(8, 4, 0), (9, 6, 1), (10, 6, 1), (11, 7, 2), (12, 7, 1), (12, 8, 2)]
    )
    def test_no_mixture_of_views_leaves_more_out(self, n: int, t: int, corrupt: int) -> None:
        """A solver chooses the views, to exhaustion. Of client 0, which is in the total, the n - 1 others hold shares:
        each honest one is shown `shown` survivors or more, itself and client 0 among them; whoever is shown gone to
        threshold - corrupt of them is out. What is counted is what the solver finds, rounded up.
        """
        p = parameters("semi-malicious", n - 1, t, corrupt, t + 1, quorum=quorum(n, corrupt), reuse=True)
        made, honest = Rules(p, n, 2, 8, CONTEXT, 1), n - 1 - corrupt
        # holder h + 1 is shown j gone; then: j is out
        gone = np.eye(honest * n).reshape(honest, n, honest * n)
        rows = [np.r_[gone[h].sum(axis=0), np.zeros(n)] for h in range(honest)]
        rows += [np.r_[gone[:, j].sum(axis=0), -(t - corrupt) * np.eye(n)[j]] for j in range(n)]
        high = np.r_[np.full(honest, n - made.shown), np.full(n, np.inf)]
        upper = np.ones((honest + 1, n))
        upper[:, 0] = 0
        upper[range(honest), range(1, honest + 1)] = 0
        most = milp(
            np.r_[np.zeros(honest * n), -np.ones(n)],
            constraints=LinearConstraint(np.array(rows), 0, high),
            bounds=Bounds(0, upper.ravel()),
            integrality=1,
        )
        assert most.status == 0
        assert made.survivors <= n + most.fun <= made.survivors + 1

    def test_shares_go_to_the_committee_and_come_from_everybody(self) -> None:
        sparse = rules(parameters("semi-honest", 4, 3, reuse=True), 10)
        seed = hashlib.sha256(b"secagg voters v1\0" + sparse.seed).digest()
        assert sparse.holders == frozenset(permutation(seed, 10)[:4].tolist())
        enrolled = {0, 1, 2, 3, 5, 6, 7, 8, 9}
        places = Places(sparse, sparse.seed, enrolled)
        for i in enrolled:
            others = enrolled if i in sparse.holders else sparse.holders & enrolled
            assert places.peers(i) == sorted(others - {i})
            assert places.neighbours(i) == [j for j in sparse.neighbours(i, sparse.seed) if j != 4]
            assert places.known(i) == sorted({*places.peers(i), *places.neighbours(i)})
        complete = rules(parameters("semi-honest", 9, 6, reuse=True), 10)
        assert complete.holders == frozenset(range(10))
        voted = parameters("semi-malicious", 4, 3, 0, 4, quorum=4, committee=6, window=1, reuse=True)
        made = rules(voted, 10)
        assert made.holders == frozenset(made.voters(made.seed))
        assert len(made.holders) == 6


def test_every_client_of_a_circle_has_its_neighbours_on_it() -> None:
    for size, degree in ((5, 2), (5, 4), (6, 4), (9, 4), (9, 6), (10, 9), (4, 3), (3, 2)):
        order = permutation(b"g" * 32, size).tolist()
        for place, who in enumerate(order):
            if degree == size - 1:
                expected = set(range(size)) - {who}
            else:
                expected = {
                    order[(place + step) % size] for step in range(-(degree // 2), degree // 2 + 1) if step
                }
            assert harary(b"g" * 32, size, degree, who) == tuple(sorted(expected))
        for stranger in (-1, size):
            with pytest.raises(Misuse):
                harary(b"g" * 32, size, degree, stranger)


def test_parameters_of_another_protocol_are_misuse() -> None:
    session = SecAgg().session(["a", "b", "c"], 1, 1, random=SystemRandom())
    with pytest.raises(Misuse, match="not those of a masked sum"):
        rules_of(replace(session, parameters=b"xyz"))
