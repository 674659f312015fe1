"""Survivor sets and views of a server that tells different clients different stories, and orders of
messages.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from protocols.agreement import Vote, agreed, cast, certify
from protocols.errors import PeerError, ProtocolViolation, WireError
from protocols.kernel import State
from protocols.key_agreement import generate
from protocols.randomness import SystemRandom
from protocols.roles import Ask, read
from secagg import SecAgg
from secagg.commitments import signer, view_facts
from secagg.messages import (
    CONFIRM,
    DIGEST_BYTES,
    INPUT,
    SHARE,
    UNMASK,
    Dealing,
    Delivery,
    Masked,
    Neighbourhood,
    Opened,
    Survivors,
    Unmask,
    pack_bits,
    unpack_bits,
)
from secagg.session_rules import rules_of
from tests.property.secagg.play import Play, with_body


def semi_honest() -> SecAgg:
    return SecAgg(threat="semi-honest", dropout=0.3)


class TestTwoViews:
    """A server that tells different clients different stories about who survived, on the complete graph."""

    def play(self, n: int = 8) -> Play:
        play = Play(SecAgg(threat="semi-malicious", dropout=0.2, collusion=0.1), n)
        play.until(CONFIRM)
        return play

    def test_no_view_gathers_a_quorum_when_it_is_split(self) -> None:
        play = self.play()
        views = [pack_bits(range(7), 8), pack_bits(range(8), 8)]
        votes: dict[int, bytes] = {}
        for i in range(7):
            for answer in play.ask(CONFIRM, i, Survivors(views[i % 2])):
                votes[i] = read(Vote, answer).signature
        quorum = rules_of(play.session).parameters.quorum
        for i in range(7):
            same = certify({j: vote for j, vote in votes.items() if j % 2 == i % 2}, 3)
            mixed = certify(votes, quorum)
            for certificate in (same, mixed):
                with pytest.raises(PeerError):
                    play.ask(UNMASK, i, Unmask(views[i % 2], certificate, bytes(64 * 3)))

    def test_each_client_signs_one_view(self) -> None:
        play = self.play()
        play.ask(CONFIRM, 0, Survivors(pack_bits(range(8), 8)))
        with pytest.raises(ProtocolViolation):
            play.ask(CONFIRM, 0, Survivors(pack_bits(range(7), 8)))

    def test_the_mark_of_a_vote_is_the_sessions(self) -> None:
        """A client that was restored from before its vote does not sign again."""
        play = self.play()
        request = play.queue[0]
        marks = [play.clients[0].receive(with_body(request, Survivors(pack_bits(range(n), 8))), play.random).marks
                 for n in (7, 8)]  # fmt: skip
        assert marks[0] == marks[1] == (f"voted/{play.session.context.hex()}",)

    @pytest.mark.parametrize("named", [[1, 2, 3, 4, 5, 6, 7], [0, 1, 2], [0]])
    def test_views_without_oneself_or_too_small_are_refused(self, named: list[int]) -> None:
        with pytest.raises(ProtocolViolation):
            self.play().ask(CONFIRM, 0, Survivors(pack_bits(named, 8)))

    @pytest.mark.parametrize("named", [range(8), [0, 1, 2, 3, 4, 5, 7]])
    def test_survivors_that_never_dealt_are_refused(self, named: Sequence[int]) -> None:
        """However many they are: seven dealt."""
        play = Play(SecAgg(threat="semi-malicious"), 8)
        play.trip()
        play.trip(absent=[7])
        play.until(CONFIRM)
        with pytest.raises(ProtocolViolation, match="never dealt"):
            play.ask(CONFIRM, 0, Survivors(pack_bits(named, 8)))

    def test_a_dealer_whose_keys_were_kept_back_is_refused(self) -> None:
        """Six neighbours are left, which is enough: but no mask would be shared with the seventh."""
        play = Play(SecAgg(threat="semi-malicious", dropout=0.3, collusion=0.0), 8)
        request = play.until(SHARE)[0]
        around = read(Neighbourhood, request)
        less = replace(around, clients=around.clients[:-1], keys=around.keys[: len(around.keys) // 7 * 6])
        dealt = read(Dealing, play.tell(with_body(request, less))[0])
        assert len(dealt.holders) == 6 >= rules_of(play.session).threshold
        everybody = Delivery(pack_bits(range(8), 8), dealt.boxes, bytes(2 * DIGEST_BYTES * 6))
        with pytest.raises(ProtocolViolation, match="keys this client was not given"):
            play.ask(INPUT, 0, everybody)

    @pytest.mark.parametrize("dealers", [range(8), range(7)])
    def test_votes_of_clients_that_masked_with_other_dealers_do_not_count(
        self, dealers: Sequence[int]
    ) -> None:
        """They name the same survivors, but each signs the dealers that it masked with besides."""
        play = self.play()
        voters: dict[int, Any] = dict(play.clients)
        request = play.until(UNMASK)[0]
        body, rules = read(Unmask, request), rules_of(play.session)
        shown = {i: replace(state.shown, dealers=pack_bits(dealers, 8)) for i, state in voters.items()}
        votes = {
            i: shown[i].vote(play.session, body.survivors, voters[i].sign).signature for i in range(1, 8)
        }
        voted = certify(votes, rules.parameters.quorum)
        said = {m.sender.number: read(Masked, m).signature for m in play.answers if m.stage == INPUT}
        inputs = b"".join(said[i] for i in range(1, 8) if i not in voted.signers)
        asked = with_body(request, replace(body, certificate=voted, inputs=inputs))
        if len(dealers) == 8:
            assert play.tell(asked)
        else:
            with pytest.raises(PeerError, match="another statement"):
                play.tell(asked)

    def test_survivors_without_a_certificate_are_refused(self) -> None:
        play = self.play()
        request = play.until(UNMASK)[0]
        with pytest.raises(ProtocolViolation, match="nobody signed"):
            play.tell(with_body(request, replace(read(Unmask, request), certificate=None)))

    def test_a_client_that_did_not_vote_opens_to_the_quorum_of_others(self) -> None:
        play = self.play()
        play.trip(absent=[0])
        answers = play.tell(play.queue[0])
        assert read(Opened, answers[0]).owners.tolist() == [1, 2, 3, 4, 5, 6, 7]
        with pytest.raises(ProtocolViolation):
            play.ask(CONFIRM, 0, Survivors(pack_bits(range(8), 8)))

    @pytest.mark.parametrize("what", ["forged", "own key", "other purpose", "other session"])
    def test_signatures_that_are_none_are_refused(self, what: str) -> None:
        play = self.play()
        request = play.until(UNMASK)[0]
        body = read(Unmask, request)
        assert body.certificate is not None
        facts = view_facts(rules_of(play.session).seed, pack_bits(range(8), 8), body.survivors)
        other = read(Unmask, self.play().until(UNMASK)[0]).certificate
        assert other is not None
        stranger = signer(generate(SystemRandom()))
        fake = {
            "forged": bytes(64),
            "own key": cast(stranger, play.session.context, facts).signature,
            "other purpose": stranger.sign("x", agreed(play.session.context, facts)),
            "other session": other.signatures[:64],
        }[what]
        bent = replace(body.certificate, signatures=fake + body.certificate.signatures[64:])
        with pytest.raises(PeerError):
            play.tell(with_body(request, replace(body, certificate=bent)))

    @pytest.mark.parametrize("more", [-1, 1])
    def test_signed_inputs_are_as_many_as_survivors_who_did_not_vote(self, more: int) -> None:
        play = self.play()
        request = play.until(UNMASK)[0]
        body = read(Unmask, request)
        bent = body.inputs[: 64 * more] if more < 0 else body.inputs + body.inputs[-64:]
        with pytest.raises(ProtocolViolation, match="expected the signed inputs of"):
            play.tell(with_body(request, replace(body, inputs=bent)))

    def test_an_input_signed_for_other_dealers_does_not_count(self) -> None:
        play = self.play()
        request = play.until(UNMASK)[0]
        body, state = read(Unmask, request), play.clients[7]
        shown = getattr(state, "shown")  # noqa: B009  # the last state's
        assert shown.dealers == pack_bits(range(8), 8)
        strange = replace(shown, dealers=pack_bits(range(7), 8)).sign_input(play.session, 7, bytes(32))
        with pytest.raises(PeerError, match="client 7"):
            play.tell(with_body(request, replace(body, inputs=body.inputs[:-64] + strange)))


class TestOrder:
    @pytest.mark.parametrize("stage", [SHARE, INPUT, CONFIRM, UNMASK])
    def test_a_request_of_another_stage_is_refused_at_every_state(self, stage: str) -> None:
        play = Play(SecAgg(threat="semi-malicious"), 6)
        early = {name: Ask() for name in play.stages}
        play.until(stage)
        for name in play.stages:
            if (stage, name) == (CONFIRM, UNMASK):  # others' votes may do: the body is refused, not the stage
                with pytest.raises(WireError):
                    play.ask(name, 0, early[name])
            elif name != stage:
                with pytest.raises(ProtocolViolation, match="expected stage"):
                    play.ask(name, 0, early[name])

    def test_messages_of_another_session_sender_or_recipient_are_refused(self) -> None:
        play, other = Play(semi_honest(), 6), Play(semi_honest(), 6)
        mine, foreign = play.queue[0], other.queue[0]
        wrong = [
            foreign,
            replace(mine, sender_role="client"),
            replace(mine, recipient_index=1),
            replace(mine, recipient_role="server"),
        ]
        state: State = play.clients[0]
        for sent in wrong:
            with pytest.raises(ProtocolViolation):
                state.receive(sent, play.random)

    def test_bits_beyond_the_roster_are_refused(self) -> None:
        with pytest.raises(WireError):
            unpack_bits(b"\xff", 6)
