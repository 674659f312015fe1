"""Who cheats by shares is named; the others go on where they can."""

from dataclasses import replace

import pytest

from protocols.errors import (
    PeerError,
    ProtocolViolation,
    TooFewSurvivors,
)
from protocols.kernel import SERVER, Message
from protocols.key_agreement import generate
from protocols.roles import read
from protocols.sealing import OVERHEAD
from secagg import SecAgg
from secagg.commitments import SEED, share_digest
from secagg.errors import DealerBlamed
from secagg.messages import (
    ADVERTISE,
    INPUT,
    SHARE,
    UNMASK,
    Advertisement,
    Dealing,
    Delivery,
    Masked,
    Opened,
    indices,
)
from tests.property.secagg.play import Play, with_body

BOX = 64 + OVERHEAD


def semi_honest() -> SecAgg:
    return SecAgg(threat="semi-honest", dropout=0.3)


class TestBlame:
    def test_a_holder_that_returns_another_share_is_named(self) -> None:
        play = Play(SecAgg(dropout=0.3, collusion=0.0), 7)
        play.until(UNMASK)

        def lie(sent: Message) -> list[Message]:
            if sent.sender.number != 2 or sent.recipient != SERVER:
                return [sent]
            body = read(Opened, sent)
            return [with_body(sent, replace(body, shares=bytes(len(body.shares))))]

        play.trip(lie)
        total = play.finish()
        assert total.blamed == ("client 2",)
        assert total.total.tolist() == play.expected(range(7))

    @pytest.mark.parametrize("what, absent", [("self-mask seed", []), ("mask key", [3])])
    def test_a_dealer_whose_shares_give_something_else_is_named(self, what: str, absent: list[int]) -> None:
        """The dealer swaps its secrets before it deals; every digest and signature is then honestly made."""
        play = Play(semi_honest(), 6)
        play.until(SHARE)
        cheat = play.clients[3]
        if what == "mask key":
            play.clients[3] = replace(cheat, keys=replace(cheat.keys, mask=generate(play.random)))
            play.trip()
        else:
            play.trip(lambda m: [self.repledge(m)])
        with pytest.raises(DealerBlamed, match=what) as caught:
            play.finish(absent=absent)
        assert caught.value.party == "client 3"

    def repledge(self, sent: Message) -> Message:
        if sent.sender.number != 3 or sent.sender == SERVER:
            return sent
        return with_body(sent, replace(read(Dealing, sent), pledges=bytes(32)))

    def test_a_box_that_does_not_open_is_reported_with_both_names(self) -> None:
        play = Play(semi_honest(), 6)
        play.until(INPUT)

        def spoil(sent: Message) -> list[Message]:
            if sent.recipient.number != 1 or sent.recipient == SERVER:
                return [sent]
            body = read(Delivery, sent)
            return [with_body(sent, replace(body, boxes=bytes(BOX) + body.boxes[BOX:]))]

        play.trip(spoil)
        total = play.finish()
        assert total.blamed == ("client 0 or client 1 (a share from the one to the other did not open)",)
        assert total.total.tolist() == play.expected(range(6))

    def test_a_share_that_a_holder_leaves_out_is_its_own_fault(self) -> None:
        play = Play(SecAgg(dropout=0.3, collusion=0.0), 7)
        play.until(UNMASK)
        play.trip(lambda m: [with_body(m, Opened(indices([]), b""))] if m.sender.number == 2 else [m])
        assert play.finish().blamed == ("client 2",)

    def test_a_dealer_that_pledges_nothing_gets_nothing_taken_for_a_share(self) -> None:
        play = Play(semi_honest(), 6)
        play.until(SHARE)

        def pledge(sent: Message) -> list[Message]:
            if sent.sender.number != 3 or sent.recipient != SERVER:
                return [sent]
            body = read(Dealing, sent)
            nothing = share_digest(sent.session, 3, 0, SEED, b"")
            return [with_body(sent, replace(body, digests=nothing + body.digests[16:]))]

        play.trip(pledge)
        total = play.finish()
        assert total.blamed == ("client 3 or client 0 (a share from the one to the other did not open)",)
        assert total.total.tolist() == play.expected(range(6))

    @pytest.mark.parametrize("lie", ["digests", "boxes"])
    def test_with_reused_keys_dealer_and_holder_are_both_named(self, lie: str) -> None:
        """The holder meets its box after the vectors left, and no digest: either of the two may be at fault."""
        play = Play(SecAgg(dropout=0.3, collusion=0.0, setup="reuse", threat="semi-honest"), 7)

        def deal(sent: Message) -> list[Message]:
            if sent.sender.number != 3 or sent.stage != INPUT:
                return [sent]
            body = read(Masked, sent)
            told = getattr(body.dealing, lie)
            spoilt = bytes(len(told) // 6) + told[len(told) // 6 :]
            return [with_body(sent, replace(body, dealing=replace(body.dealing, **{lie: spoilt})))]

        play.until(INPUT)
        play.trip(deal)
        total = play.finish()
        assert [one.split(" (")[0] for one in total.blamed] == ["client 3 or client 0"]
        assert total.total.tolist() == play.expected(range(7))

    def test_an_end_for_want_of_good_shares_says_whose_were_bad(self) -> None:
        play = Play(SecAgg(dropout=0.3, collusion=0.0), 7)
        play.until(UNMASK)
        with pytest.raises(TooFewSurvivors, match="good ones came; client 2; client 3"):
            play.trip(lambda m: [with_body(m, Opened(indices([]), b""))] if m.sender.number > 1 else [m])

    def test_a_false_complaint_about_nobody_is_refused(self) -> None:
        play = Play(semi_honest(), 6)
        answer = play.tell(play.until(INPUT)[0])[0]
        with pytest.raises(ProtocolViolation, match="complains"):
            play.hear(with_body(answer, replace(read(Masked, answer), complaints=indices([0]))))

    def test_a_dealing_under_another_signature_is_refused(self) -> None:
        play = Play(SecAgg(threat="semi-malicious"), 6)
        answer = play.tell(play.until(SHARE)[0])[0]
        for bad in (bytes(64), b""):
            with pytest.raises(PeerError) as caught:
                play.hear(with_body(answer, replace(read(Dealing, answer), signature=bad)))
            assert caught.value.party == "client 0"


class TestFaultyKeys:
    """A client whose keys nobody can use is refused at once, by name; its neighbours go on without it."""

    @pytest.mark.parametrize("at", [0, 32])
    def test_points_of_small_order_cost_their_sender_alone(self, at: int) -> None:
        play = Play(SecAgg(dropout=0.3, collusion=0.0), 7)

        def small(sent: Message) -> list[Message]:
            if sent.sender.number != 3 or sent.recipient != SERVER or sent.stage != ADVERTISE:
                return [sent]
            keys = read(Advertisement, sent).keys
            bad = with_body(sent, Advertisement(keys[:at] + bytes(32) + keys[at + 32 :]))
            with pytest.raises(ProtocolViolation, match="nobody can share") as caught:
                play.hear(bad)
            assert caught.value.party == "client 3"
            return []

        play.trip(small)
        total = play.finish(absent=[3])
        assert total.survivors == (0, 1, 2, 4, 5, 6)
        assert total.total.tolist() == play.expected(total.survivors)

    def test_keys_that_another_client_advertised_cost_their_sender_alone(self) -> None:
        play = Play(SecAgg(dropout=0.3, collusion=0.0), 7)
        first = play.tell(play.queue[0])[0]
        play.hear(first)
        copied = with_body(play.tell(play.queue[1])[0], read(Advertisement, first))
        with pytest.raises(ProtocolViolation, match="another client") as caught:
            play.hear(copied)
        assert caught.value.party == "client 1"
