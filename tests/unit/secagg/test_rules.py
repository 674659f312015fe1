"""What a masked sum's parameters may be, at each limit exactly, and what follows from them."""

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, milp

from protocols.agreement import quorum
from protocols.errors import Misuse, PolicyRefusal, WireError
from protocols.policy import Policy
from protocols.randomness import SystemRandom
from secagg import Credentials, SecAgg, SecAggPlus
from secagg.choose import insist
from secagg.client.joining import Joining
from secagg.graph import Harary, permutation
from secagg.mask_parameters import MaskParameters
from secagg.masking import expand, keystream
from secagg.messages import expect_ascending, expect_items, indices, items, pack_bits, unpack_bits
from secagg.parameters import plan
from secagg.parameters.rules import BEACON_ROUNDS
from secagg.places import Places
from secagg.ring import Ring
from secagg.rules import Rules, rules_of

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
        assert made.neighbours(0, made.seed) == Harary(made.seed or bytes(32), clients, 6).neighbours(0)

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
            plan(1000, 0.2, 0.1, "malicious", beacon=True).window
            == plan(1000, 0.2, 0.1, "malicious", security=50).window  # 2^16 rounds, or 64 tries
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
        gone = np.eye(honest * n).reshape(
            honest, n, honest * n
        )  # holder h + 1 is shown j gone; then: j is out
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
        assert SecAgg().wishes.collusion == 0.1
        assert SecAgg(threshold=5).wishes.collusion == 0.0
        assert SecAgg(threshold=5, collusion=0.2).wishes.collusion == 0.2


class TestLists:
    def test_ascending_means_strictly(self) -> None:
        expect_ascending("x", indices([]))
        expect_ascending("x", indices([3]))
        expect_ascending("x", indices([1, 2, 9]))
        for bad in (
            indices([1, 1]),
            indices([2, 1]),
            indices([1, 2, 2]),
            np.array([1, 2]),
            np.zeros((1, 1), np.uint32),
        ):
            with pytest.raises(Misuse, match="ascending"):
                expect_ascending("x", bad)

    def test_items_are_of_one_size(self) -> None:
        assert items(b"aabbcc", 2) == [b"aa", b"bb", b"cc"]
        assert items(b"", 2) == items(b"", 0) == []
        for data, count in ((b"abc", 2), (b"a", 0), (b"", 2)):
            with pytest.raises(Misuse, match="items of one size"):
                expect_items("x", data, count)
        expect_items("x", b"abcd", 2)
        expect_items("x", b"", 0)

    @pytest.mark.parametrize("size", [1, 7, 8, 9, 16, 17])
    def test_bits_come_back_and_have_one_form(self, size: int) -> None:
        for some in ([], [0], [size - 1], list(range(size)), list(range(0, size, 3))):
            data = pack_bits(some, size)
            assert len(data) == -(-size // 8)
            assert [i for i in range(size) if data[i // 8] >> i % 8 & 1] == some
            assert unpack_bits(data, size) == set(some)
            for bad in (data + b"\0", data[:-1]):
                with pytest.raises(WireError, match="bytes for"):
                    unpack_bits(bad, size)
        if size % 8:
            with pytest.raises(WireError, match="beyond"):
                unpack_bits(pack_bits([size], size + 1), size)


class TestWords:
    @pytest.mark.parametrize("bits", [1, 2, 31, 32, 33, 63, 64])
    def test_rings_have_1_to_64_bits(self, bits: int) -> None:
        ring, top = Ring(bits), 1 << bits
        values = [0, 1, -1, top // 2 - 1, -(top // 2), top - 1]
        words = ring.embed(np.array([v % (1 << 64) for v in values], np.uint64))
        assert ring.residues(words).tolist() == [v % top for v in values]
        assert ring.centred(words).tolist() == [(v + top // 2) % top - top // 2 for v in values]
        assert [ring.packed_bytes(n) for n in (0, 1, 7, 8)] == [-(-n * bits // 8) for n in (0, 1, 7, 8)]

    @pytest.mark.parametrize("bits", [0, 65])
    def test_no_other_ring(self, bits: int) -> None:
        with pytest.raises(Misuse, match="1 to 64"):
            Ring(bits)

    def test_other_arrays_are_misuse(self) -> None:
        ring = Ring(8)
        for vector in (np.zeros(2), np.zeros((1, 2), np.int64)):
            with pytest.raises(Misuse, match="vector of integers"):
                ring.embed(vector)
        for words in (np.zeros(2, np.uint64), np.zeros((1, 2), np.uint32), np.zeros(4, np.uint32)[::2]):
            with pytest.raises(Misuse, match="contiguous"):
                ring.check(words)
        ring.check(ring.zeros(2))

    def test_streams_take_seeds_of_16_to_64_bytes_and_any_count(self) -> None:
        assert expand(b"s" * 16, b"", 0) == b""
        assert len({expand(b"s" * n, b"", 16) for n in (16, 17, 63, 64)}) == 4
        for size in (15, 65):
            with pytest.raises(Misuse, match="16 to 64"):
                keystream(b"s" * size, b"")
        with pytest.raises(Misuse, match="at least 0"):
            expand(b"s" * 16, b"", -1)


def test_every_client_of_a_circle_has_its_neighbours_on_it() -> None:
    for size, degree in ((5, 2), (5, 4), (6, 4), (9, 4), (9, 6), (10, 9), (4, 3), (3, 2)):
        graph = Harary(b"g" * 32, size, degree)
        order = permutation(b"g" * 32, size).tolist()
        for place, who in enumerate(order):
            if degree == size - 1:
                expected = set(range(size)) - {who}
            else:
                expected = {
                    order[(place + step) % size] for step in range(-(degree // 2), degree // 2 + 1) if step
                }
            assert graph.neighbours(who) == tuple(sorted(expected))
        for stranger in (-1, size):
            with pytest.raises(Misuse):
                graph.neighbours(stranger)


def test_parameters_of_another_protocol_are_misuse() -> None:
    session = SecAgg().session(["a", "b", "c"], 1, 1, random=SystemRandom())
    with pytest.raises(Misuse, match="not those of a masked sum"):
        rules_of(replace(session, parameters=b"xyz"))
