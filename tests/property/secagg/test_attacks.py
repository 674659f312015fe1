"""What a cheating server, dealer or holder tries, and what stops it. One attack per test."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from protocols.errors import (
    PeerError,
    PolicyRefusal,
    ProtocolViolation,
    RollbackDetected,
    SecAggError,
    SpentUpdate,
    TooFewSurvivors,
    WireError,
)
from protocols.identity import Identity, Member, Roster, SignedRoster
from protocols.kernel import SERVER, Message, State
from protocols.policy import Policy
from protocols.randomness import SystemRandom
from protocols.runtime import Runtime
from protocols.store import FileStore, MemoryStore
from secagg import Credentials, SecAgg, SecAggPlus
from secagg.commitments import VOTE, signer, vote_bytes
from secagg.errors import DealerBlamed
from secagg.key_agreement import generate, public_key
from secagg.messages import (
    ADVERTISE,
    CONFIRM,
    INPUT,
    REVEAL,
    SHARE,
    UNMASK,
    Advertisement,
    Begin,
    Commitments,
    Dealing,
    Delivery,
    Masked,
    Neighbourhood,
    Opened,
    Reveal,
    Survivors,
    Unmask,
    indices,
    items,
    pack_bits,
    read,
    unpack_bits,
)
from secagg.sealing import OVERHEAD
from tests.property.secagg.play import Play, with_body

BOX = 64 + OVERHEAD
NAMES = [f"c{i}" for i in range(40)]
NOBODY = indices(())


def semi_honest() -> SecAgg:
    return SecAgg(threat="semi-honest", dropout=0.3)


def credentials() -> Credentials:
    return Credentials.simulated(NAMES)


def malicious_sparse() -> SecAggPlus:
    return SecAggPlus(threat="malicious", neighbours=10, collusion=0.0, credentials=credentials())


class TestSurvivorSets:
    """SHARP_EDGES 5: never both secrets of a peer, whatever sets are named."""

    def ask(self, alive: list[int], dropped: list[int], n: int = 6) -> Opened:
        play = Play(semi_honest(), n)
        play.until(UNMASK, absent=())
        answers = play.ask(UNMASK, 0, Unmask(indices(alive), indices(dropped), NOBODY, b""))
        return read(Opened, answers[0])

    def test_honest_sets_are_answered(self) -> None:
        opened = self.ask([1, 2, 3], [4, 5])
        assert opened.alive.tolist() == [1, 2, 3]
        assert opened.dropped.tolist() == [4, 5]

    @pytest.mark.parametrize(
        "alive, dropped, why",
        [
            ([1, 2, 3, 4], [4, 5], "alive and dropped"),
            ([1], [2, 3, 4, 5], "at least"),
            ([], [1, 2, 3, 4, 5], "at least"),
            ([0, 1, 2, 3], [], "knows of"),
            ([1, 2, 3, 6], [], "knows of"),
            ([1, 2, 3], [4, 77], "knows of"),
        ],
    )
    def test_dishonest_sets_are_refused(self, alive: list[int], dropped: list[int], why: str) -> None:
        with pytest.raises(ProtocolViolation, match=why):
            self.ask(alive, dropped)

    @pytest.mark.parametrize("alive", [[2, 1, 3], [1, 1, 2, 3]])
    def test_duplicates_and_disorder_are_not_even_encodable(self, alive: list[int]) -> None:
        good = Unmask(indices([1, 2, 3, 4][: len(alive)]), NOBODY, NOBODY, b"").encode()
        head, size = good[:9], 4 * len(alive)
        bad = head + np.array(alive, "<u4").tobytes() + good[9 + size :]
        with pytest.raises(WireError, match="ascending"):
            Unmask.decode(bad)

    def test_it_is_answered_once(self) -> None:
        play = Play(semi_honest())
        request = play.until(UNMASK)[0]
        play.tell(request)
        with pytest.raises(ProtocolViolation):
            play.tell(request)


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


class TestKeys:
    """SHARP_EDGES 3 and 4: keys are bound to names, and bad ones are refused."""

    def swap(self, protocol: SecAgg | SecAggPlus, change: Callable[[bytes, Play], bytes]) -> PeerError:
        play = Play(protocol, 6)
        request = play.until(SHARE)[0]
        body = read(Neighbourhood, request)
        keys = items(body.keys, len(body.keys) // 5)
        with pytest.raises(PeerError) as caught:
            play.tell(with_body(request, replace(body, keys=change(keys[0], play) + b"".join(keys[1:]))))
        return caught.value

    def test_a_swapped_key_is_noticed_in_the_malicious_model(self) -> None:
        protocol = SecAgg(threat="malicious", credentials=credentials())
        error = self.swap(protocol, lambda k, _: public_key(generate(SystemRandom())) + k[32:])
        assert error.party == "client 1"

    def test_keys_of_another_session_are_refused_in_the_malicious_model(self) -> None:
        protocol = SecAgg(threat="malicious", credentials=credentials())
        other = read(Neighbourhood, Play(protocol, 6).until(SHARE)[0]).keys
        error = self.swap(protocol, lambda k, _: other[: len(k)])
        assert error.party == "client 1"

    @pytest.mark.parametrize("at", [0, 32])
    def test_points_of_small_order_are_refused(self, at: int) -> None:
        error_or_mask = lambda k, _: k[:at] + bytes(32) + k[at + 32 :]  # noqa: E731  # two uses, one line
        if at == 0:
            assert self.swap(semi_honest(), error_or_mask).party == "c1"
            return
        play = Play(semi_honest(), 6)
        play.trip(lambda m: [m])
        requests = {m.recipient.number: m for m in play.queue}
        body = read(Neighbourhood, requests[0])
        keys = items(body.keys, 64)
        play.tell(
            with_body(requests[0], replace(body, keys=error_or_mask(keys[0], play) + b"".join(keys[1:])))
        )
        for i in range(1, 6):
            play.hear(*play.tell(requests[i]))
        play.hear(*[a for a in play.answers if a.sender.number == 0 and a.stage == SHARE])
        with pytest.raises(PeerError, match="not usable"):
            play.tell(next(m for m in play.close() if m.recipient.number == 0))

    def test_a_reflected_key_is_refused(self) -> None:
        def reflect(key: bytes, play: Play) -> bytes:
            own = next(a for a in play.answers if a.sender.number == 0 and a.stage == ADVERTISE)
            return read(Advertisement, own).keys

        assert "reflected" in str(self.swap(semi_honest(), reflect))

    def test_fewer_neighbours_than_the_threshold_are_refused(self) -> None:
        play = Play(semi_honest(), 6)
        request = play.until(SHARE)[0]
        body = read(Neighbourhood, request)
        with pytest.raises(ProtocolViolation, match="at least"):
            play.tell(with_body(request, Neighbourhood(body.clients[:1], body.keys[:64], b"")))


class TestRosters:
    def roster(
        self, authority: Identity, names: list[str], serial: int = 1
    ) -> tuple[SignedRoster, dict[str, Identity]]:
        people = {name: Identity.generate(name) for name in names}
        members = [Member(n, "client", p.public) for n, p in people.items()]
        return SignedRoster.sign(Roster.of("test", serial, members), authority), people

    def refused(self, server: Credentials, own: Credentials) -> PolicyRefusal:
        protocol = SecAgg(threat="malicious", credentials=server)
        session = protocol.session(NAMES[:5], 4, 9, random=SystemRandom())
        with pytest.raises(PolicyRefusal, match="signed_roster") as caught:
            SecAgg(threat="malicious", credentials=own).client(
                session, 0, np.zeros(4, np.int64), random=SystemRandom()
            )
        return caught.value

    def test_a_roster_of_another_authority_is_refused(self) -> None:
        authority, impostor = Identity.generate("authority"), Identity.generate("server")
        real, people = self.roster(authority, NAMES[:5])
        fake, fakes = self.roster(impostor, NAMES[:5])
        self.refused(Credentials(fake, impostor.public, fakes), Credentials(fake, authority.public, people))
        self.refused(Credentials(fake, impostor.public, fakes), Credentials(real, authority.public, people))

    def test_an_old_roster_is_refused(self) -> None:
        authority = Identity.generate("authority")
        old, people = self.roster(authority, NAMES[:5], 1)
        keep = Credentials(old, authority.public, people, least_serial=2)
        assert "older" in str(self.refused(Credentials(old, authority.public, people), keep))

    def test_a_stranger_in_the_cohort_is_refused(self) -> None:
        authority = Identity.generate("authority")
        wide, people = self.roster(authority, NAMES[:5], 2)
        narrow = SignedRoster.sign(Roster("test", 3, wide.roster.members[:4]), authority)
        own = Credentials(narrow, authority.public, people)
        assert "c4" in str(self.refused(Credentials(wide, authority.public, people), own))

    def test_a_client_without_credentials_refuses(self) -> None:
        session = SecAgg(threat="malicious", credentials=credentials()).session(
            NAMES[:5], 4, 9, random=SystemRandom()
        )
        with pytest.raises(PolicyRefusal, match="signed_roster"):
            SecAgg().client(session, 0, np.zeros(4, np.int64), random=SystemRandom())


class TestDowngrades:
    """SHARP_EDGES 6: a server that asks for less is refused by each client."""

    @pytest.mark.parametrize(
        "offered, own, policy, why",
        [
            (SecAgg(threat="semi-honest"), SecAgg(), None, "threat"),
            (
                SecAgg(threat="semi-honest"),
                SecAgg(threat="semi-honest"),
                Policy(threat="semi-malicious", min_threshold_share=0.0),
                "threat",
            ),
            (SecAgg(), SecAgg(), Policy(signed_roster=True), "signed_roster"),
            (SecAgg(), SecAgg(), Policy(min_cohort=11), "cohort"),
            (SecAgg(), SecAgg(), Policy(min_threshold=8), "threshold"),
            (SecAgg(), SecAgg(), Policy(min_ring_bits=12), "ring_bits"),
            (SecAgg(collusion=0.0), SecAgg(collusion=0.3), None, "threshold"),
            (SecAggPlus(neighbours=4, threshold=3, collusion=0.0), SecAgg(collusion=0.0), None, "session of"),
            (
                SecAggPlus(neighbours=4, threshold=3, collusion=0.0),
                SecAggPlus(neighbours=4, threshold=3, collusion=0.0),
                Policy(min_degree=6),
                "degree",
            ),
            (
                SecAggPlus(neighbours=4, threshold=3, collusion=0.0),
                SecAggPlus(neighbours=6, threshold=4, collusion=0.0),
                None,
                "degree",
            ),
            (SecAgg(setup="reuse"), SecAgg(), None, "setup"),
            (SecAgg(), SecAgg(setup="reuse"), None, "setup"),
        ],
    )
    def test_less_than_demanded_is_refused_by_name(
        self, offered: SecAgg, own: SecAgg, policy: Policy | None, why: str
    ) -> None:
        random = SystemRandom()
        session = offered.session(NAMES[:10], 4, 9, random=random)
        with pytest.raises(SecAggError, match=why):
            own.client(session, 0, np.zeros(4, np.int64), random=random, policy=policy)

    def test_a_threshold_of_one_is_no_session(self) -> None:
        with pytest.raises(SecAggError, match="threshold"):
            SecAgg(threshold=1)


class TestRelays:
    """SHARP_EDGES 7: what is sealed for one place opens nowhere else."""

    def deliver(self, change: Callable[[Delivery, dict[int, Delivery]], Delivery]) -> list[int]:
        play = Play(semi_honest(), 6)
        requests = play.until(INPUT)
        bodies = {m.recipient.number: read(Delivery, m) for m in requests}
        answers = play.tell(with_body(requests[0], change(bodies[0], bodies)))
        return read(Masked, answers[0]).complaints.tolist()

    def test_honest_boxes_open(self) -> None:
        assert self.deliver(lambda own, _: own) == []

    def test_boxes_for_another_receiver_do_not_open(self) -> None:
        assert self.deliver(lambda own, all_: replace(own, boxes=all_[1].boxes)) == [1, 2, 3, 4, 5]

    def test_boxes_of_two_senders_exchanged_do_not_open(self) -> None:
        def exchange(own: Delivery, _: dict[int, Delivery]) -> Delivery:
            boxes = items(own.boxes, BOX)
            return replace(own, boxes=b"".join([boxes[1], boxes[0], *boxes[2:]]))

        assert self.deliver(exchange) == [1, 2]

    def test_a_changed_box_and_a_changed_digest_are_noticed(self) -> None:
        flip = lambda data: bytes([data[0] ^ 1]) + data[1:]  # noqa: E731  # one expression, used twice
        assert self.deliver(lambda own, _: replace(own, boxes=flip(own.boxes))) == [1]
        assert self.deliver(lambda own, _: replace(own, digests=flip(own.digests))) == [1]

    def test_boxes_of_another_session_do_not_open(self) -> None:
        other = Play(semi_honest(), 6)
        foreign = read(Delivery, other.until(INPUT)[0])
        assert self.deliver(lambda own, _: replace(own, boxes=foreign.boxes)) == [1, 2, 3, 4, 5]


class TestGraphs:
    """The server cannot choose the graph in the malicious model."""

    def play(self) -> tuple[Play, Message]:
        play = Play(malicious_sparse(), 14)
        return play, play.until(REVEAL)[0]

    def test_a_list_without_the_own_commitment_is_refused(self) -> None:
        play, request = self.play()
        body = read(Commitments, request)
        with pytest.raises(ProtocolViolation, match="own"):
            play.tell(with_body(request, Commitments(body.clients[1:], body.commitments[32:])))
        with pytest.raises(ProtocolViolation, match="own"):
            play.tell(with_body(request, replace(body, commitments=bytes(32) + body.commitments[32:])))

    def test_a_part_that_does_not_match_its_commitment_is_refused(self) -> None:
        play, _ = self.play()
        request = play.trip()[0]
        body = read(Neighbourhood, request)
        for parts in (body.parts[:-32], body.parts[:-32] + bytes(32), b""):
            with pytest.raises(ProtocolViolation):
                play.tell(with_body(request, replace(body, parts=parts)))

    def test_neighbours_of_another_graph_are_refused(self) -> None:
        play, _ = self.play()
        requests = play.trip()
        strange = next(m for m in requests[1:] if m.recipient.number)
        with pytest.raises(PeerError):
            play.tell(with_body(requests[0], read(Neighbourhood, strange)))

    def test_a_withheld_part_ends_the_session_by_name(self) -> None:
        play, _ = self.play()
        with pytest.raises(TooFewSurvivors, match="client 3"):
            play.trip(absent=[3])

    def test_another_part_than_committed_is_refused_by_the_server(self) -> None:
        play, request = self.play()
        answer = play.tell(request)[0]
        with pytest.raises(ProtocolViolation, match="committed"):
            play.hear(with_body(answer, Reveal(bytes(32))))

    def test_a_beacon_fixes_the_graph_whatever_the_server_draws(self) -> None:
        made = [
            SecAggPlus(
                threat="malicious", neighbours=10, collusion=0.0, credentials=CREDENTIALS, beacon=b"x"
            ).session(NAMES[:14], 4, 9, random=SystemRandom())
            for _ in range(2)
        ]
        from secagg.rules import rules_of

        assert made[0].context != made[1].context
        assert rules_of(made[0]).seed == rules_of(made[1]).seed

    @pytest.mark.parametrize("offered, known", [(b"ground", b""), (b"ground", b"x"), (b"", b"x")])
    def test_a_beacon_of_the_servers_own_is_refused(self, offered: bytes, known: bytes) -> None:
        made, own = (
            SecAggPlus(threat="malicious", neighbours=10, collusion=0.0, credentials=CREDENTIALS, beacon=b)
            for b in (offered, known)
        )
        session = made.session(NAMES[:14], 4, 9, random=SystemRandom())
        with pytest.raises(PolicyRefusal, match="beacon"):
            own.client(session, 0, np.zeros(4, np.int64), random=SystemRandom())


CREDENTIALS = credentials()


class TestModels:
    """SHARP_EDGES 4: clients that were shown different models never unmask together."""

    def test_another_model_is_another_session_for_everybody(self) -> None:
        play = Play(semi_honest(), 6)
        seen = replace(play.session, model=b"\7" * 32)
        victim = play.protocol.client(seen, 0, play.inputs[0], random=play.random).state
        with pytest.raises(ProtocolViolation, match="another session, roster or model"):
            victim.receive(play.queue[0], play.random)

    def test_a_relabelled_message_does_not_help(self) -> None:
        """The server plays two sessions and passes boxes of the one off as boxes of the other."""
        play = Play(semi_honest(), 6)
        other = Play(semi_honest(), 6, session=replace(play.session, model=b"\7" * 32))
        request, foreign = play.until(INPUT)[0], other.until(INPUT)[0]
        answers = play.tell(with_body(request, read(Delivery, foreign)))
        assert read(Masked, answers[0]).complaints.tolist() == [1, 2, 3, 4, 5]


class TestSpentUpdates:
    """SHARP_EDGES 11: total, retry without one client, subtract."""

    def enter(self, store: MemoryStore | FileStore, n: int = 5) -> tuple[Play, Runtime]:
        play = Play(semi_honest(), n)
        runtime = Runtime(play.protocol, play.session, store)
        step = play.protocol.client(
            play.session, 0, play.inputs[0], random=play.random, update=b"update of round 1"
        )
        runtime.begin(step)
        return play, runtime

    def drive(self, play: Play, runtime: Runtime, last: str) -> None:
        while True:
            request = play.queue[0]
            answers = runtime.handle(request)
            play.hear(*answers)
            if request.stage == last:
                return
            play.queue = play.queue[1:]
            play.trip()

    def test_a_feigned_abort_does_not_get_the_update_again(self) -> None:
        store = MemoryStore()
        self.drive(*self.enter(store), last=INPUT)
        with pytest.raises(SpentUpdate, match="spent"):
            self.drive(*self.enter(store), last=INPUT)

    def test_an_abort_before_the_masked_vector_costs_nothing(self) -> None:
        store = MemoryStore()
        self.drive(*self.enter(store), last=SHARE)
        self.drive(*self.enter(store), last=UNMASK)
        assert store.marked("spent/" + b"update of round 1".hex())

    def test_a_restored_copy_of_the_store_is_noticed(self, tmp_path: Path) -> None:
        store = FileStore(tmp_path / "state", "c0")
        play, runtime = self.enter(store)
        old = (tmp_path / "state").read_bytes()
        self.drive(play, runtime, last=INPUT)
        (tmp_path / "state").write_bytes(old)
        with pytest.raises(RollbackDetected):
            runtime.handle(play.queue[0])

    def test_an_answer_is_not_given_twice_across_restarts(self, tmp_path: Path) -> None:
        play, runtime = self.enter(FileStore(tmp_path / "state", "c0"))
        self.drive(play, runtime, last=UNMASK)
        again = Runtime(play.protocol, play.session, FileStore(tmp_path / "state", "c0"))
        with pytest.raises(PolicyRefusal, match="over"):
            again.handle(play.queue[0])


class TestBlame:
    def test_a_holder_that_returns_another_share_is_named(self) -> None:
        play = Play(SecAgg(dropout=0.3, collusion=0.0), 7)
        play.until(UNMASK)

        def lie(sent: Message) -> list[Message]:
            if sent.sender.number != 2 or sent.recipient != SERVER:
                return [sent]
            body = read(Opened, sent)
            return [with_body(sent, replace(body, seed_shares=bytes(len(body.seed_shares))))]

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
            play.clients[3] = replace(cheat, mask=generate(play.random))
            play.trip()
        else:
            play.trip(lambda m: [self.repledge(m)])
        with pytest.raises(DealerBlamed, match=what) as caught:
            play.finish(absent=absent)
        assert caught.value.party == "client 3"

    def repledge(self, sent: Message) -> Message:
        if sent.sender.number != 3 or sent.sender == SERVER:
            return sent
        return with_body(sent, replace(read(Dealing, sent), seed_digest=bytes(32)))

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
