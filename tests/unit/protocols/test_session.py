"""Sessions at their edges: what a session may be, and the ring that carries its sum."""

from dataclasses import replace

import pytest

from protocols.codec import BigInt
from protocols.errors import CapacityError, Misuse, WireError
from protocols.session import Session

INT64_MAX = 2**63 - 1
GOOD = Session("none/1", b"", ("a", "b", "c"), 4, 7, BigInt(0), 1, bytes(32), bytes(16), False)


def changed(**fields: object) -> Session:
    return replace(GOOD, **fields)  # type: ignore[arg-type]  # one field each


@pytest.mark.parametrize(
    "fields",
    [
        {"roster": ("a",)},
        {"dimension": 1},
        {"bound": 0},
        {"round": 0},
        {"modulus": BigInt(2)},
        {"modulus": BigInt(3)},
        {"modulus": BigInt(2**62 - 1)},
        {"modulus": BigInt(2**62)},
        {"modulus": BigInt(2**63)},
        {"modulus": BigInt(2**64)},
        {"min_survivors": 3},
        {"bound": INT64_MAX // 3},
        {"bound": INT64_MAX, "roster": ("a",)},
        {"bound": INT64_MAX, "modulus": BigInt(8)},
    ],
)
def test_what_a_session_may_be(fields: dict[str, object]) -> None:
    session = changed(**fields)
    assert Session.decode(session.encode()) == session


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"roster": ()}, "distinct names, at least one"),
        ({"roster": ("a", "b", "a")}, "distinct names, at least one"),
        ({"dimension": 0}, "dimension >= 1"),
        ({"bound": -1}, "bound >= 0"),
        ({"round": -1}, "round >= 0"),
        ({"modulus": BigInt(-2)}, "from 2 to 2"),
        ({"modulus": BigInt(1)}, "from 2 to 2"),
        ({"modulus": BigInt(2**64 + 1)}, "from 2 to 2"),
        ({"modulus": BigInt(2**65)}, "from 2 to 2"),
        ({"modulus": BigInt(2**62 + 1)}, r"at most 2\^62"),
        ({"modulus": BigInt(2**63 - 1)}, r"at most 2\^62"),
        ({"modulus": BigInt(2**63 + 2)}, r"at most 2\^62"),
        ({"min_survivors": 0}, "min_survivors from 1 to 3"),
        ({"min_survivors": 4}, "min_survivors from 1 to 3"),
        ({"model": bytes(31)}, "32 bytes and a nonce of 16"),
        ({"nonce": bytes(17)}, "32 bytes and a nonce of 16"),
        ({"bound": INT64_MAX // 3 + 1}, "exceeds 2"),
    ],
)
def test_what_it_may_not_be_is_misuse_here_and_a_wire_error_from_a_peer(
    fields: dict[str, object], said: str
) -> None:
    with pytest.raises((Misuse, CapacityError), match=said):
        changed(**fields)
    forged = object.__new__(Session)  # what a peer without these checks would send
    forged.__dict__.update(GOOD.__dict__ | fields)
    with pytest.raises(WireError, match=said):
        Session.decode(forged.encode())


@pytest.mark.parametrize(("bound", "bits"), [(0, 1), (1, 3), (5, 5), (2**20, 23), (INT64_MAX // 3, 64)])
def test_the_smallest_ring_that_carries_a_sum(bound: int, bits: int) -> None:
    session = changed(bound=bound)
    assert session.ring_bits() == bits
    assert 2**bits > 2 * session.sum_bound >= (2 ** (bits - 1) if bound else 0)


@pytest.mark.parametrize(("modulus", "bits"), [(2, 1), (4, 2), (2**32, 32), (2**64, 64)])
def test_a_power_of_two_is_its_own_ring(modulus: int, bits: int) -> None:
    assert changed(modulus=BigInt(modulus)).ring_bits() == bits


@pytest.mark.parametrize("modulus", [3, 6, 7, 2**62 - 1, 2**61 + 2])
def test_masks_need_a_power_of_two(modulus: int) -> None:
    with pytest.raises(CapacityError, match="power of two"):
        changed(modulus=BigInt(modulus)).ring_bits()


def test_everything_in_a_session_changes_its_context() -> None:
    others = [
        changed(**{name: value})
        for name, value in {
            "protocol": "none/2",
            "parameters": b"x",
            "roster": ("a", "c", "b"),
            "dimension": 5,
            "bound": 8,
            "modulus": BigInt(64),
            "round": 2,
            "model": bytes(31) + b"\1",
            "nonce": bytes(15) + b"\1",
            "simulated": True,
            "min_survivors": 2,
        }.items()
    ]
    assert len({GOOD.context, *(session.context for session in others)}) == len(others) + 1
    assert all(len(session.context) == 32 for session in others)
