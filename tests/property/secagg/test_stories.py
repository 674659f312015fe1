"""Any stories whatever: what comes out is one sum, over all honest members of one set of survivors, or nothing."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocols.agreement import quorum
from protocols.kernel import State
from secagg.audit_view import opened
from secagg.mask_parameters import MaskParameters
from tests.property.secagg.play import Play
from tests.property.secagg.story import Given, Story

N = 11
clients = st.integers(0, N - 1)
runs = st.lists(st.tuples(clients, st.integers(1, 3)), max_size=2)


@st.composite
def stories(draw: st.DrawFn) -> tuple[Story, dict[int, State]]:
    """Two lists of dealers and three views, each without some who follow one another on the ring; each client is shown
    one of each. One or no corrupt client, who signs all.
    """
    degree, corrupt = draw(st.sampled_from([4, 6, N - 1])), draw(st.integers(0, 1))
    threshold = draw(st.integers(corrupt + 2, 3))
    window = int(degree < N - 1) * (1 + corrupt)
    made = MaskParameters(
        "semi-malicious", degree, threshold, corrupt, threshold + 1, quorum(N, corrupt), window=window
    )
    story = Story(Play(Given(made), N))
    everybody, ring = set(range(N)), story.ring

    def without_runs() -> set[int]:
        return everybody - {ring[(at + k) % N] for at, size in draw(runs) for k in range(size)}

    dealers, views = [everybody, without_runs()], [without_runs() for _ in range(3)]
    others = draw(st.dictionaries(clients, st.tuples(st.integers(0, 1), st.integers(0, 2)), max_size=4))
    for i in range(N):
        at, of = others.get(i, (0, 0))
        story.dealers[i], story.survivors[i] = dealers[at], views[of]
    story.corrupt = {draw(clients)} if corrupt else set()
    return story, {i: story.play.clients[i] for i in story.corrupt}


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(stories())
def test_one_sum_over_the_honest_members_of_one_view_or_nothing(
    made: tuple[Story, dict[int, State]],
) -> None:
    story, insiders = made
    story.tell()
    groups = opened(story.play.session, story.transcript, insiders)
    assert len(groups) <= 1
    for group in groups:
        assert group in {frozenset(view) - story.corrupt for view in story.survivors.values()}
        assert len(group) >= story.rules.survivors - len(story.corrupt)


def test_the_stories_get_as_far_as_a_sum() -> None:
    """The property above is not met by opening nothing ever."""
    made = MaskParameters("semi-malicious", 6, 3, 1, 4, quorum(N, 1), window=2)
    story = Story(Play(Given(made), N))
    insiders = {3: story.play.clients[3]}
    story.corrupt = {3}
    gone = story.ring[2]
    for i in range(N):
        story.survivors[i] = set(range(N)) - {gone}
    story.tell()
    honest = frozenset(range(N)) - {gone, 3}
    assert set(opened(story.play.session, story.transcript, insiders)) == (
        {honest} if gone != 3 else {frozenset(range(N)) - {3}}
    )
