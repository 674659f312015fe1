"""What a server keeps on disk whatever runs on it: session numbers, a round that a kill interrupted, resent updates.

What belongs here: these entries of the server's own store. What does not: a run's checkpoint and record, messages.

From the moment inputs are asked for, updates may have left their clients, and clients do not send them again
(DESIGN.md, Session). A server that is started again therefore counts that round as lost and goes on with the next one;
a round that was stopped before is played again under a new session.
"""

import os
from dataclasses import dataclass

from protocols.codec import Record
from protocols.runtime import recall
from protocols.store import Store
from protocols.summation import SecureSum

LOST = (
    "the server was stopped after inputs had been asked for: updates that left are not asked for again; "
    "the round stays paid for"
)
_NUMBER, _NAME, _INTERRUPTED, _RESENT = (
    "flower/round",
    "flower/federation",
    "flower/out",
    "flower/sent-again",
)


@dataclass(frozen=True)
class AskedRound(Record):
    """A round whose inputs were asked for. number: the session's. round: as the training counts. asked: names."""

    number: int
    round: int
    session: bytes
    asked: tuple[str, ...]


@dataclass(frozen=True)
class Resent(Record):
    """Who declared, in which session (by number), that an update left for a second time."""

    entries: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class ServerState:
    """The durable facts of one server. Every method is synced before it returns."""

    store: Store

    def next_session(self) -> int:
        """Take the next session number, from 1: clients answer a number once."""
        with self.store.transaction() as t:
            number = t.counter(_NUMBER) + 1
            t.advance(_NUMBER, number)
        return number

    def last_session(self) -> int:
        """Return the last session number that was taken (0: none)."""
        with self.store.transaction() as t:
            return t.counter(_NUMBER)

    def name(self) -> str:
        """Return the name under which clients count sessions where no roster names the federation."""
        with self.store.transaction() as t:
            name = t.get(_NAME)
            if name is None:
                name = b"federation-" + os.urandom(8).hex().encode()
                t.put(_NAME, name)
        return name.decode()

    def inputs_asked(self, round: AskedRound) -> None:
        """Remember that inputs of this round may leave from now on."""
        self.store.put(_INTERRUPTED, round.encode())

    def last_asked(self) -> AskedRound | None:
        """Return the last round whose inputs were asked for, by this process or one before it."""
        saved = self.store.get(_INTERRUPTED)
        return None if saved is None else AskedRound.decode(saved)

    def resent(self, number: int, name: str) -> None:
        """Remember that this party declared to send an update again in the session `number`."""
        with self.store.transaction() as t:
            saved = t.get(_RESENT)
            known = () if saved is None else Resent.decode(saved).entries
            if (number, name) not in known:
                t.put(_RESENT, Resent((*known, (number, name))).encode())

    def notes(self) -> tuple[str, ...]:
        """Return the statement's sentence about updates that left more than once; nothing if none did."""
        saved = self.store.get(_RESENT)
        if saved is None:
            return ()
        shown = ", ".join(f"{name} (session {number})" for number, name in Resent.decode(saved).entries)
        return (
            f"sent again: an update that had left before left a second time, by its owner's own policy: {shown}; "
            "two totals that differ by one client reveal that client",
        )

    def recall(self, protocol: SecureSum) -> bytes | None:
        """Return what the server keeps of earlier sessions: the set-up of reused keys."""
        return recall(self.store, protocol)

    def forget(self, protocol: SecureSum) -> None:
        """Drop it: after a round without a total nobody knows who holds which set-up, so the next session makes one."""
        self.store.delete(f"memory/{protocol.tag}")
