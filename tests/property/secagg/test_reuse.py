"""One set-up, many rounds: exact sums whatever leaves and returns, and what a cheating server tries across
rounds.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocols import simulate
from protocols.errors import Misuse, PolicyRefusal, ProtocolViolation, TooFewSurvivors
from protocols.key_agreement import public_key
from protocols.roles import read
from protocols.store import MemoryStore
from secagg import SecAgg, SecAggPlus
from secagg.memory import ClientMemory, ServerMemory
from secagg.messages import (
    ADVERTISE,
    INPUT,
    UNMASK,
    Masked,
)
from secagg.session_rules import rules_of
from tests.property.secagg.play import Play
from tests.property.secagg.reusing import CREDENTIALS, again, dealt, first_round, protocol


class TestRounds:
    def test_every_round_is_exact_whoever_leaves_and_returns(self) -> None:
        @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
        @given(data=st.data())
        def check(data: st.DataObject) -> None:
            n = data.draw(st.integers(4, 12))
            sparse = data.draw(st.booleans()) and n >= 8
            chosen = (
                SecAggPlus(setup="reuse", neighbours=6, threshold=4, collusion=0.0) if sparse else protocol()
            )
            stores = {name: MemoryStore() for name in (*range(n), "server")}
            drawn = [  # all at once: whether a sparse graph survives is chance, and must not change what is drawn
                (
                    data.draw(st.sets(st.integers(0, n - 1), max_size=max(1, n // 5))),
                    data.draw(
                        st.sampled_from([ADVERTISE, INPUT, UNMASK] if number == 1 else [INPUT, UNMASK])
                    ),
                )
                for number in range(1, 5)
            ]
            for number, (gone, stage) in enumerate(drawn, 1):
                inputs = [np.random.default_rng([i, number]).integers(-99, 100, 9) for i in range(n)]
                try:
                    outcome = simulate(chosen, inputs, {stage: gone}, bound=99, round=number, stores=stores)
                except (TooFewSurvivors, Misuse):
                    assert sparse or len(gone) > 1 or n < 6
                    return
                assert outcome.total.tolist() == sum(inputs[i] for i in outcome.survivors).tolist()  # type: ignore[union-attr]  # never empty
                assert set(outcome.survivors) >= set(range(n)) - gone - set(outcome.refusals)

        check()

    def test_a_later_round_takes_two_trips(self) -> None:
        play = first_round()
        assert play.stages == [ADVERTISE, INPUT, UNMASK]
        later = again(play, 2)
        assert later.stages == [INPUT, UNMASK]
        assert later.finish(absent=[3]).total.tolist() == later.expected([0, 1, 2, 4, 5, 6, 7])

    def test_losing_one_holder_at_unmasking_does_not_kill_the_round(self) -> None:
        play = again(first_round(), 2)
        play.trip(absent=[2])
        play.trip(absent=[5])
        assert play.finish().total.tolist() == play.expected([0, 1, 3, 4, 5, 6, 7])

    def test_a_client_that_was_away_returns(self) -> None:
        play = first_round()
        for number in (2, 3, 4):
            play = again(play, number)
            assert play.finish(absent=[6]).survivors == (0, 1, 2, 3, 4, 5, 7)
        play = again(play, 9)
        assert play.finish().total.tolist() == play.expected(range(8))

    def test_a_late_joiner_waits_for_the_next_set_up_and_gets_one(self) -> None:
        play = Play(protocol(), 8)
        play.finish(absent=[7])
        seen = []
        for number in range(2, 12):
            play = again(play, number)
            joined = play.finish().survivors
            seen.append(7 in joined)
        assert not seen[0]
        assert seen[-1]

    def test_a_new_name_makes_a_new_set_up(self) -> None:
        play = first_round()
        session = play.protocol.session(
            [f"c{i}" for i in range(9)], 4, 100, random=play.random, round=2, memory=play.server_memory
        )
        assert rules_of(session).parameters.epoch == b""

    def test_a_set_up_ends(self) -> None:
        play = Play(SecAgg(setup="reuse", renew=3), 6)
        play.finish()
        assert [len(again(play, r, 6).stages) for r in (2, 3, 4)] == [2, 2, 3]

    def test_in_the_malicious_model_too(self) -> None:
        play = Play(SecAgg(setup="reuse", threat="malicious", credentials=CREDENTIALS), 8)
        play.finish(absent=[1])
        later = again(play, 2)
        assert later.finish(absent=[2]).total.tolist() == later.expected([0, 3, 4, 5, 6, 7])


class TestRepeats:
    def test_a_round_is_not_played_twice(self) -> None:
        play = first_round()
        second = again(play, 2)
        second.finish()
        for number in (1, 2):
            session = replace(second.session, round=number, nonce=b"\1" * 16)
            with pytest.raises(PolicyRefusal, match="used or passed"):
                play.protocol.client(
                    session, 0, play.inputs[0], random=play.random, memory=second.memories[0]
                )
            with pytest.raises(Misuse, match="begun already"):
                play.protocol.server(session, random=play.random, memory=second.server_memory)

    def test_the_memory_moves_on_before_the_vector_leaves(self) -> None:
        play = again(first_round(), 2)
        step = play.clients[0].receive(play.queue[0], play.random)
        assert step.memory is not None
        assert ClientMemory.decode(step.memory).next_round == 3
        assert step.marks[0].startswith("spent/")

    def test_a_rolled_back_client_is_masked_by_a_seed_that_nobody_opens(self) -> None:
        """Its store is restored behind its back: it answers the round again, under the same edges but a
        fresh seed of its own, and no holder opens a second time.
        """
        play = again(first_round(), 2)
        victim, request = play.clients[0], play.queue[0]
        twice = [read(Masked, victim.receive(request, play.random).send[0]) for _ in range(2)]
        assert twice[0].vector != twice[1].vector
        pledges = [dealt(one).pledges for one in twice]
        assert pledges[0][:32] != pledges[1][:32]
        assert pledges[0][32:] == pledges[1][32:]
        play.trip()
        release = play.queue[1]
        play.tell(release)
        with pytest.raises(ProtocolViolation):
            play.tell(release)

    def test_a_client_without_the_set_up_refuses(self) -> None:
        play = first_round()
        later = again(play, 2)
        for memory, why in ((None, "no part"), (b"junk", "not readable")):
            with pytest.raises(PolicyRefusal, match=why):
                play.protocol.client(later.session, 0, play.inputs[0], random=play.random, memory=memory)

    def test_a_memory_of_another_set_up_or_roster_is_refused(self) -> None:
        play, other = first_round(), first_round()
        later = again(play, 2)
        with pytest.raises(PolicyRefusal, match="another set-up"):
            play.protocol.client(
                later.session, 0, play.inputs[0], random=play.random, memory=other.memories[0]
            )
        renamed = replace(later.session, roster=("z", *later.session.roster[1:]))
        with pytest.raises(PolicyRefusal, match="roster or parameters"):
            play.protocol.client(renamed, 1, play.inputs[0], random=play.random, memory=play.memories[1])

    def test_far_ahead_is_refused(self) -> None:
        play = first_round()
        with pytest.raises(PolicyRefusal, match="ahead"):
            play.protocol.client(
                replace(again(play, 2).session, round=1_000_000),
                0,
                play.inputs[0],
                random=play.random,
                memory=play.memories[0],
            )


class TestKeys:
    def test_pair_keys_move_forward_and_nothing_old_stays(self) -> None:
        first = first_round()
        kept = {0: ClientMemory.decode(first.memories[0])}
        play = first
        for number in (2, 3):
            play = again(play, number)
            play.finish()
            kept[number] = ClientMemory.decode(play.memories[0])
        chains = [m.chains[:32] for m in kept.values()] + [m.channels[:32] for m in kept.values()]
        assert len(set(chains)) == len(chains)
        assert kept[0].forward(2).chains == kept[3].chains
        assert not any(old.chains[:32] in play.memories[0] for old in (kept[0], kept[2]))

    def test_private_keys_of_the_set_up_are_kept_nowhere(self) -> None:
        play = Play(protocol(), 6)
        play.trip()
        state = play.clients[0]
        private = (state.keys.seal, state.keys.mask)  # type: ignore[attr-defined]  # Establishing
        play.finish()
        later = play.protocol.encode_state(play.clients[0]) + play.memories[0]
        assert not any(secret in later for secret in private)
        assert not any(public_key(secret) in later for secret in private)

    def test_no_lasting_key_travels_even_sealed(self) -> None:
        """What a client entrusts is shares of seeds that are fresh in every round: no two rounds pledge
        the same.
        """
        pledges = []
        play = first_round()
        for number in (2, 3):
            play = again(play, number)
            play.trip(absent=[4])
            body = next(dealt(read(Masked, a)) for a in play.answers if a.sender.number == 0)
            pledges.extend(body.pledges[at : at + 32] for at in range(0, len(body.pledges), 32))
            play.finish()
        assert len(set(pledges)) == len(pledges)


def test_server_memory_round_trips() -> None:
    kept = first_round().server_memory
    assert kept is not None
    assert ServerMemory.decode(kept).encode() == kept
