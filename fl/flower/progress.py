"""What a server must know of a round that a kill interrupted: had inputs been asked for, and who sent one again.

What belongs here: these entries of the server's store. What does not: rounds, messages, the run's files.

From the moment inputs are asked for, updates may have left their clients, and clients do not send them again
(DESIGN.md, Session). A server that is started again therefore counts that round as lost and goes on with the
next one; a round that was stopped before is played again under a new session.
"""

from dataclasses import dataclass

from protocols.codec import Record
from protocols.store import Store

LOST = (
    "the server was stopped after inputs had been asked for: updates that left are not asked for again; "
    "the round stays paid for"
)
STUCK = (
    "clients refuse to send an update that has left them before, in two rounds running: training gives the same "
    'update again. Let it depend on the round (config["server-round"]: another seed, batch order or rate), or '
    "let sites allow it by `allow_resend` in their policy, which their ledgers charge and the statement names"
)
PATIENCE = 2
"""Rounds in a row that may fail because updates were spent; every one of them costs as much as a good one."""

_OUT, _AGAIN = "flower/out", "flower/sent-again"


@dataclass(frozen=True)
class Out(Record):
    """A round whose inputs were asked for. number: the session's. round: as the training counts. asked: names."""

    number: int
    round: int
    session: bytes
    asked: tuple[str, ...]


@dataclass(frozen=True)
class SentAgain(Record):
    """Who declared, in which session (by number), that an update left for a second time."""

    entries: tuple[tuple[int, str], ...]


def inputs_asked_for(store: Store, out: Out) -> None:
    """Remember, durably, that inputs of this round may leave from now on."""
    store.put(_OUT, out.encode())


def last_out(store: Store) -> Out | None:
    """Return the last round whose inputs were asked for."""
    saved = store.get(_OUT)
    return None if saved is None else Out.decode(saved)


def note_sent_again(store: Store, number: int, name: str) -> None:
    """Remember, durably, that this party declared to send an update again in the session `number`."""
    with store.transaction() as t:
        saved = t.get(_AGAIN)
        known = () if saved is None else SentAgain.decode(saved).entries
        if (number, name) not in known:
            t.put(_AGAIN, SentAgain((*known, (number, name))).encode())


def sent_again_notes(store: Store) -> tuple[str, ...]:
    """Return the statement's sentence about updates that left more than once; nothing if none did."""
    saved = store.get(_AGAIN)
    if saved is None:
        return ()
    shown = ", ".join(f"{name} (session {number})" for number, name in SentAgain.decode(saved).entries)
    return (
        f"sent again: an update that had left before left a second time, by its owner's own policy: {shown}; "
        "two totals that differ by one client reveal that client",
    )


def is_spent(refusal: str) -> bool:
    """Return whether a client's refusal says that its update had left before."""
    return "SpentUpdate" in refusal
