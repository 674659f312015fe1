"""What each answer marks in the party's store, so that a restored state gives it no second time; and the numbers
that a statement gives for what a server may still do.
"""

import math

import pytest

from protocols.kernel import client
from protocols.randomness import SystemRandom
from secagg import Credentials, SecAgg, SecAggPlus
from secagg.messages import CONFIRM, INPUT, UNMASK
from tests.property.secagg.play import Play

NAMES = [f"c{i}" for i in range(40)]
CREDENTIALS = Credentials.simulated(NAMES)


class Marking(Play):
    """Keeps what every step of client 0 marks, by stage."""

    def marks(self) -> dict[str, tuple[str, ...]]:
        found = {}
        for stage in self.stages:
            request = next(m for m in self.until(stage) if m.recipient == client(0))
            found[stage] = self.clients[0].receive(request, self.random).marks
            self.trip()
        return found


@pytest.mark.parametrize("threat", ["semi-honest", "semi-malicious"])
def test_input_vote_and_opening_are_marked_and_nothing_else(threat: str) -> None:
    play = Marking(SecAgg(threat=threat), 6)
    context = play.session.context.hex()
    marks = play.marks()
    expected = {UNMASK: (f"answered/{context}",)} | (
        {CONFIRM: (f"voted/{context}",)} if threat != "semi-honest" else {}
    )
    (spent,) = marks.pop(INPUT)
    assert spent.startswith("spent/")
    assert {stage: marked for stage, marked in marks.items() if marked} == expected


def test_reused_keys_mark_the_same() -> None:
    marks = Marking(SecAgg(setup="reuse", threat="semi-malicious"), 6).marks()
    assert marks[INPUT][0].startswith("spent/")
    assert marks[UNMASK][0].startswith("answered/")


def test_commit_and_reveal_ends_in_the_exact_total() -> None:
    play = Play(SecAggPlus(threat="malicious", neighbours=10, collusion=0.0, credentials=CREDENTIALS), 14)
    total = play.finish()
    assert total.survivors == tuple(range(14))
    assert total.total.tolist() == play.expected(range(14))
    assert total.blamed == ()


def limits(protocol: SecAgg | SecAggPlus, clients: int = 40) -> str:
    session = protocol.session(NAMES[:clients], 1, 1, random=SystemRandom())
    return "\n".join(protocol.protection(session).limits)


class TestStatements:
    def test_a_sparse_graph_says_in_which_sum_it_hides(self) -> None:
        """A survivor keeps `threshold` surviving neighbours, of whom `corrupt` may be the server's; and itself."""
        given = {"neighbours": 20, "threshold": 14, "collusion": 0.0}
        corrupt = 2 * 14 - 20 - 1
        assert "over chance drop-outs;" not in limits(SecAggPlus(threat="semi-honest", **given))  # type: ignore[arg-type]  # a number each
        assert "over chance drop-outs" in limits(SecAggPlus(threat="semi-honest", **given))  # type: ignore[arg-type]  # as above
        said = limits(SecAggPlus(threat="semi-malicious", **given))  # type: ignore[arg-type]  # as above
        assert f"no fewer than {14 - corrupt + 1} honest clients" in said
        told = limits(SecAggPlus(threat="malicious", credentials=CREDENTIALS, **given))  # type: ignore[arg-type]  # as above
        assert "whoever the server drops" in told
        assert "a sparse graph hides each client" in told

    def test_reuse_says_how_many_a_lying_server_can_leave_out(self) -> None:
        given = {"neighbours": 20, "threshold": 14, "collusion": 0.0}
        corrupt = 2 * 14 - 20 - 1
        said = limits(SecAggPlus(threat="semi-malicious", setup="reuse", **given))  # type: ignore[arg-type]  # as above
        assert f"up to {(20 - corrupt) / (14 - corrupt):.2f} times as many" in said
        gone = math.floor((20 - corrupt) * (20 - 14) / (14 - corrupt))
        assert f"no fewer than {20 - gone - corrupt + 1} honest clients" in said
        assert "one set-up serves many rounds" in said
        assert "no vote" not in limits(SecAggPlus(threat="semi-honest", setup="reuse", **given))  # type: ignore[arg-type]  # as above

    def test_complete_graphs_and_fresh_keys_have_none_of_these(self) -> None:
        said = limits(SecAgg(threat="malicious", credentials=CREDENTIALS))
        assert "sparse graph" not in said
        assert "set-up" not in said
        assert "bound to names by the server" not in said
        assert "bound to names by the server" in limits(SecAgg(threat="semi-malicious"))
        assert "trusted not to" in limits(SecAgg(threat="semi-honest"))
