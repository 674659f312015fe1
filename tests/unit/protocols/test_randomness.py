"""Uniform integers by rejection, from bytes that the test gives."""

from collections import Counter

import pytest

from protocols.errors import Misuse
from protocols.randomness import SecureRandom, SystemRandom, below, require_system


class Given(SecureRandom):
    """Gives these bytes, in order, and counts how many were asked for at a time."""

    def __init__(self, data: bytes) -> None:
        self.data, self.asked = data, list[int]()

    def bytes(self, count: int) -> bytes:
        self.asked.append(count)
        given, self.data = self.data[:count], self.data[count:]
        assert len(given) == count
        return given


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 100, 128, 129, 200, 256])
def test_every_value_comes_equally_often_and_nothing_else(limit: int) -> None:
    """All 256 bytes: each value below the limit comes from as many of them as every other."""
    values = []
    for byte in range(256):
        random = Given(bytes([byte]) + bytes(1))
        value = below(random, limit)
        if len(random.asked) < 2 and limit > 1:
            values.append(value)
    seen = Counter(values)
    assert set(seen) == (set(range(limit)) if limit > 1 else set())
    assert len(set(seen.values())) <= 1


def test_values_that_are_too_large_are_drawn_again() -> None:
    assert below(Given(b"\xff\x64\x63"), 200) == 0x64
    assert below(Given(b"\x64\x63"), 100) == 0x64 >> 1
    assert below(Given(b"\xc8\xc7"), 200) == 199


@pytest.mark.parametrize("limit, size", [(256, 1), (257, 2), (65_536, 2), (65_537, 3), (1 << 24, 3)])
def test_no_more_bytes_than_the_limit_needs(limit: int, size: int) -> None:
    random = Given(bytes(8))
    assert below(random, limit) == 0
    assert random.asked == [size]


def test_bytes_are_read_from_the_most_significant_on() -> None:
    assert below(Given(b"\x01\x02"), 65_536) == 0x0102
    assert below(Given(b"\x01\x02"), 257 * 16) == 0x0102 >> 3


@pytest.mark.parametrize("limit", [0, -1])
def test_no_value_is_below_nothing(limit: int) -> None:
    with pytest.raises(Misuse, match="at least 1"):
        below(SystemRandom(), limit)


def test_production_takes_the_operating_systems_generator_only() -> None:
    require_system(SystemRandom())
    assert len(SystemRandom().bytes(33)) == 33
    with pytest.raises(Misuse, match="SystemRandom only, got Given"):
        require_system(Given(b""))

    class Disguised(SystemRandom):
        pass

    with pytest.raises(Misuse, match="Disguised"):
        require_system(Disguised())
