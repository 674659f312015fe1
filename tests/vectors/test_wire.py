"""The wire format, byte for byte: a change of the format is a new version, never an accident."""

import pytest

from protocols.codec import BigInt
from protocols.errors import WireError
from protocols.kernel import SERVER, Message, client, message
from protocols.session import Session

FRAME = (
    "53414731"  # SAG1
    "00000020" + "11" * 32 + "00000005696e707574"  # session context, stage "input"
    "00000006636c69656e74"
    "0000000000000003"  # from client 3
    "00000006736572766572"
    "0000000000000000"  # to the server
    "00000002beef"
)
CONTEXT = "4fe29804fa601dd8a4678b0b81fc2300b996b5744cd9ec399d420505e39478ed"


def sent() -> Message:
    return message(b"\x11" * 32, "input", client(3), SERVER, b"\xbe\xef")


def session(**changes: object) -> Session:
    facts = {
        "protocol": "none/1",
        "parameters": b"",
        "roster": ("a", "b"),
        "dimension": 3,
        "bound": 7,
        "modulus": BigInt(0),
        "round": 1,
        "model": bytes(32),
        "nonce": bytes(16),
        "simulated": False,
    }
    return Session(**{**facts, **changes})  # type: ignore[arg-type]


def test_a_frame_is_these_bytes() -> None:
    assert sent().to_wire().hex() == FRAME
    assert Message.from_wire(bytes.fromhex(FRAME)) == sent()
    assert sent().size == len(sent().to_wire())


@pytest.mark.parametrize(
    "name, change",
    [
        ("bad_magic", lambda d: b"SAG2" + d[4:]),
        ("bad_left_over", lambda d: d + b"\0"),
        ("bad_truncated", lambda d: d[:-1]),
        ("bad_session_length", lambda d: d[:7] + b"\x1f" + d[8:]),
        ("bad_role", lambda d: d.replace(b"client", b"CLIENT")),
        ("bad_utf8", lambda d: d.replace(b"input", b"\xff\xfe\xfd\xfc\xfb")),
        ("bad_index", lambda d: d.replace(b"client" + bytes(8)[:-1], b"client\xff" + bytes(6))),
        ("bad_announced_size", lambda d: d[:-6] + b"\xff\xff\xff\xff" + d[-2:]),
        ("bad_empty", lambda d: b""),
    ],
)
def test_bad_frames_are_refused(name: str, change: object) -> None:
    with pytest.raises(WireError):
        Message.from_wire(change(bytes.fromhex(FRAME)))  # type: ignore[operator]


def test_the_context_is_a_hash_of_everything_public() -> None:
    base = session()
    assert base.context.hex() == CONTEXT
    others = [
        session(protocol="none/2"),
        session(parameters=b"x"),
        session(roster=("a", "c")),
        session(roster=("b", "a")),
        session(dimension=4),
        session(bound=8),
        session(modulus=BigInt(16)),
        session(round=2),
        session(model=b"\1" * 32),
        session(nonce=b"\1" * 16),
        session(simulated=True),
        session(min_survivors=2),
    ]
    assert len({s.context for s in [base, *others]}) == len(others) + 1
