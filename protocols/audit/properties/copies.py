"""Contributions that a client did not make itself. What does not belong here: garbled ones (`active_client`)."""

from dataclasses import replace
from typing import Any, cast

import numpy as np

from protocols.audit.draws import tell
from protocols.audit.heeding import UNHEARD, require_exact
from protocols.audit.prop import NotChecked, promised
from protocols.kernel import SERVER, Message

HERE = object()
"""The one session of a black box."""


@promised(
    "semi-honest", "malleability, copied ballots (Cortier and Smyth, CSF 2011)", most=1, pieces=("tamper",)
)
def copied_contributions_are_not_summed(subject: Any, data: Any) -> None:
    """What one client sent does not count again in another's name, from this session or an earlier one.

    A total with one input twice, less the inputs that are known, tells that input.
    """
    if subject.level == "black":
        if subject.clients[1] < 3:
            raise NotChecked("it is played with three clients, the adapter allows fewer")
        require_exact(subject)
    vectors = [np.array([subject.bound * (i == 0), subject.bound * (i == 1)], np.int64) for i in range(5)]
    vectors = vectors[: max(3, subject.clients[1])]
    earlier: dict[int, Message] = {}
    subject.play(vectors, {}, tamper=_Copying(subject, None, earlier).tamper)
    for story, known in (("an earlier", earlier), ("this", {})):
        session = subject.session_of(5, 2, subject.bound) if subject.level == "white" else HERE
        copying = _Copying(subject, session, known)
        played = subject.play(vectors, {}, session=session, tamper=copying.tamper)
        twice = vectors[0] + sum(v for i, v in enumerate(vectors) if i in played.survivors and i != 1)
        if 1 in played.survivors and played.total is not None and (played.total == twice).all():
            raise tell(
                f"client 0's input of {story} session counts twice: client 1 sent a copy of it",
                vectors,
                {},
                played,
            )
        if subject.level == "black" and played.total is not None and (played.total == sum(vectors)).all():
            raise NotChecked(f"the copy of {story} session: {UNHEARD}")


class _Copying:
    """Client 1 sends what client 0 sent, as soon as that is known. session: None: it only listens."""

    def __init__(self, subject: Any, session: Any, known: dict[int, Message]) -> None:
        self.subject, self.session, self.known = subject, session, known

    def tamper(self, sent: Message) -> Message:
        if sent.stage != self.subject.counting or sent.recipient != SERVER:
            return sent
        self.known.setdefault(sent.sender.number, sent)
        if self.session is None or sent.sender.number != 1 or 0 not in self.known:
            return sent
        claimed = self.subject.hooks.claimed
        if claimed is not None:
            return cast(Message, claimed(self.session, sent, self.known[0]))
        return replace(sent, body=self.known[0].body)
