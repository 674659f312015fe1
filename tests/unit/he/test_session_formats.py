"""What a homomorphic session binds: roster, format versions, key kinds, widths."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from he import CKKSSum, KeyHolder, PaillierSum, SharedByClients, Threshold
from he.ckks import SharedKey
from he.roles.messages import (
    pack_total,
    unpack_total,
)
from he.roles.parties import HasCiphertexts
from he.roles.scheme import Accumulator
from protocols import SecureSum
from protocols.errors import (
    Misuse,
    PolicyRefusal,
    WireError,
)
from protocols.kernel import Party, client
from tests.paillier_fixed import fixed, ring
from tests.unit.he.test_neighbours import ALL, FORMATS, INPUTS, NAMES, RANDOM


def test_a_roster_is_part_of_a_paillier_session() -> None:
    """Decryptors that check signatures and such as do not never sit in one session."""
    from protocols.identity import Identity, Member, Roster

    people = [Identity.generate(name) for name in NAMES]
    roster = Roster.of("f", 1, [Member(i.name, "client", i.public) for i in people])
    keys = ring(Threshold(3, 4))
    signed = PaillierSum(Threshold(3, 4), key_bits=2048, keys=keys, roster=roster)
    for one, other in ((signed, fixed(Threshold(3, 4))), (fixed(Threshold(3, 4)), signed)):
        session = one.session(NAMES, 2, 50, random=RANDOM)
        with pytest.raises(Misuse, match="give every party the same"):
            other.helper(session, Party("decryptor", 0), random=RANDOM)


@ALL
@pytest.mark.parametrize("old", [1, 2])
def test_sessions_and_states_of_earlier_versions_are_refused_by_name(
    make: Callable[[], SecureSum], old: int
) -> None:
    protocol = make()
    session = protocol.session(NAMES, 2, 50, random=RANDOM)
    before = replace(session, protocol=f"{protocol.name}/{old}")
    for party in (client(0), *protocol.helpers(session)):
        start = partial(protocol.client, before, 0, INPUTS[0], random=RANDOM)
        if party != client(0):
            start = partial(protocol.helper, before, party, random=RANDOM)
        with pytest.raises(Misuse, match=f"session of {protocol.name}/3, got one of {protocol.name}/{old}"):
            start()
    committed = json.loads((FORMATS / f"he-states-v{old}.json").read_text())["states"]
    for data in committed.values():
        with pytest.raises(WireError, match=f"no state of {protocol.name}/3"):
            protocol.decode_state(bytes.fromhex(data))


def test_a_state_holds_either_schemes_key_and_no_third_ones() -> None:
    for protocol in (fixed(SharedByClients()), CKKSSum(SharedByClients(), key=SharedKey(b"n" * 32))):
        session = protocol.session(NAMES, 2, 50, random=RANDOM)
        state = protocol.client(session, 0, INPUTS[0], random=RANDOM).state
        assert isinstance(state, HasCiphertexts)
        data = protocol.encode_state(state)
        assert protocol.decode_state(data) == state
    adding = (
        fixed(KeyHolder())
        .server(fixed(KeyHolder()).session(NAMES, 2, 50, random=RANDOM), random=RANDOM)
        .state
    )
    data = fixed(KeyHolder()).encode_state(adding)
    kind = data.index(b"key-holder") + len(b"key-holder")
    assert data[kind : kind + 2] == b"\0\1"
    with pytest.raises(WireError, match=f"unknown kind 7 of {Accumulator.__name__}"):
        fixed(KeyHolder()).decode_state(data[:kind] + b"\0\7" + data[kind + 2 :])


def test_totals_are_packed_in_the_fewest_bits() -> None:
    session = fixed(KeyHolder()).session(NAMES, 2, 50, random=RANDOM)
    for values in ([-200, 200], [0, 1]):
        data = pack_total(np.array(values), session)
        assert len(data) == 3  # two words of 9 bits
        assert unpack_total(data, session, "x").tolist() == values
    with pytest.raises(WireError, match="the total of x"):
        unpack_total(b"\xff\xff\x03", session, "x")


@ALL
def test_the_width_of_the_group_is_what_a_policy_is_held_against(make: Callable[[], SecureSum]) -> None:
    protocol = make()
    session = protocol.session(NAMES, 2, 50, random=RANDOM, modulus=2)
    assert protocol.demands(session).ring_bits == 1
    with pytest.raises(PolicyRefusal, match="ring_bits"):
        protocol.client(session, 0, INPUTS[0], random=RANDOM)
