"""Reused keys against views that differ, old messages and shares that were changed."""

from dataclasses import replace

import pytest

from protocols.errors import PeerError, ProtocolViolation
from protocols.kernel import SERVER, Message
from protocols.policy import Policy
from protocols.randomness import SystemRandom
from protocols.roles import read
from secagg import SecAgg
from secagg.errors import DealerBlamed
from secagg.messages import (
    INPUT,
    Masked,
    Opened,
    Proceed,
    Unmask,
    indices,
)
from secagg.session_rules import rules_of
from tests.property.secagg.play import Play, with_body
from tests.property.secagg.reusing import again, dealt, first_round, protocol, shown


class TestViews:
    def release(self, n: int = 8) -> Play:
        play = again(first_round(n), 2, n)
        play.trip()
        return play

    @pytest.mark.parametrize("alive", [[1, 2, 3, 4, 5, 6, 7], [0, 1, 2], [0]])
    def test_views_that_are_too_small_or_without_oneself_are_refused(self, alive: list[int]) -> None:
        play = self.release()
        with pytest.raises(ProtocolViolation):
            play.tell(shown(play.queue[0], alive))

    def test_a_view_opens_seeds_of_the_living_and_edges_to_the_gone_only(self) -> None:
        play = self.release()
        released = read(Opened, play.tell(shown(play.queue[0], [0, 1, 2, 3, 4, 5, 7]))[0])
        assert released.owners.tolist() == [1, 2, 3, 4, 5, 7]
        assert len(released.shares) == 6 * (32 + 16)

    def test_a_box_of_somebody_said_to_be_gone_is_refused(self) -> None:
        play = self.release()
        told = shown(play.queue[0], [0, 1, 2, 3, 4, 5, 7])
        boxes = read(Unmask, play.queue[0]).boxes
        with pytest.raises(ProtocolViolation, match="no survivor"):
            play.tell(with_body(told, replace(read(Unmask, told), boxes=boxes)))

    def test_split_views_open_one_label_of_each_client_at_most(self) -> None:
        """Half of the holders is told that client 7 lives, the other half that it is gone."""
        play = self.release()
        rules = rules_of(play.session)
        seeds, edges = 0, 0
        for request in play.queue:
            m = request.recipient.number
            lives = m == 7 or m % 2 == 0
            answer = read(Opened, play.tell(shown(request, list(range(8 if lives else 7))))[0])
            seeds += 7 in answer.owners
            edges += not lives
            assert len(answer.shares) == len(answer.owners) * (32 if lives else 48)
        assert min(seeds, edges) + rules.parameters.corrupt < rules.threshold

    def test_holders_count_with_what_others_may_have_been_shown(self) -> None:
        """Eight clients, one gone in each view: of seven that must be in the sum only six are sure, so
        nobody opens.
        """
        chosen = SecAgg(setup="reuse", dropout=0.1, collusion=0.1)
        session = chosen.session([f"c{i}" for i in range(8)], 4, 100, random=SystemRandom(), min_survivors=6)
        assert (rules_of(session).shown, rules_of(session).survivors) == (7, 7)
        play = Play(chosen, 8, session=session)
        play.trip()
        play.trip()
        with pytest.raises(ProtocolViolation, match="expected at least 7"):
            play.tell(shown(play.queue[0], range(6)))

    def test_a_policy_of_least_survivors_counts_mixed_views_too(self) -> None:
        """What a server writes into the parameters is not what is sure to be in the sum."""
        chosen = protocol()
        session = chosen.session([f"c{i}" for i in range(8)], 4, 100, random=SystemRandom())
        rules = rules_of(session)
        assert rules.parameters.survivors > rules.survivors
        for least in (rules.survivors, rules.survivors + 1):
            policy = Policy(min_threshold_share=0.0, min_survivors=least)
            play = Play(chosen, 8, session=session, policy=policy)
            assert bool(play.refused) == (least > rules.survivors)
        more = chosen.session(
            session.roster, 4, 100, random=SystemRandom(), min_survivors=rules.survivors + 1
        )
        assert not Play(chosen, 8, session=more, policy=policy).refused

    @pytest.mark.parametrize("fake", ["missing", "another client's", "of another list"])
    def test_a_survivor_that_did_not_sign_whom_it_masked_with_is_not_opened(self, fake: str) -> None:
        play = self.release()
        body = read(Unmask, play.queue[0])
        one = {
            "missing": b"",
            "another client's": body.inputs[64:128],
            "of another list": read(Unmask, self.release().queue[0]).inputs[:64],
        }[fake]
        with pytest.raises(PeerError):
            play.tell(with_body(play.queue[0], replace(body, inputs=one + body.inputs[64:])))

    def test_boxes_of_another_round_do_not_open(self) -> None:
        play = self.release()
        old = read(Unmask, play.queue[0])
        later = again(play, 3)
        later.trip()
        request = later.queue[0]
        stale = replace(read(Unmask, request), boxes=old.boxes)
        released = read(Opened, later.tell(with_body(request, stale))[0])
        assert len(released.owners) == 0

    def test_new_keys_in_a_later_round_are_refused(self) -> None:
        play = again(first_round(), 2)
        with pytest.raises(ProtocolViolation, match="new keys"):
            play.ask(INPUT, 0, Proceed(b"", indices([1]), bytes(96)))

    def test_another_model_gives_no_common_round(self) -> None:
        play = again(first_round(), 2)
        other = replace(play.session, model=b"\1" * 32)
        state = play.protocol.client(
            other, 0, play.inputs[0], random=play.random, memory=play.memories[0]
        ).state
        with pytest.raises(PeerError):
            state.receive(play.queue[0], play.random)


class TestBlame:
    def play(self) -> Play:
        return again(first_round(), 2)

    def test_a_holder_that_returns_another_share_is_named_beside_each_dealer(self) -> None:
        play = self.play()
        play.trip(absent=[7])

        def lie(sent: Message) -> list[Message]:
            if sent.recipient != SERVER or sent.sender.number != 2:
                return [sent]
            body = read(Opened, sent)
            return [with_body(sent, replace(body, shares=bytes(len(body.shares))))]

        play.trip(lie)
        total = play.finish()
        owners = [0, 1, 3, 4, 5, 6]
        assert [one.split(" (")[0] for one in total.blamed] == [f"client {j} or client 2" for j in owners]
        assert total.total.tolist() == play.expected(range(7))

    def test_a_deposit_that_was_changed_is_refused(self) -> None:
        play = self.play()
        answer = play.tell(play.queue[0])[0]
        body = read(Masked, answer)
        dealing = dealt(body)
        for bad in (
            replace(body, dealing=replace(dealing, pledges=bytes(len(dealing.pledges)))),
            replace(
                body,
                dealing=replace(dealing, pledges=dealing.pledges[32:], digests=dealing.digests[: 7 * 7 * 16]),
            ),
            replace(body, vector=bytes(len(body.vector))),
            replace(body, signature=bytes(64)),
            replace(body, signature=b""),
            replace(body, dealing=replace(dealing, signature=bytes(64))),
            replace(body, dealing=replace(dealing, signature=b"")),
            replace(body, dealing=None),
            replace(body, complaints=indices([1])),
        ):
            with pytest.raises(PeerError) as caught:
                play.hear(with_body(answer, bad))
            assert caught.value.party == "client 0"

    def test_a_dealer_whose_shares_give_something_else_is_named(self) -> None:
        chosen = SecAgg(setup="reuse", threat="semi-honest", dropout=0.25)
        play = Play(chosen, 8)
        play.trip()

        def repledge(sent: Message) -> list[Message]:
            if sent.recipient != SERVER or sent.sender.number != 3:
                return [sent]
            body = read(Masked, sent)
            dealing = dealt(body)
            pledged = replace(dealing, pledges=bytes(32) + dealing.pledges[32:])
            return [with_body(sent, replace(body, dealing=pledged))]

        play.trip(repledge)
        with pytest.raises(DealerBlamed) as caught:
            play.finish()
        assert caught.value.party == "client 3"
