"""What is kept between rounds of one set-up: which rounds it serves, and what its digests are made over."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from protocols.errors import PolicyRefusal
from protocols.randomness import SystemRandom
from protocols.session import Session
from secagg import SecAgg
from secagg.commitments import dealt_bytes, edge_digest, edge_kind
from secagg.mask_parameters import MaskParameters
from secagg.memory import (
    FIRST_PATIENCE,
    MOST_SKIPPED,
    ClientMemory,
    ServerMemory,
    Setup,
    pins,
    ratchet,
)
from secagg.messages import Dealing, Pledge, indices
from secagg.session_rules import rules_of
from secagg.signers import Signers

SESSION = SecAgg(setup="reuse").session(["ann", "bob", "cy", "di"], 1, 1, random=SystemRandom())
EPOCH = b"e" * 32
CONTEXT = bytes(range(32))
TWO, NINE = b"\0\0\0\2", b"\0\0\0\x09"


def at(round: int, **changes: object) -> Session:
    return replace(SESSION, round=round, **changes)  # type: ignore[arg-type]  # the test's own


def later(round: int, epoch: bytes = EPOCH, begun: int = 5, **changes: object) -> Session:
    """A round that builds on the set-up, with some parameter changed."""
    chosen = replace(MaskParameters.decode(SESSION.parameters), epoch=epoch, begun=begun, **changes)  # type: ignore[arg-type]  # as above
    return at(round, parameters=chosen.encode())


def setup(**changes: object) -> Setup:
    known = Setup(EPOCH, 5, pins(SESSION))
    return replace(known, **changes)  # type: ignore[arg-type]  # as above


def server(**changes: object) -> ServerMemory:
    known = ServerMemory(setup(), 7, {}, indices(range(4)), 8)
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
        assert not server().serves(
            at(8, parameters=replace(rules_of(SESSION).parameters, threshold=3).encode()), renew=20
        )
        assert not server(setup=setup(pins=bytes(32))).serves(at(8), renew=20)

    def test_patience_doubles_while_somebody_of_the_same_roster_is_missing(self) -> None:
        missing = indices([0, 1, 3])
        assert server(established=missing).next_patience(SESSION) == 16
        assert server(established=missing, patience=1 << 19).next_patience(SESSION) == 1 << 20
        assert server(established=missing, patience=1 << 20).next_patience(SESSION) == 1 << 20
        assert server().next_patience(SESSION) == FIRST_PATIENCE
        assert (
            server(established=missing, setup=setup(pins=bytes(32))).next_patience(SESSION) == FIRST_PATIENCE
        )


class TestClient:
    MEMORY = ClientMemory(
        setup(), 7, b"\x0f", b"a" * 32 + b"b" * 32, b"c" * 32, b"s" * 32, Signers(indices([]), b"")
    )

    def test_keys_move_on_with_the_rounds(self) -> None:
        assert self.MEMORY.at(later(7)) is self.MEMORY
        moved = self.MEMORY.at(later(9))
        assert moved.next_round == 9
        assert moved.chains == ratchet(b"a" * 32, 2) + ratchet(b"b" * 32, 2)
        assert moved.channels == ratchet(b"c" * 32, 2)

    @pytest.mark.parametrize(
        ("session", "why"),
        [
            (later(6), "used or passed"),
            (later(7, bytes(32)), "another set-up"),
            (later(7, begun=4), "another set-up"),
            (later(1), "passed"),
            (replace(later(7), roster=("ann", "bob", "di", "cy")), "roster or parameters"),
        ],
    )
    def test_past_rounds_and_other_set_ups_are_refused(self, session: Session, why: str) -> None:
        with pytest.raises(PolicyRefusal, match=why):
            self.MEMORY.at(session)

    @pytest.mark.parametrize(
        "change",
        [
            {"threat": "malicious"},
            {"threshold": 3},
            {"corrupt": 1, "quorum": 4, "threshold": 3},
            {"survivors": 4},
            {"quorum": 4},
            {"beacon": b"another"},
            {"identities": bytes(128)},
        ],
    )
    def test_what_a_set_up_fixes_holds_for_all_its_rounds(self, change: dict[str, object]) -> None:
        with pytest.raises(PolicyRefusal, match="roster or parameters"):
            self.MEMORY.at(later(7, **change))  # type: ignore[arg-type]  # the test's own

    def test_no_round_too_far_ahead(self) -> None:
        empty = replace(self.MEMORY, chains=b"", channels=b"")
        assert empty.at(later(7 + MOST_SKIPPED)).next_round == 7 + MOST_SKIPPED
        with pytest.raises(PolicyRefusal, match="rounds ahead"):
            empty.at(later(8 + MOST_SKIPPED))


class TestPledge:
    PLEDGE = Pledge(
        indices([2, 5, 7]),
        b"".join(bytes([n]) * 16 for n in range(9)),
        b"".join(bytes([n]) * 32 for n in range(3)),
    )

    def test_digests_are_those_of_their_holder(self) -> None:
        for row, holder in enumerate((2, 5, 7)):
            assert self.PLEDGE.row(holder) == row
            digests = [self.PLEDGE.digest(holder, place) for place in range(3)]
            assert digests == [bytes([3 * row + place]) * 16 for place in range(3)]
        assert [self.PLEDGE.secret(p) for p in range(3)] == [bytes([p]) * 32 for p in range(3)]


def sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def test_what_pins_a_deposit_byte_for_byte() -> None:
    body = Dealing(indices([2, 9]), b"d" * 64, b"p" * 64, b"b" * 4, b"")
    held = sha(TWO, NINE, b"b" * 4, b"d" * 64)
    assert dealt_bytes(CONTEXT, 9, body, b"v" * 9) == CONTEXT + NINE + held + b"p" * 64 + sha(b"v" * 9)
    assert edge_digest(CONTEXT, 9, 2, b"s" * 16) == sha(b"secagg edge v1\0", CONTEXT, NINE, TWO, b"s" * 16)
    assert edge_kind(9) == b"edge" + NINE
    names = b"".join(len(n).to_bytes(4, "big") + n.encode() for n in SESSION.roster)
    common = rules_of(SESSION).parameters
    assert pins(SESSION) == sha(b"secagg set-up v2\0", sha(names), common.encode())
    assert setup() == replace(Setup.of(SESSION), epoch=EPOCH, round=5)
    assert Setup.of(later(9)) == setup()
    assert np.frombuffer(ratchet(b"k" * 32, 0), np.uint8).tobytes() == b"k" * 32
