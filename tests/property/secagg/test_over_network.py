"""Where trips are slow keys are reused, and no less is promised than with fresh ones: attacked on the real states."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from protocols import simulate
from protocols.errors import Misuse, PolicyRefusal, ProtocolViolation, TooFewSurvivors
from protocols.layers import PrivacyLayer
from protocols.policy import Demands
from protocols.randomness import SystemRandom
from protocols.runtime import Runtime
from protocols.session import Session
from protocols.stack import Stack
from protocols.store import MemoryStore
from secagg import Credentials, SecAgg, SecAggPlus
from secagg.session_rules import rules_of
from tests.property.secagg.play import Play
from tests.property.secagg.reusing import shown

RANDOM = SystemRandom()
COHORTS = (3, 4, 5, 6, 8, 10, 15, 20, 30, 40, 100)


def names(clients: int) -> list[str]:
    return [f"c{i}" for i in range(clients)]


def session(protocol: SecAgg | SecAggPlus, clients: int = 4, least: int = 1) -> Session:
    return protocol.session(names(clients), 4, 100, random=RANDOM, min_survivors=least)


@pytest.mark.parametrize("dropout", [0.0, 0.2, 0.3])
@pytest.mark.parametrize("kind", [SecAgg, SecAggPlus])
@pytest.mark.parametrize("clients", COHORTS)
def test_as_many_are_sure_to_be_in_a_total_as_with_fresh_keys(
    kind: type[SecAgg | SecAggPlus], clients: int, dropout: float
) -> None:
    fresh = kind(dropout=dropout, setup="fresh")
    promised = rules_of(session(fresh, clients)).survivors
    for least in (1, clients // 2, clients - int(dropout * clients)):
        made = session(kind(dropout=dropout).over_network(), clients, least)
        assert rules_of(made).survivors >= max(promised, least)
        assert rules_of(made).shown <= clients - int(dropout * clients)  # planned drop-outs end no round


@pytest.mark.parametrize("dropout", [0.0, 0.2, 0.3])
@pytest.mark.parametrize("kind", [SecAgg, SecAggPlus])
def test_a_policy_reads_no_less_and_as_many_corrupt_clients_are_stood(
    kind: type[SecAgg | SecAggPlus], dropout: float
) -> None:
    """But of four clients, which is traded and said: three must answer, and are then all of the holders."""
    for clients in (3, *range(5, 40), 100):
        made = session(kind(dropout=dropout).over_network(), clients)
        fresh = session(kind(dropout=dropout, setup="fresh"), clients)
        rules, usual = rules_of(made), rules_of(fresh).parameters
        read, other = kind().demands(made), kind().demands(fresh)
        assert (read.threshold or 0) >= (other.threshold or 0)
        assert share_read(read) >= share_read(other)
        assert rules.parameters.corrupt >= usual.corrupt
        if rules.complete and rules.parameters.reuse:  # two views of a client need 2 t > holders + corrupt
            stood = min(2 * usual.quorum - clients - 1, usual.threshold - 1)
            assert 2 * rules.threshold - clients >= stood
    four = session(kind(dropout=dropout).over_network())
    assert any("can have another's vector opened" in limit for limit in kind().protection(four).limits)


def share_read(demands: Demands) -> Fraction:
    """The share that a policy reads: of voters, else of holders."""
    if demands.quorum is not None:
        return Fraction(demands.quorum, demands.voters or demands.cohort)
    return Fraction(demands.threshold or 0, demands.degree or demands.cohort)


def test_a_round_of_four_is_two_trips_after_the_first() -> None:
    protocol, stores = SecAggPlus().over_network(), {name: MemoryStore() for name in [*names(4), "server"]}
    trips = []
    for number in range(1, 11):
        given = {name: np.arange(4) * number for name in names(4)}
        outcome = simulate(protocol, given, stores=stores, round=number, bound=100)
        trips.append(len(protocol.stages(outcome.session)))
        assert (outcome.total == 4 * number * np.arange(4)).all()
    assert trips == [3] + [2] * 9


NEEDING = (
    SecAgg(setup="fresh"),
    SecAgg(setup="reuse"),
    SecAggPlus(neighbours=6, threshold=3, collusion=0.15, setup="reuse"),
    SecAgg(threat="semi-honest", setup="reuse"),
)


@pytest.mark.parametrize("protocol", NEEDING, ids=lambda p: f"{p.name}-{'reuse' if p.reuse else 'fresh'}")
def test_a_stage_needs_as_many_answers_as_it_says(protocol: SecAgg | SecAggPlus) -> None:
    """So many are enough in every stage, and one fewer ends the session there: who waits, waits for so many. On a
    sparse graph it matters, too, which ones come with their inputs: there they all do.
    """

    def play(short: str = "") -> str:
        """Return the stage in which a session ends where each has so many answers, `short` one fewer."""
        made = Play(protocol, 10)
        for stage in protocol.stages(made.session):
            asked = sorted(sent.recipient.number for sent in made.queue)
            sparse = not rules_of(made.session).complete and stage.name not in ("consistency", "unmask")
            enough = len(asked) if sparse else min(stage.needed, len(asked))
            enough = min(enough, stage.needed) - 1 if stage.name == short else enough
            try:
                made.trip(absent=asked[enough:])
            except TooFewSurvivors:
                return stage.name
            if stage.counts and not (short or sparse):
                assert protocol.opens_with(made.session) == len(asked[:enough])
        return ""

    assert play() == ""
    for stage in Play(protocol, 10).stages:
        assert play(stage) == stage


def test_what_a_layer_counts_on_is_its_own_number() -> None:
    """In memory and over a network alike: a sparse graph of one's own falls apart where a layer counts on a number."""
    masks = SecAggPlus(threat="semi-honest", neighbours=12, dropout=0.3, collusion=0.05)
    for protocol in (masks, masks.over_network()):
        assert session(protocol, 37).clients == 37
        with pytest.raises(Misuse, match="a layer counts on 3 clients in every total"):
            session(protocol, 37, 3)


def test_what_was_said_stays_as_it_was_said() -> None:
    known = Credentials.simulated(range(4))
    assert not rules_of(session(SecAggPlus())).parameters.reuse  # in memory
    for said in (
        SecAggPlus(setup="fresh"),
        SecAggPlus(setup="reuse"),
        SecAggPlus(threat="malicious", credentials=known),
    ):
        assert said.over_network() is said


def test_a_price_that_counts_on_a_secret_choice_has_fresh_keys() -> None:
    class Secret(PrivacyLayer):
        name = "secret"
        secret_sampling = True  # type: ignore[assignment]  # in place of a property

    assert not Stack([Secret(), SecAggPlus()]).over_network().secure_sum.builds_on_earlier
    assert Stack([SecAggPlus()]).over_network().secure_sum.builds_on_earlier


class TestALyingServer:
    """It makes sessions that an honest one would not; clients work out theirs from their own configuration."""

    def join(self, made: Session) -> None:
        SecAggPlus().over_network().client(made, 0, np.zeros(4, np.int64), random=RANDOM)

    def test_fewer_in_every_total_than_with_fresh_keys_are_refused(self) -> None:
        made = session(SecAggPlus().over_network(), 20)
        self.join(made)
        assert rules_of(made).parameters.reuse
        for least in (1, made.min_survivors - 1):
            with pytest.raises(PolicyRefusal, match="min_survivors: this client demands 12"):
                self.join(replace(made, min_survivors=least))

    def test_the_other_kind_of_keys_is_refused(self) -> None:
        fresh = session(SecAggPlus(setup="fresh"), 20, 12)
        with pytest.raises(PolicyRefusal, match="setup: this client demands reused keys"):
            self.join(fresh)
        # so many that reused keys would not carry them over the planned drop-outs
        reused = session(SecAggPlus(setup="reuse", dropout=0.1), 20, 16)
        with pytest.raises(PolicyRefusal, match="setup: this client demands fresh keys"):
            self.join(reused)

    def test_sessions_of_both_kinds_side_by_side_send_an_update_once(self) -> None:
        """The layers' demand is the server's word here: low, keys are reused; high, they are fresh."""
        protocol, store = SecAggPlus().over_network(), MemoryStore()
        vector, parties = np.full(4, 7), dict[str, tuple[Play, Runtime]]()
        for kind, least in (("reused", 1), ("fresh", 16)):
            play = Play(protocol, 20, session=session(protocol, 20, least))
            runtime = Runtime(protocol, play.session, store)
            made = play.session
            runtime.begin(
                lambda kept, made=made: protocol.client(  # type: ignore[misc]  # bound as a default
                    made, 0, vector, random=RANDOM, memory=kept, update=b"the same"
                )
            )
            parties[kind] = play, runtime
        assert rules_of(parties["reused"][0].session).parameters.reuse
        assert not rules_of(parties["fresh"][0].session).parameters.reuse
        left = 0
        for kind, trips in (("fresh", 2), ("reused", 2), ("fresh", 1)):
            play, runtime = parties[kind]
            for _ in range(trips):
                for request in play.queue:
                    try:
                        mine = request.recipient.number == 0
                        answers = runtime.handle(request) if mine else play.tell(request)
                    except PolicyRefusal:
                        continue
                    left += mine and request.stage == "masked-input"
                    play.hear(*answers)
                play.close()
        assert left == 1

    def test_holders_open_for_no_fewer_survivors_than_the_promise_takes(self) -> None:
        """Ten clients, seven sure with fresh keys: a view of seven would let mixed views leave out four."""
        protocol = SecAggPlus().over_network()
        play = Play(protocol, 10, session=session(protocol, 10))
        rules = rules_of(play.session)
        assert (rules.survivors, rules.shown, rules.sure(7)) == (7, 8, 6)
        for _ in range(2):
            play.trip()
        with pytest.raises(ProtocolViolation, match="expected at least 8 clients"):
            play.tell(shown(play.queue[0], range(7), 10))
