"""Whether an adapter delivers what `tamper` gives back: one that does not would pass all properties of a lying server.

Each look plays a session of ones in which lies must tell. No property lives here.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from protocols.audit.limit import Hung, OutOfTime
from protocols.audit.prop import Finding, NotChecked
from protocols.errors import Misuse
from protocols.kernel import SERVER, Message

Lie = Callable[[Message], Message | None]
REQUESTS: dict[str, Lie] = {
    "is kept back": lambda sent: None,
    "is emptied": lambda sent: replace(sent, body=b""),
    "goes to client 0": lambda sent: replace(sent, recipient_index=0),
}
"""What a server may do with every request from the stage of the input on."""


def deaf(box: Any) -> str:
    """What a black box's run does in place of heeding `tamper`; "" where lies about clients' messages tell."""
    if not _is_exact(box, None):
        return ""  # of a total that is wrong without any lie, other properties speak
    played = box.play(_ones(box), tamper=lambda sent: sent)
    stages = dict.fromkeys(sent.stage for sent in played.messages)
    if stages and box.counting not in stages:
        return f"run calls tamper at the stages {', '.join(stages)}, and never at {box.counting!r}, that of the input"
    if not _right(box, played):
        return f"run gives no right total when tamper changes nothing {played.why}".rstrip()
    told = Counter(sender for sender, _, _ in played.transcript)
    missed = told - Counter(str(sent.sender) for sent in played.messages)
    for name, count in missed.items():
        if name == str(SERVER) or name.startswith("client "):
            return f"run has an argument tamper, and called it not for {count} of {told[name]} messages of {name}"
    for body in (None, b""):
        if _is_exact(box, _told_by_clients(box, body)):
            return "run calls tamper, and delivers the message whatever that gives back"
    return ""


def require_heard(box: Any, *lies: str) -> None:
    """Raise NotChecked where one of these lies about the server's requests changes nothing: no other would either.
    Raise Malformed for an adapter that is deaf to any lie.
    """
    box.require_heeded()
    for lie in lies:
        if box.cached(f"unheard: {lie}", lambda lie=lie: _is_exact(box, _of_requests(box, REQUESTS[lie]))):
            raise NotChecked(
                f"the total is right when every request from the stage {box.counting!r} on {lie}: either the adapter "
                "does not deliver what tamper gives back, or names the server otherwise, or requests say nothing"
            )


def _ones(box: Any) -> list[Any]:
    return [np.ones(8, np.int64)] * box.clients[1]


def _right(box: Any, played: Any) -> bool:
    return played.total is not None and bool((played.total == box.clients[1]).all())


def _is_exact(box: Any, tamper: Any) -> bool:
    """Whether a session ends with the right total. Raises OutOfTime."""
    try:
        return _right(box, box.play(_ones(box), tamper=tamper))
    except OutOfTime:
        raise
    except (Misuse, Finding, Hung):  # it noticed
        return False


def _told_by_clients(box: Any, body: bytes | None) -> Lie:
    def lie(sent: Message) -> Message | None:
        if sent.sender == SERVER or (body is not None and sent.stage != box.counting):
            return sent
        return None if body is None else replace(sent, body=body)

    return lie


def _of_requests(box: Any, lie: Lie) -> Lie:
    late = box.stages[box.stages.index(box.counting) :]
    return lambda sent: (
        lie(sent) if (sent.sender, sent.recipient.role) == (SERVER, "client") and sent.stage in late else sent
    )
