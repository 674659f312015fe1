"""What the privacy properties share: how to read a played session. No property lives here."""

from typing import Any

import numpy as np

from protocols.audit.prop import NotChecked

SAMPLES = 1 << 14
SMALL, WIDE = 1, 1 << 40
"""Public bounds that give a small ring, where every value counts, and one wider than a 32-bit word."""

UNCALLED = "its mask generator cannot be called"


def hook_of(subject: Any, name: str, why: str) -> Any:
    """Return one of the protocol's hooks. Raises NotChecked, saying why, where it has none of that name."""
    found = getattr(subject.hooks, name)
    if found is None:
        raise NotChecked(f"the protocol has no hook `{name}`: {why}")
    return found


def input_bodies(subject: Any, played: Any) -> list[tuple[str, bytes]]:
    if played.messages:
        pairs = [(str(m.sender), bytes(m.body)) for m in played.messages if m.stage == subject.counting]
        return [(who, _payload(body)) for who, body in pairs if who.startswith("client")]
    return [(sender, body) for sender, recipient, body in played.transcript if sender.startswith("client")]


def _payload(body: bytes) -> bytes:
    """The middle of a body: constant headers and empty trailers are not what is judged here."""
    return body[min(64, len(body) // 8) : len(body) - min(32, len(body) // 8)]


def rings(subject: Any) -> list[dict[str, Any]]:
    """Options of `play`: a ring so small that every value counts and a wide one; of a black box, those it has."""
    if subject.level == "white":
        return [{"bound": SMALL}, {"bound": WIDE}]
    return [*([{"small": True}] if "ring" in subject.given else []), {}]


def _vectors(subject: Any, played: Any) -> dict[int, Any]:
    """By client's place, the ring elements in a black box's transcript; a vector may come in several messages."""
    found: dict[int, list[Any]] = {}
    for sender, recipient, body in played.transcript:
        values = subject.pieces.vector((sender, recipient, body)) if sender.startswith("client ") else None
        if values is not None:
            found.setdefault(int(sender.split()[1]), []).append(values)
    if not found:
        why = f": {played.why}" if played.why else ""
        raise NotChecked(f"`elements` read no ring elements out of any message of a client{why}")
    return _of_all(
        {place: np.concatenate(parts) for place, parts in sorted(found.items())}, played, "elements"
    )


def _of_all(found: dict[int, Any], played: Any, piece: str) -> dict[int, Any]:
    """What a piece read. Raises NotChecked that names whose vector it did not read, or not in full."""
    length = max(map(len, found.values()), default=0)
    unread = [i for i in played.survivors if len(found.get(i, ())) < max(1, length)]
    if unread:
        raise NotChecked(
            f"`{piece}` did not read the whole vector of clients {unread}, who are in the total: tell what carries one "
            "by its length or its stage, not by a byte that may come by chance"
        )
    return found


def stripped_of(subject: Any, played: Any) -> dict[int, Any]:
    """What is left of each vector once the server took off the masks it can."""
    return _of_all(subject.hooks.stripped(played.session, played.messages, {}), played, "stripped")


def elements_of(subject: Any, played: Any) -> dict[int, Any]:
    if subject.level == "black":
        return _vectors(subject, played)
    hook = hook_of(subject, "elements", "its input messages carry no ring elements that can be read")
    found = {}
    for message in played.messages:
        values = hook(played.session, message) if message.stage == subject.counting else None
        if values is not None and message.sender.role == "client":
            found[message.sender.number] = values
    if not found:
        raise NotChecked("no input message of this session carries ring elements")
    return found


def modulus_of(subject: Any, played: Any) -> int:
    if subject.level == "black":
        return int(played.modulus)
    return int(hook_of(subject, "modulus", "its ring is not known")(played.session))
