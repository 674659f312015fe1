"""Contributions that a client did not make itself. What does not belong here: garbled ones (`active_client`)."""

from dataclasses import replace
from typing import Any

import numpy as np

from protocols.audit.draws import tell
from protocols.audit.prop import promised
from protocols.kernel import SERVER, Message


@promised("semi-honest", "malleability, copied ballots (Cortier and Smyth, CSF 2011)", most=1)
def copied_contributions_are_not_summed(subject: Any, data: Any) -> None:
    """What one client sent does not count again in another's name, from this session or an earlier one.

    A total with one input twice, less the inputs that are known, tells that input.
    """
    vectors = [np.array([(i + 1) * 10, -i], np.int64) for i in range(5)]
    earlier = subject.play(vectors, {})
    sent = {
        m.sender.number: m for m in earlier.messages if m.stage == subject.counting and m.recipient == SERVER
    }
    for story in ("earlier", "this"):
        kept = dict(sent) if story == "earlier" else {}

        def copied(m: Message, kept: dict[int, Message] = kept) -> Message:
            if m.stage != subject.counting or m.recipient != SERVER:
                return m
            kept.setdefault(m.sender.number, m)
            return replace(m, body=kept[0].body) if m.sender.number == 1 and 0 in kept else m

        played = subject.play(vectors, {}, tamper=copied)
        twice = vectors[0] + sum(v for i, v in enumerate(vectors) if i in played.survivors and i != 1)
        if 1 in played.survivors and played.total is not None and (played.total == twice).all():
            raise tell(
                f"client 0's input of {story} session counts twice: client 1 sent a copy of it",
                vectors,
                {},
                played,
            )
