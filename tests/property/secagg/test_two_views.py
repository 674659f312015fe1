"""A server that shows clients different dealers and survivors opens nothing that not all agreed to.

Each attack is played against the real clients: as they are, and with one rule taken away, where it must open what it is
after. So each rule is needed, and each attack is one.
"""

from collections.abc import Callable, Iterable

import pytest

from protocols.agreement import quorum
from secagg.client import view
from secagg.rules import MaskParameters, Rules
from tests.property.secagg.play import Play
from tests.property.secagg.story import Given, Story

QUORUM, INPUTS, WINDOW = "quorum", "signed inputs", "window"
EVERY = (QUORUM, INPUTS, WINDOW)
Patch = pytest.MonkeyPatch


def without(rules: Iterable[str], patch: Patch) -> None:
    """Take some of a client's rules away."""
    if QUORUM in rules:
        patch.setattr(view, "check_certificate", lambda *_: None)
    if INPUTS in rules:
        patch.setattr(view, "check_signature", lambda *_: None)
    if WINDOW in rules:
        patch.setattr(Rules, "_fewest_in_a_row", lambda *_: 1 << 30)


def tell(story: Callable[[Story], None], neighbours: int, threshold: int, n: int) -> Story:
    made = MaskParameters("semi-malicious", neighbours, threshold, 0, threshold + 1, quorum(n, 0), window=1)
    told = Story(Play(Given(made), n))
    story(told)
    told.tell()
    return told


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
        story = tell(split_ring, 10, 6, 22)
        assert story.sum_of(self.arc(story)) != story.play.expected(self.arc(story))

    def test_it_opens_without_the_three_rules(self, monkeypatch: Patch) -> None:
        without(EVERY, monkeypatch)
        story = tell(split_ring, 10, 6, 22)
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
        story = tell(gap, 8, 4, 22)
        assert story.sum_of(story.ring[4:11]) == story.play.expected(story.ring[4:11])

    def test_it_stays_closed(self) -> None:
        story = tell(gap, 8, 4, 22)
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
        story = tell(delivered_alone, 8, 4, 22)
        assert story.sum_of([story.ring[8]]) == story.play.inputs[story.ring[8]].tolist()

    def test_it_stays_closed(self, monkeypatch: Patch) -> None:
        without([WINDOW], monkeypatch)
        story = tell(delivered_alone, 8, 4, 22)
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
        story = tell(both_secrets, 8, 4, 22)
        assert story.shares_of(story.ring[8]) == (4, 4)

    def test_they_do_not_open(self) -> None:
        story = tell(both_secrets, 8, 4, 22)
        assert story.shares_of(story.ring[8]) == (4, 0)


def test_views_in_halves_open_nothing_at_all() -> None:
    def halves(story: Story) -> None:
        for i in story.ring[::2]:
            story.survivors[i] = set(story.ring) - {story.ring[3]}

    assert not tell(halves, 8, 4, 22).opened
