"""Public keys that no agreement can use are known by their coordinate; the library decides whether that is right."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import ProtocolViolation
from protocols.key_agreement import _PRIME, _SMALL_ORDER, PairKeys, generate, public_key, usable
from protocols.randomness import SystemRandom

HIGH = 1 << 255


def agrees(public: bytes) -> bool:
    try:
        PairKeys(generate(SystemRandom()), "a", bytes(32)).agree("b", public, "seal")
    except ProtocolViolation:
        return False
    return True


@pytest.mark.parametrize("coordinate", sorted(_SMALL_ORDER))
@pytest.mark.parametrize("more", [0, _PRIME, HIGH, HIGH + _PRIME])
def test_every_writing_of_a_point_of_small_order_is_unusable(coordinate: int, more: int) -> None:
    if coordinate + (more & ~HIGH) < HIGH:
        public = (coordinate + more).to_bytes(32, "little")
        assert not usable(public)
        assert not agrees(public)


def test_real_keys_are_usable() -> None:
    assert all(usable(public_key(generate(SystemRandom()))) for _ in range(50))


@given(st.binary(min_size=32, max_size=32))
def test_both_ways_to_find_out_say_the_same(public: bytes) -> None:
    assert usable(public) == agrees(public)
