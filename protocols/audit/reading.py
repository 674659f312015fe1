"""What the privacy properties share: how to read a played session. No property lives here."""

from typing import Any

from protocols.audit.prop import NotChecked

SAMPLES = 1 << 14
SMALL, WIDE = 1, 1 << 40
"""Public bounds that give a small ring, where every value counts, and one wider than a 32-bit word."""


def input_bodies(subject: Any, played: Any) -> list[tuple[str, bytes]]:
    if played.messages:
        pairs = [(str(m.sender), bytes(m.body)) for m in played.messages if m.stage == subject.counting]
        return [(who, _payload(body)) for who, body in pairs if who.startswith("client")]
    return [(sender, body) for sender, recipient, body in played.transcript if sender.startswith("client")]


def _payload(body: bytes) -> bytes:
    """The middle of a body: constant headers and empty trailers are not what is judged here."""
    return body[min(64, len(body) // 8) : len(body) - min(32, len(body) // 8)]


def elements_of(subject: Any, played: Any) -> dict[int, Any]:
    hook = subject.hooks.elements
    if hook is None:
        raise NotChecked(
            "the protocol has no hook `elements`: its input messages carry no ring elements that can be read"
        )
    found = {}
    for message in played.messages:
        values = hook(played.session, message) if message.stage == subject.counting else None
        if values is not None and message.sender.role == "client":
            found[message.sender.number] = values
    if not found:
        raise NotChecked("no input message of this session carries ring elements")
    return found


def modulus_of(subject: Any, played: Any) -> int:
    if subject.hooks.modulus is None:
        raise NotChecked("the protocol has no hook `modulus`")
    return int(subject.hooks.modulus(played.session))
