"""What a server keeps in its own store: session numbers, a round that a kill interrupted, resent updates, and before a
wrapped strategy's round is asked for, its settings, plan and events.

What belongs here: these entries. What does not: a run's checkpoint and record (`files`), messages.

From the moment inputs are asked for, updates may have left their clients, and clients do not send them again. A server
that is started again therefore counts that round as lost and goes on with the next one; a round that was stopped before
is played again under a new session.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from fl.account import Account
from fl.made_with import Settings, same
from fl.round import RunHeader
from fl.round.hidden import RESENT
from fl.round.run_files import KeptRun
from protocols.codec import Record
from protocols.errors import BudgetExceeded, Misuse
from protocols.layers import RunFacts
from protocols.stack import Stack
from protocols.statement import PrivacyEvent, Protection, Statement
from protocols.store import Store

LOST = (
    "the server was stopped after inputs had been asked for: updates that left are not asked for again; "
    "the round stays paid for"
)
OVER = "the run in %s is over, with its %d rounds: nothing is left to do. A new one goes into another folder"
# stored keys of every engine: a file of an earlier version is found by them, so the first engine's name stays
_NUMBER, _NAME, _INTERRUPTED = "flower/round", "flower/federation", "flower/out"
_RESENT, _EVENTS = "flower/sent-again", "flower/events"
_RUN, _MADE_WITH, _PROTECTION = "flower/run/2", "flower/made-with", "flower/protection"


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
class ServerFacts:
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
        """Return this run's name, under which clients count its sessions; without a roster, the federation's too."""
        with self.store.transaction() as t:
            name = t.get(_NAME)
            if name is None:
                name = b"federation-" + os.urandom(8).hex().encode()
                t.put(_NAME, name)
        return name.decode()

    def inputs_asked(self, round: AskedRound) -> None:
        """Remember that inputs of this round may leave from now on; a round's sums begin one after the other."""
        before = self.last_asked()
        if before is not None and before.round == round.round:
            round = replace(round, asked=tuple(dict.fromkeys((*before.asked, *round.asked))))
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
        return (f"{RESENT}: {shown}; two totals that differ by one client reveal that client",)


class RunState:
    """What a run keeps in the server's store, and who pays for its rounds (`fl.round.play.Payer`)."""

    def __init__(self, store: Store, stack: Stack, account: Account) -> None:
        self.store = store
        self.stack = stack
        self.account = account

    def require(self, made_with: Settings, where: str, goes_on: bool) -> None:
        """Raises Misuse unless what follows is the run that was begun here.

        made_with: what this one is made with. goes_on: whether a checkpoint says where to go on; rounds that noise was
        calibrated for are not spent a second time without one.
        """
        if self.account.calibrated and self.account.events and not goes_on:
            raise Misuse(
                "the rounds that this noise was calibrated for were spent, and there is no run to go on with: plan all "
                "rounds in one start, or make another PrivateStrategy (in another folder)"
            )
        same(json.loads(self.store.get(_MADE_WITH) or b"{}"), made_with, where)

    def run(self) -> RunFacts | None:
        """Return the run that the layers were planned for, or None before the first session."""
        kept = self.store.get(_RUN)
        return None if kept is None else RunHeader.decode(kept).facts()

    def begin(self, run: RunFacts, made_with: Settings, protection: Protection) -> None:
        """Keep what a session rests on before anything of it is asked for; from here on the run is bound to it.

        What it protects is kept too, so that a round that a kill interrupts is in the statement.
        """
        entries = {
            _RUN: RunHeader.of(run).encode(),
            _MADE_WITH: json.dumps(made_with, sort_keys=True).encode(),
            _PROTECTION: json.dumps(Statement((), protection).to_json()).encode(),
        }
        if any(self.store.get(name) != value for name, value in entries.items()):
            with self.store.transaction() as t:
                for name, value in entries.items():
                    t.put(name, value)

    def charge(self, events: Sequence[PrivacyEvent], round: int) -> None:
        """Charge what the round spends before anything of it leaves a client; an abandoned round stays paid for.

        The statement's own list is synced before the ledger, so that neither ever knows less than was spent.
        """
        if not events:
            return
        before = list(self.account.events)
        self._keep_events([*before, *events])
        try:
            self.account.charge(events, round)
        except BudgetExceeded:
            self._keep_events(before)
            raise

    def _keep_events(self, events: Sequence[PrivacyEvent]) -> None:
        self.store.put(_EVENTS, json.dumps([asdict(event) for event in events]).encode())

    def resume(self, kept: KeptRun | None) -> Protection | None:
        """Take back events and layers of a run that is continued; return what its last round protected."""
        self.account.events = [PrivacyEvent(**e) for e in json.loads(self.store.get(_EVENTS) or b"[]")]
        if kept is not None:
            for layer in self.stack.layers:
                layer.restore(kept.layers.get(layer.name, {}))
        saved = self.store.get(_PROTECTION)
        return None if saved is None else Statement.from_json(json.loads(saved)).protection
