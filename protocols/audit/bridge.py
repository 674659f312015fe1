"""Between an adapter's messages (sender, recipient, bytes) and the audit's (`protocols.kernel.Message`).

What does not belong here: what is tampered with (properties), and who is asked what (the adapter, `Wire`).
"""

from collections.abc import Callable, Iterable
from typing import Any

from protocols.audit.pieces import Seen
from protocols.kernel import SERVER, Message, Party, client

NO_SESSION = bytes(32)


class Bridge:
    """The argument `tamper` of one session's `run`: hands each message to the audit's tamper, and notes it.

    sender: name -> the client's place, None for anybody else. tamper: Message -> Message, several, or None.
    """

    def __init__(self, sender: Callable[[str], int | None], tamper: Any) -> None:
        self._sender, self._tamper = sender, tamper
        self.messages: list[Message] = []
        self._names: dict[Party, str] = {}

    @property
    def transcript(self) -> list[Seen]:
        return [(str(m.sender), str(m.recipient), bytes(m.body)) for m in self.messages]

    def __call__(self, stage: str, message: Seen) -> list[Seen]:
        sender, recipient, body = message
        sent = Message(NO_SESSION, stage, *self._party(sender), *self._party(recipient), bytes(body))
        self.messages.append(sent)
        given = sent if self._tamper is None else self._tamper(sent)
        found: Iterable[Message] = [given] if isinstance(given, Message) else given or []
        return [(self._name(m.sender), self._name(m.recipient), bytes(m.body)) for m in found]

    def _party(self, name: str) -> Party:
        place = self._sender(name)
        if place is not None:
            party = client(place)
        elif name == "server":
            party = SERVER
        else:
            known = [p for p, called in self._names.items() if called == name]
            party = known[0] if known else Party("helper", sum(p.role == "helper" for p in self._names))
        self._names[party] = name
        return party

    def _name(self, party: Party) -> str:
        return self._names.get(party, str(party))
