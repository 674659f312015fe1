"""What the server of a wrapped strategy keeps of its run: settings, the planned run, events, its layers' state.

What belongs here: these entries of the server's store, and the statement made from them. What does not: rounds
(`server`).
"""

import json
from collections.abc import Sequence
from dataclasses import asdict

from fl import settings
from fl.account import Account
from fl.flower.messages import RunHeader
from fl.settings import Settings
from protocols.errors import BudgetExceeded, Misuse
from protocols.layers import RunFacts
from protocols.stack import Stack
from protocols.statement import Event, Protection, Statement
from protocols.store import Store

NOTES = (
    "the client's policy binds a server application that misbehaves, not whoever can replace the client's code: "
    "pin the code at the site",
    "who takes part in a round is visible to the server, so its sampling amplifies nothing",
)
SUM_NOTE = (
    "without differential privacy the sum itself can reveal an update: "
    "crafted models, sybils and small cohorts do it"
)
_RUN, _MADE_WITH, _PROTECTION = "flower/run", "flower/made-with", "flower/protection"


class RunState:
    """What a run keeps in the server's store."""

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
        settings.same(json.loads(self.store.get(_MADE_WITH) or b"{}"), made_with, where)

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

    def charge(self, events: tuple[Event, ...], number: int) -> None:
        """Charge what the round spends before anything of it leaves a client; an abandoned round stays paid for.

        The statement's own list is synced before the ledger, so that neither ever knows less than was spent.
        """
        if not events:
            return
        before = list(self.account.events)
        self._keep_events([*before, *events])
        try:
            self.account.charge(events, number)
        except BudgetExceeded:
            self._keep_events(before)
            raise

    def _keep_events(self, events: Sequence[Event]) -> None:
        self.store.put("flower/events", json.dumps([asdict(event) for event in events]).encode())

    def resume(self) -> Protection | None:
        """Take back events and layers of a run that is continued; return what its last round protected."""
        self.account.events = [Event(**e) for e in json.loads(self.store.get("flower/events") or b"[]")]
        for layer in self.stack.layers:
            layer.restore(json.loads(self.store.get(f"flower/layer/{layer.name}") or b"{}"))
        kept = self.store.get(_PROTECTION)
        return None if kept is None else Statement.from_json(json.loads(kept)).protection

    def save_layers(self) -> None:
        states = {layer.name: layer.state() for layer in self.stack.layers}
        with self.store.transaction() as t:
            for name, state in states.items():
                if state:
                    t.put(f"flower/layer/{name}", json.dumps(state).encode())

    def statement(self, protection: Protection, notes: tuple[str, ...]) -> Statement:
        """Return what is protected so far, and at what price."""
        said = (*NOTES, *notes, *(() if self.account.events else (SUM_NOTE,)))
        return self.account.statement(self.stack, protection, said)
