"""A server that shows clients different dealers and survivors opens nothing that not all agreed to.

Each attack is played against the real clients: as they are, and with one rule taken away, where it must open what it is
after. So each rule is needed, and each attack is one.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

from protocols.agreement import quorum
from protocols.errors import ProtocolViolation, TooFewSurvivors
from protocols.policy import Policy
from protocols.roles import read
from secagg import Credentials, SecAggPlus
from secagg.client import view
from secagg.mask_parameters import MaskParameters
from secagg.messages import CONFIRM, UNMASK, Unmask, indices
from secagg.session_rules import Rules, rules_of
from tests.property.secagg.play import Play, with_body
from tests.property.secagg.story import Given, Story

QUORUM, INPUTS, WINDOW = "quorum", "signed inputs", "window"
EVERY = (QUORUM, INPUTS, WINDOW)
Patch = pytest.MonkeyPatch


def without(rules: Iterable[str], patch: Patch) -> None:
    """Take some of a client's rules away."""
    if QUORUM in rules:
        patch.setattr(view, "check_certificate", lambda *_: None)
    if INPUTS in rules:
        patch.setattr(view, "verify", lambda *_: None)
    if WINDOW in rules:
        patch.setattr(Rules, "_fewest_in_a_row", lambda *_: 1 << 30)


def given(neighbours: int, threshold: int, n: int = 22) -> Play:
    """Nobody is corrupt: so one window's member is enough."""
    made = MaskParameters("semi-malicious", neighbours, threshold, 0, threshold + 1, quorum(n, 0), window=1)
    return Play(Given(made), n)


def tell(attack: Callable[[Story], None], play: Play) -> Story:
    story = Story(play)
    attack(story)
    story.tell()
    return story


def split_ring(story: Story, arc: int = 11, border: int = 1) -> None:
    """An arc masks among itself and a border; each side is shown its own survivors, without the border."""
    ring, everybody = story.ring, set(story.ring)
    inside = set(ring[:arc])
    cut = {ring[(at) % len(ring)] for b in range(border) for at in (arc + b, -1 - b)}
    outside = everybody - inside - cut
    near = {i for i in outside if story.around[i] & inside}
    for i in ring:
        story.dealers[i] = everybody - near if i in inside else everybody
        story.survivors[i] = inside | (outside - near) if i in inside else inside | outside


class TestASplitRing:
    """The exact sum of an arc, below the least number of survivors: open before views were agreed on."""

    def arc(self, story: Story) -> list[int]:
        return story.ring[:11]

    @pytest.mark.parametrize("missing", [(), (QUORUM,), (INPUTS,), (WINDOW,)])
    def test_it_stays_closed(self, missing: tuple[str, ...], monkeypatch: Patch) -> None:
        without(missing, monkeypatch)
        story = tell(split_ring, given(10, 6))
        assert story.sum_of(self.arc(story)) != story.play.expected(self.arc(story))

    def test_it_opens_without_the_three_rules(self, monkeypatch: Patch) -> None:
        without(EVERY, monkeypatch)
        story = tell(split_ring, given(10, 6))
        assert story.sum_of(self.arc(story)) == story.play.expected(self.arc(story))


def gap(story: Story) -> None:
    """One view for everybody: two runs of degree / 2 clients are said to be gone, and part the ring."""
    half = story.rules.degree // 2
    gone = set(story.ring[:half]) | set(story.ring[11 : 11 + half])
    for i in story.ring:
        story.survivors[i] = set(story.ring) - gone


class TestAGap:
    """Components of the survivors' graph must not be summed apart: one view alone does not prevent it."""

    def test_it_opens_without_windows(self, monkeypatch: Patch) -> None:
        without([WINDOW], monkeypatch)
        story = tell(gap, given(8, 4))
        assert story.sum_of(story.ring[4:11]) == story.play.expected(story.ring[4:11])

    def test_it_stays_closed(self) -> None:
        story = tell(gap, given(8, 4))
        assert not story.votes
        assert not story.opened
        assert story.sum_of(story.ring[4:11]) != story.play.expected(story.ring[4:11])


def delivered_alone(story: Story) -> None:
    """One client masks with half of its neighbours, who are then said to be gone: by everybody, in one view."""
    victim, ring = story.ring[8], story.ring
    mates = set(sorted(story.around[victim])[::2])
    far = set(ring) - story.around[victim]
    story.dealers[victim] = mates | far
    for i in ring:
        story.survivors[i] = set(ring) - mates


class TestAListForOneClient:
    """A quorum agrees, and the victim need not vote: its own signature of the dealers is what stops it."""

    def test_it_opens_without_signed_inputs(self, monkeypatch: Patch) -> None:
        without([INPUTS, WINDOW], monkeypatch)
        story = tell(delivered_alone, given(8, 4))
        assert story.sum_of([story.ring[8]]) == story.play.inputs[story.ring[8]].tolist()

    def test_it_stays_closed(self, monkeypatch: Patch) -> None:
        without([WINDOW], monkeypatch)
        story = tell(delivered_alone, given(8, 4))
        assert len(story.votes) >= story.rules.parameters.quorum
        assert story.shares_of(story.ring[8]) == (0, 0)


def both_secrets(story: Story) -> None:
    """Half of a client's holders are shown it alive, half are shown it gone."""
    victim = story.ring[8]
    for at, i in enumerate(sorted(story.around[victim])):
        if at % 2:
            story.survivors[i] = set(story.ring) - {victim}


class TestBothSecrets:
    def test_they_open_without_a_quorum(self, monkeypatch: Patch) -> None:
        without([QUORUM], monkeypatch)
        story = tell(both_secrets, given(8, 4))
        assert story.shares_of(story.ring[8]) == (4, 4)

    def test_they_do_not_open(self) -> None:
        story = tell(both_secrets, given(8, 4))
        assert story.shares_of(story.ring[8]) == (4, 0)


class TestCorruptVoters:
    """Four of 22 clients sign whatever helps; the others are split in halves of nine."""

    def halved(self, planned: int) -> Story:
        made = MaskParameters("semi-malicious", 21, 5, planned, 6, quorum(22, planned))

        def halves(story: Story) -> None:
            story.corrupt = set(range(4))
            for i in range(4, 22, 2):
                story.survivors[i] = set(range(22)) - {21}

        return tell(halves, Play(Given(made), 22))

    def test_as_many_as_were_planned_make_no_second_view(self) -> None:
        story = self.halved(planned=4)
        assert story.rules.parameters.quorum == 14
        assert not story.opened

    def test_one_vote_less_and_both_secrets_of_a_client_open(self) -> None:
        story = self.halved(planned=2)
        assert story.rules.parameters.quorum == 13
        assert min(story.shares_of(21)) >= story.rules.threshold


def test_views_in_halves_open_nothing_at_all() -> None:
    def halves(story: Story) -> None:
        for i in story.ring[::2]:
            story.survivors[i] = set(story.ring) - {story.ring[3]}

    assert not tell(halves, given(8, 4)).opened


ATTACKS = {
    "split ring": split_ring,
    "gap": gap,
    "one client's list": delivered_alone,
    "both secrets": both_secrets,
}


def closed(story: Story) -> bool:
    """No client's two secrets are open, and no sum of successive clients on the ring, but for all of them."""
    t, ring = story.rules.threshold, story.ring
    both = [i for i in ring if min(story.shares_of(i)) >= t]
    runs = [ring[at : at + size] for size in (1, 7, 11) for at in range(len(ring) - size)]
    return not both and all(story.sum_of(run) != story.play.expected(run) for run in runs)


class TestOtherModels:
    @pytest.mark.parametrize("attack", ATTACKS)
    def test_a_graph_that_clients_drew_together(self, attack: str) -> None:
        """Malicious: identities sign, and the graph is in what they sign."""
        known = Credentials.simulated(f"c{i}" for i in range(22))
        protocol = SecAggPlus(threat="malicious", neighbours=8, threshold=5, collusion=0.0, credentials=known)
        play = Play(protocol, 22)
        assert rules_of(play.session).committed
        assert closed(tell(ATTACKS[attack], play))

    @pytest.mark.parametrize("attack", ATTACKS)
    def test_a_committee_votes(self, attack: str) -> None:
        assert closed(tell(ATTACKS[attack], Play(Given(COMMITTEE), 22)))

    @pytest.mark.parametrize("threat", ["semi-malicious", pytest.param("malicious", marks=pytest.mark.slow)])
    def test_the_attack_that_was_shown_with_300_clients(self, threat: str) -> None:
        """It opened the exact sum of 73 clients, although every client demanded 210 survivors."""
        known = Credentials.simulated(f"c{i}" for i in range(300)) if threat == "malicious" else None
        protocol = SecAggPlus(dropout=0.2, collusion=0.02, threat=threat, credentials=known)
        play = Play(protocol, 300, policy=Policy(min_survivors=210), min_survivors=210)
        story = tell(lambda story: split_ring(story, 73, 43), play)
        assert not story.opened
        assert story.sum_of(story.ring[:73]) != play.expected(story.ring[:73])


COMMITTEE = MaskParameters("semi-malicious", 8, 4, 0, 5, quorum=6, committee=9, window=1)


class TestACommittee:
    def test_it_alone_votes_and_everybody_opens(self) -> None:
        play = Play(Given(COMMITTEE), 22)
        asked = play.until(CONFIRM)
        rules = rules_of(play.session)
        assert sorted(m.recipient.number for m in asked) == list(rules.voters(rules.seed))
        assert len(asked) == 9
        assert len(play.trip()) == 22
        total = play.finish()
        assert total.total.tolist() == play.expected(range(22))

    def test_votes_of_others_do_not_count(self) -> None:
        play = Play(Given(COMMITTEE), 22)
        request = play.until(UNMASK)[0]
        body, rules = read(Unmask, request), rules_of(play.session)
        assert body.certificate is not None
        stranger = min(set(range(22)) - set(rules.voters(rules.seed)))
        voters = indices(sorted([*body.certificate.voters.tolist()[1:], stranger]))
        with pytest.raises(ProtocolViolation, match="no vote"):
            play.tell(with_body(request, replace(body, certificate=replace(body.certificate, voters=voters))))

    def test_it_survives_as_many_as_the_quorum_can_miss(self) -> None:
        for missing in (3, 4):
            play = Play(Given(COMMITTEE), 22)
            gone = [m.recipient.number for m in play.until(CONFIRM)[:missing]]
            if missing == 3:
                play.trip(absent=gone)
                assert play.finish(absent=gone).total.tolist() == play.expected(range(22))
            else:
                with pytest.raises(TooFewSurvivors, match="6 votes, got 5"):
                    play.trip(absent=gone)
