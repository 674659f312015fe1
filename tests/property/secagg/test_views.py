"""Survivor sets and views of a server that tells different clients different stories, and orders of
messages.
"""

from dataclasses import replace

import pytest

from protocols.errors import (
    PeerError,
    ProtocolViolation,
    SecAggError,
    WireError,
)
from protocols.kernel import State
from protocols.randomness import SystemRandom
from secagg import SecAgg
from secagg.commitments import VOTE, signer, vote_bytes
from secagg.key_agreement import generate
from secagg.messages import (
    CONFIRM,
    INPUT,
    SHARE,
    UNMASK,
    Begin,
    Survivors,
    Unmask,
    indices,
    pack_bits,
    read,
    unpack_bits,
)
from tests.property.secagg.play import Play, with_body

NOBODY = indices(())


def semi_honest() -> SecAgg:
    return SecAgg(threat="semi-honest", dropout=0.3)


class TestTwoViews:
    """A server that tells different clients different stories about who survived."""

    def play(self, n: int = 8) -> Play:
        play = Play(SecAgg(threat="semi-malicious", dropout=0.2, collusion=0.1), n)
        play.until(CONFIRM)
        return play

    def test_no_view_gathers_a_threshold_when_it_is_split(self) -> None:
        play = self.play()
        everyone, without = pack_bits(range(8), 8), pack_bits(range(7), 8)
        votes: dict[int, bytes] = {}
        for i in range(8):
            answers = play.ask(CONFIRM, i, Survivors(everyone if i % 2 else without)) if i != 7 else []
            for answer in answers:
                votes[i] = answer.body[4:]
        for i in range(7):
            signers = [j for j in votes if j != i]
            with pytest.raises(PeerError):
                play.ask(
                    UNMASK, i, Unmask(NOBODY, NOBODY, indices(signers), b"".join(votes[j] for j in signers))
                )
            same = [j for j in signers if j % 2 == i % 2]
            with pytest.raises(ProtocolViolation, match="signatures"):
                play.ask(UNMASK, i, Unmask(NOBODY, NOBODY, indices(same), b"".join(votes[j] for j in same)))

    def test_each_client_signs_one_view(self) -> None:
        play = self.play()
        play.ask(CONFIRM, 0, Survivors(pack_bits(range(8), 8)))
        with pytest.raises(ProtocolViolation):
            play.ask(CONFIRM, 0, Survivors(pack_bits(range(7), 8)))

    @pytest.mark.parametrize("named", [[1, 2, 3, 4, 5, 6, 7], [0, 1, 2], [0]])
    def test_views_without_oneself_or_too_small_are_refused(self, named: list[int]) -> None:
        with pytest.raises(ProtocolViolation):
            self.play().ask(CONFIRM, 0, Survivors(pack_bits(named, 8)))

    def test_survivors_that_never_dealt_are_refused(self) -> None:
        play = Play(SecAgg(threat="semi-malicious"), 8)
        play.trip()
        play.trip(absent=[7])
        play.until(CONFIRM)
        with pytest.raises(ProtocolViolation, match="never dealt"):
            play.ask(CONFIRM, 0, Survivors(pack_bits(range(8), 8)))

    def test_sets_beside_the_signed_ones_are_refused(self) -> None:
        play = self.play()
        request = play.until(UNMASK)[0]
        body = read(Unmask, request)
        with pytest.raises(ProtocolViolation, match="beside"):
            play.tell(with_body(request, replace(body, alive=indices([1]))))

    @pytest.mark.parametrize("what", ["forged", "own key", "other purpose", "other session"])
    def test_signatures_that_are_none_are_refused(self, what: str) -> None:
        play = self.play()
        request = play.until(UNMASK)[0]
        body = read(Unmask, request)
        signed = vote_bytes(play.session.context, b"", b"")
        fake = {
            "forged": bytes(64),
            "own key": signer(generate(SystemRandom())).sign(VOTE, signed),
            "other purpose": signer(generate(SystemRandom())).sign("x", signed),
            "other session": read(Unmask, self.play().until(UNMASK)[0]).signatures[:64],
        }[what]
        with pytest.raises(PeerError):
            play.tell(with_body(request, replace(body, signatures=fake + body.signatures[64:])))

    def test_one_signature_does_not_count_twice(self) -> None:
        play = self.play()
        body = read(Unmask, play.until(UNMASK)[0])
        repeated = indices([body.signers[0]] * len(body.signers))
        with pytest.raises(SecAggError, match="ascending"):
            replace(body, signers=repeated)


class TestOrder:
    @pytest.mark.parametrize("stage", [SHARE, INPUT, CONFIRM, UNMASK])
    def test_a_request_of_another_stage_is_refused_at_every_state(self, stage: str) -> None:
        play = Play(SecAgg(threat="semi-malicious"), 6)
        early = {name: Begin() for name in play.stages}
        play.until(stage)
        for name in play.stages:
            if name != stage:
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
