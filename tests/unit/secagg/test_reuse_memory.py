"""What is kept between rounds of one set-up: which rounds it serves, and what its digests are made over."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from protocols.errors import PolicyRefusal
from protocols.randomness import SystemRandom
from protocols.session import Session
from secagg import SecAgg
from secagg.messages import indices
from secagg.reuse.kept import Kept
from secagg.reuse.memory import (
    FIRST_PATIENCE,
    MOST_SKIPPED,
    ClientMemory,
    ServerMemory,
    ratchet,
    roster_digest,
)
from secagg.reuse.messages import Deposit
from secagg.reuse.pledges import deposit_bytes, edge_digest, edge_kind

SESSION = SecAgg(setup="reuse").session(["ann", "bob", "cy", "di"], 1, 1, random=SystemRandom())
EPOCH = b"e" * 32
CONTEXT = bytes(range(32))
TWO, NINE = b"\0\0\0\2", b"\0\0\0\x09"


def at(round: int, **changes: object) -> Session:
    return replace(SESSION, round=round, **changes)  # type: ignore[arg-type]  # the test's own


def server(**changes: object) -> ServerMemory:
    known = ServerMemory(EPOCH, roster_digest(SESSION), SESSION.parameters, 5, 7, {}, indices(range(4)), 8)
    return replace(known, **changes)  # type: ignore[arg-type]  # the test's own


class TestServer:
    @pytest.mark.parametrize("round, serves", [(5, False), (7, False), (8, True), (24, True), (25, False)])
    def test_it_serves_later_rounds_until_it_is_renewed(self, round: int, serves: bool) -> None:
        assert server().serves(at(round), renew=20) is serves

    @pytest.mark.parametrize("round, serves", [(8, True), (12, True), (13, False)])
    def test_where_somebody_is_missing_it_lasts_as_long_as_the_patience(
        self, round: int, serves: bool
    ) -> None:
        assert server(established=indices([0, 1, 3])).serves(at(round), renew=20) is serves
        assert server(established=indices([0, 1, 3]), patience=99).serves(at(12), renew=8)
        assert not server(established=indices([0, 1, 3]), patience=99).serves(at(13), renew=8)

    def test_another_roster_or_other_parameters_need_a_new_set_up(self) -> None:
        other = SecAgg(setup="reuse").session(["ann", "bob", "cy", "ed"], 1, 1, random=SystemRandom())
        assert not server().serves(replace(other, round=8), renew=20)
        assert not server().serves(at(8, parameters=SESSION.parameters + b"x"), renew=20)
        assert not server(roster=bytes(32)).serves(at(8), renew=20)

    def test_patience_doubles_while_somebody_of_the_same_roster_is_missing(self) -> None:
        missing = indices([0, 1, 3])
        assert server(established=missing).next_patience(SESSION) == 16
        assert server(established=missing, patience=1 << 19).next_patience(SESSION) == 1 << 20
        assert server(established=missing, patience=1 << 20).next_patience(SESSION) == 1 << 20
        assert server().next_patience(SESSION) == FIRST_PATIENCE
        assert server(established=missing, roster=bytes(32)).next_patience(SESSION) == FIRST_PATIENCE


class TestClient:
    MEMORY = ClientMemory(
        EPOCH,
        roster_digest(SESSION),
        7,
        indices([1, 2]),
        b"a" * 32 + b"b" * 32,
        indices([3]),
        b"c" * 32,
        b"s" * 32,
    )

    def test_keys_move_on_with_the_rounds(self) -> None:
        assert self.MEMORY.at(at(7), EPOCH) is self.MEMORY
        later = self.MEMORY.at(at(9), EPOCH)
        assert later.next_round == 9
        assert later.chains == ratchet(b"a" * 32, 2) + ratchet(b"b" * 32, 2)
        assert later.channels == ratchet(b"c" * 32, 2)

    @pytest.mark.parametrize(
        "round, epoch, why",
        [(6, EPOCH, "used or passed"), (7, bytes(32), "another set-up"), (1, EPOCH, "passed")],
    )
    def test_past_rounds_and_other_set_ups_are_refused(self, round: int, epoch: bytes, why: str) -> None:
        with pytest.raises(PolicyRefusal, match=why):
            self.MEMORY.at(at(round), epoch)
        with pytest.raises(PolicyRefusal, match="another set-up"):
            replace(self.MEMORY, roster=bytes(32)).at(at(7), EPOCH)

    def test_no_round_too_far_ahead(self) -> None:
        empty = replace(self.MEMORY, neighbours=indices([]), chains=b"", peers=indices([]), channels=b"")
        assert empty.at(at(7 + MOST_SKIPPED), EPOCH).next_round == 7 + MOST_SKIPPED
        with pytest.raises(PolicyRefusal, match="rounds ahead"):
            empty.at(at(8 + MOST_SKIPPED), EPOCH)


class TestKept:
    KEPT = Kept(
        indices([2, 5]),
        indices([1, 4, 9]),
        b"AABBCC",
        b"".join(bytes([n]) * 16 for n in range(9)),
        b"".join(bytes([n]) * 32 for n in range(3)),
    )

    def test_places_of_edges(self) -> None:
        assert [self.KEPT.place(p) for p in (2, 5)] == [1, 2]
        assert [self.KEPT.place(p) for p in (0, 1, 3, 4, 6, 99)] == [-1] * 6

    def test_digests_and_boxes_are_those_of_their_holder(self) -> None:
        assert [self.KEPT.box(h) for h in (1, 4, 9)] == [b"AA", b"BB", b"CC"]
        for row, holder in enumerate((1, 4, 9)):
            assert [self.KEPT.digest(holder, p) for p in range(3)] == [
                bytes([3 * row + p]) * 16 for p in range(3)
            ]
            assert self.KEPT.digest(holder, -1) == b""
        assert [self.KEPT.digest(stranger, 0) for stranger in (0, 2, 5, 10)] == [b""] * 4
        assert [self.KEPT.pledge(p) for p in range(3)] == [bytes([p]) * 32 for p in range(3)]


def sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def test_what_pins_a_deposit_byte_for_byte() -> None:
    body = Deposit(b"v" * 9, indices([2]), indices([2, 9]), b"b" * 4, b"d" * 64, b"p" * 64, b"")
    parts = (TWO + b"\0" + TWO + NINE, b"v" * 9, b"b" * 4, b"d" * 64, b"p" * 64)
    assert deposit_bytes(CONTEXT, 9, body) == CONTEXT + NINE + b"".join(sha(part) for part in parts)
    assert edge_digest(CONTEXT, 9, 2, b"s" * 16) == sha(b"secagg edge v1\0", CONTEXT, NINE, TWO, b"s" * 16)
    assert edge_kind(9) == b"edge" + NINE
    names = b"".join(len(n).to_bytes(4, "big") + n.encode() for n in SESSION.roster)
    assert roster_digest(SESSION) == sha(b"secagg roster v1\0", names)
    assert np.frombuffer(ratchet(b"k" * 32, 0), np.uint8).tobytes() == b"k" * 32
