"""What an adapter carries messages with: it keeps the transcript, lets clients leave, and lets the audit tamper.

An exception of a party becomes what its runtime would make of it: silence, or an error reply. What does not belong
here: any protocol.
"""

import re
from collections.abc import Callable, Mapping
from typing import ClassVar

from protocols.audit.pieces import Seen, Tamper
from protocols.audit.subject import Drop

Answer = Callable[[int, bytes], bytes | None]


class Wire:
    """One session's messages, for the body of a black box's `run`.

        wire = Wire(drop, tamper)
        answers = wire.trip("input", {i: request for i in range(n)}, lambda i, body: clients[i].receive(body))
        return total, wire.transcript

    drop: stage -> who leaves before it. tamper: as `run` was given it. error: the error reply that the protocol's
    runtime makes where a party raises (None, the default: silence). once: whether the runtime delivers one answer of a
    client per stage, whatever arrives. raised: what parties raised, as (client, error); a finding tells it.
    """

    last: ClassVar[list[tuple[int, Exception]]] = []
    """What parties raised in the session that began last."""
    refusing: ClassVar[bool] = False
    """Whether the message that is carried now is the error reply to a request at which a party raised."""

    def __init__(
        self, drop: Drop, tamper: Tamper | None = None, error: bytes | None = None, once: bool = False
    ) -> None:
        self.drop, self.error, self.once = drop, error, once
        self.tamper = tamper or (lambda stage, message: [message])
        self.transcript: list[Seen] = []
        self.gone: set[int] = set()
        self.raised: list[tuple[int, Exception]] = []
        Wire.last = self.raised

    def trip(self, stage: str, requests: Mapping[int, bytes], answer: Answer) -> list[tuple[int, bytes]]:
        """Carry the server's requests to clients and their answers back, as they arrive: (client's place, body).

        stage: one of the BlackBox's. requests: by the client's place; who left is not asked. answer: what a client does
        with a request: its answer, None for none. Whatever it raises is kept in `raised`.
        """
        self.gone |= set(self.drop.get(stage, ()))
        arrived: list[tuple[int, bytes]] = []
        for place, request in requests.items():
            if place not in self.gone:
                for _, recipient, body in self.carry(stage, ("server", f"client {place}", request)):
                    arrived += self._answered(stage, place_of(recipient), body, answer)
        first: dict[int, tuple[int, bytes]] = {}
        for one in arrived:
            first.setdefault(one[0], one)
        return list(first.values()) if self.once else arrived

    def carry(self, stage: str, message: Seen) -> list[Seen]:
        """Send one message; return what arrives."""
        self.transcript.append(message)
        return list(self.tamper(stage, message))

    def _answered(self, stage: str, place: int, body: bytes, answer: Answer) -> list[tuple[int, bytes]]:
        try:
            made = answer(place, body)
        except Exception as error:  # as the runtime of the audited party would take it
            self.raised.append((place, error))
            made, Wire.refusing = self.error, True
        try:
            arrived = [] if made is None else self.carry(stage, (f"client {place}", "server", made))
        finally:
            Wire.refusing = False
        return [(place_of(sender), got) for sender, _, got in arrived]


def place_of(name: str) -> int:
    """The number in "client 7". Raises ValueError for any other name."""
    named = re.fullmatch(r"client (\d{1,9})", name)
    if named is None:
        raise ValueError(f"expected 'client 0', 'client 1', ..., got {name!r}")
    return int(named[1])
