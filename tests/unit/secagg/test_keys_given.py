"""Keys that the server hands out: each party's own, given once; who is not on the roster is named."""

import pytest

from protocols.errors import Misuse, PeerError, ProtocolViolation
from protocols.key_agreement import generate, public_key
from protocols.randomness import SystemRandom
from secagg import Credentials, SecAgg
from secagg.advertisement import certified_keys
from secagg.messages import indices
from secagg.session_rules import rules_of

RANDOM = SystemRandom()
SESSION = SecAgg(threat="semi-honest", dropout=0.0, collusion=0.0).session(list("abc"), 1, 1, random=RANDOM)
OWN = (generate(RANDOM), generate(RANDOM))
ONE, TWO, THREE, FOUR = (public_key(generate(RANDOM)) for _ in range(4))


def given(*clients: int, keys: bytes) -> dict[int, tuple[bytes, bytes]]:
    """Return each client's keys for sealing and for masks, as they were taken."""
    taken = certified_keys(rules_of(SESSION), SESSION, 0, indices(clients), keys, OWN)
    return {j: (one.seal_key, one.mask_key) for j, one in taken.items()}


def test_distinct_keys_of_others_are_taken() -> None:
    assert given(1, 2, keys=ONE + TWO + THREE + FOUR) == {1: (ONE, TWO), 2: (THREE, FOUR)}
    assert given(1, keys=ONE + TWO) == {1: (ONE, TWO)}


@pytest.mark.parametrize(
    ("clients", "keys"),
    [
        ((1, 2), ONE + TWO + ONE + TWO),
        ((1, 2), ONE + TWO + THREE + TWO),
        ((1, 2), ONE + ONE + THREE + FOUR),
        ((1, 2), ONE + TWO + TWO + FOUR),
        ((1, 2), ONE + TWO + public_key(OWN[0]) + FOUR),
        ((1, 2), ONE + TWO + THREE + public_key(OWN[1])),
        ((0, 2), ONE + TWO + THREE + FOUR),
    ],
)
def test_a_key_that_is_used_twice_or_is_ones_own_blames_the_server(
    clients: tuple[int, ...], keys: bytes
) -> None:
    with pytest.raises(ProtocolViolation, match="swapped or reflected") as caught:
        given(*clients, keys=keys)
    assert caught.value.party == "server"


def test_who_is_not_on_the_signed_roster_is_named() -> None:
    known = Credentials.simulated(["ann", "bob"])
    assert len(known.keys_of(["bob", "ann"])) == 64
    with pytest.raises(PeerError, match="'cat' is no client on the signed roster") as caught:
        known.keys_of(["ann", "cat", "dan"])
    assert caught.value.party == "cat"


def test_an_identity_that_this_process_was_not_given_is_misuse() -> None:
    with pytest.raises(Misuse, match="no identity of 'dan' here"):
        Credentials.simulated("abc").identity("dan")
