"""What a cheating server tries against secrets, keys, boxes, models and spent updates, and what stops it."""

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
)
from protocols.key_agreement import generate, public_key
from protocols.policy import Policy
from protocols.randomness import SystemRandom
from protocols.roles import read
from protocols.runtime import Runtime
from protocols.sealing import OVERHEAD
from protocols.store import FileStore, MemoryStore
from secagg import Credentials, SecAgg, SecAggPlus
from secagg.commitments import KEY, SEED, share_digest
from secagg.messages import (
    ADVERTISE,
    INPUT,
    SHARE,
    UNMASK,
    Advertisement,
    Delivery,
    Masked,
    Neighbourhood,
    Opened,
    Unmask,
    items,
    pack_bits,
)
from tests.property.secagg.play import Play, with_body

BOX = 64 + OVERHEAD
NAMES = [f"c{i}" for i in range(40)]


def semi_honest() -> SecAgg:
    return SecAgg(threat="semi-honest", dropout=0.3)


def credentials() -> Credentials:
    return Credentials.simulated(NAMES)


class TestSurvivorSets:
    """SHARP_EDGES 5: never both secrets of a peer, whatever sets are named."""

    def ask(self, alive: list[int], n: int = 6) -> Opened:
        play = self.play = Play(semi_honest(), n)
        play.until(UNMASK)
        return read(Opened, play.ask(UNMASK, 0, Unmask(pack_bits(alive, 8), None, b""))[0])

    def test_who_is_no_survivor_is_gone(self) -> None:
        opened = self.ask([0, 1, 2, 3])
        assert opened.owners.tolist() == [1, 2, 3, 4, 5]
        for owner, share in zip(opened.owners.tolist(), items(opened.shares, 32), strict=True):
            pledge, gone = self.play.server.facts.pledges[owner], owner > 3  # type: ignore[attr-defined]  # the last
            digest = share_digest(self.play.session.context, owner, 0, KEY if gone else SEED, share)
            assert digest == pledge.digest(0, int(gone))

    @pytest.mark.parametrize(
        "alive, why", [([0, 1], "at least"), ([], "at least|do not have"), ([1, 2, 3, 4], "do not have"),
                       ([0, 1, 2, 3, 6], "bits beyond")]
    )  # fmt: skip
    def test_dishonest_sets_are_refused(self, alive: list[int], why: str) -> None:
        with pytest.raises(PeerError, match=why) as caught:
            self.ask(alive)
        assert caught.value.party == "server"

    def test_survivors_who_never_dealt_are_refused(self) -> None:
        play = Play(semi_honest(), 6)
        play.until(SHARE)
        play.trip(absent=[5])
        play.until(UNMASK)
        with pytest.raises(ProtocolViolation, match="never dealt"):
            play.ask(UNMASK, 0, Unmask(pack_bits(range(6), 6), None, b""))

    def test_it_is_answered_once(self) -> None:
        play = Play(semi_honest())
        request = play.until(UNMASK)[0]
        play.tell(request)
        with pytest.raises(ProtocolViolation):
            play.tell(request)


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
            play.tell(with_body(request, replace(body, clients=body.clients[:1], keys=body.keys[:64])))


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
