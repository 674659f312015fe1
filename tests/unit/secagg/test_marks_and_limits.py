"""What each answer marks in the party's store, so that a restored state gives it no second time; and the numbers
that a statement gives for what a server may still do.
"""

import pytest

from protocols.kernel import client
from protocols.randomness import SystemRandom
from secagg import Credentials, SecAgg, SecAggPlus
from secagg.messages import CONFIRM, INPUT, UNMASK
from secagg.session_rules import rules_of
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
        given = {"neighbours": 20, "threshold": 14, "collusion": 0.0}
        honest = limits(SecAggPlus(threat="semi-honest", **given))  # type: ignore[arg-type]  # a number each
        assert "over chance drop-outs" in honest
        for setup in ("fresh", "reuse"):
            said = limits(SecAggPlus(threat="semi-malicious", setup=setup, **given))  # type: ignore[arg-type]  # as above
            assert "over chance" not in said
            assert "all honest survivors, whoever the server drops" in said
            assert "any 10 clients in a row keep 7 survivors" in said
        told = limits(SecAggPlus(threat="malicious", credentials=CREDENTIALS, **given))  # type: ignore[arg-type]  # as above
        assert "whoever the server drops" in told
        assert "a sparse graph hides each client" in told

    def test_reuse_says_how_many_are_in_every_total_for_sure(self) -> None:
        protocol = SecAgg(threat="semi-malicious", setup="reuse")
        rules = rules_of(protocol.session(NAMES, 1, 1, random=SystemRandom()))
        said = limits(protocol)
        assert f"each holder is shown {rules.shown} survivors or more" in said
        assert f"but {rules.survivors} are in every total" in said
        assert "one set-up serves many rounds" in said
        assert "no vote" not in limits(SecAgg(threat="semi-honest", setup="reuse"))
        given = {"neighbours": 20, "threshold": 14, "collusion": 0.0}
        assert "no vote" not in limits(SecAggPlus(threat="semi-malicious", setup="reuse", **given))  # type: ignore[arg-type]  # as above

    def test_complete_graphs_and_fresh_keys_have_none_of_these(self) -> None:
        said = limits(SecAgg(threat="malicious", credentials=CREDENTIALS))
        assert "sparse graph" not in said
        assert "set-up" not in said
        assert "bound to names by the server" not in said
        assert "bound to names by the server" in limits(SecAgg(threat="semi-malicious"))
        assert "trusted not to" in limits(SecAgg(threat="semi-honest"))

    def test_one_sum_of_so_many_is_what_a_server_learns_where_views_are_agreed_on(self) -> None:
        for protocol in (
            SecAgg(threat="semi-malicious"),
            SecAggPlus(threat="malicious", credentials=CREDENTIALS),
        ):
            session = protocol.session(NAMES[:40], 1, 1, random=SystemRandom(), min_survivors=30)
            said, p = protocol.protection(session), rules_of(session).parameters
            assert (
                f"one set of at least 30 survivors, of whom at most {p.corrupt} are corrupt"
                in said.learns["server"]
            )
            assert f"up to {p.corrupt} of the 40 clients" in said.collusion
            assert said.parameters["quorum"] == (40 + p.corrupt) // 2 + 1
        for protocol in (SecAgg(threat="semi-honest"), SecAgg(setup="reuse", threat="semi-malicious")):
            session = protocol.session(NAMES[:40], 1, 1, random=SystemRandom())
            assert "one set" not in protocol.protection(session).learns["server"]

    def test_jointly_drawn_graphs_say_what_retries_cost(self) -> None:
        protocol = SecAggPlus(threat="malicious", neighbours=10, collusion=0.0, credentials=CREDENTIALS)
        assert "among 64 graphs, which the failure probability counts" in limits(protocol, 14)
        assert "64 graphs" not in limits(SecAgg(threat="malicious", credentials=CREDENTIALS))
