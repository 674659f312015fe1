"""The node's privacy ledger: it belongs to a data set and is charged before anything leaves the node.

What belongs here: charging the ledger, and the policy's largest epsilon. What does not: where the files lie (`site`),
how events are priced (`dp`). The ledger adds up over federations, runs, rounds and retries over the same data. It is
the node's own: no message of a server changes what it counts.
"""

import hashlib
import math
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from dp.event_json import from_fact, to_fact
from dp.events import always_asked
from dp.ledger import Ledger
from fl.account import DEFAULT_DELTA, PLANNED
from protocols.errors import PolicyRefusal, RollbackDetected
from protocols.roundplan import RoundPlan
from protocols.statement import PrivacyEvent
from protocols.store import MemoryStore, Store
from protocols.store.files import locked

LEDGER = "own.ledger"
LOCK_SECONDS = 60.0
SENT_AGAIN = "an update that had left before is sent again, as this node's policy allows"


@dataclass(frozen=True)
class PartyLedger:
    """The ledger of one data set. folder: where it lies; nodes over the same data name the same one.

    dataset: its name; "" for a site's only one. delta: at which it is priced, by Renyi accounting. store: the node's
    own, which remembers how long the data set's ledger was, wherever it lay: one that got shorter was restored from a
    copy and would under-count.
    """

    folder: Path
    dataset: str = ""
    delta: float = DEFAULT_DELTA
    store: Store = field(default_factory=MemoryStore, repr=False)

    def require(self, events: tuple[PrivacyEvent, ...], limit: float | None) -> None:
        """Check the price of a round before training, which may take hours. limit: the most that the node accepts,
        None for no limit. Raises PolicyRefusal where one of the events would bring the node above it, or where there
        are no events.
        """
        if limit is None:
            return
        if not events:
            raise PolicyRefusal(
                f"max_epsilon: this node accepts at most {limit:g}, and no layer of this run bounds what it loses"
            )
        ledger = self._ledger()
        for event in events:
            if event.kind != PLANNED:  # the layer says what it is before it trains (`RoundFacts.afford`)
                _afford(ledger, event, limit)

    def charge(
        self, events: tuple[PrivacyEvent, ...], limit: float | None, *, run: str, round: int, again: bool
    ) -> None:
        """Write the events down, synced, before anything of the round leaves. again: the update left before.

        Raises PolicyRefusal as `require` does: another process of this site may have charged meanwhile. Misuse for
        events that have no price.
        """
        if not events:
            return
        ledger, note = self._ledger(), SENT_AGAIN if again else ""
        with locked(ledger.path.with_suffix(".lock"), LOCK_SECONDS):
            for event in events:
                if limit is not None:
                    _afford(ledger, event, limit)
                ledger.charge(from_fact(event), run=run, round=round, note=note)
            with self.store.transaction() as t:
                t.advance(self._counter, len(ledger.entries()))  # which grew: fewer would be a copy put back

    def _ledger(self) -> Ledger:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        named = partial(Ledger.for_dataset, self.folder, self.dataset)
        made = named if self.dataset else partial(Ledger, self.folder / LEDGER)
        ledger = made(epsilon=math.inf, delta=self.delta, accountant="rdp")
        with self.store.transaction() as t:
            known = t.counter(self._counter)
        if (found := len(ledger.entries())) < known:
            raise RollbackDetected(
                f"{ledger.path.name} holds {found} charges, this node has seen {known}: it was restored from a copy, "
                "replaced, or left in another folder (`ledgers`), and would under-count. Put the newest one there"
            )
        return ledger

    @property
    def _counter(self) -> str:
        # of every engine: another key would forget what a node has paid, so the first engine's name stays
        return f"flower/account/{hashlib.sha256(self.dataset.encode()).hexdigest()}"


def _afford(ledger: Ledger, event: PrivacyEvent, limit: float) -> None:
    if (price := ledger.price_with(from_fact(event))) > limit:
        raise PolicyRefusal(
            f"max_epsilon: this round would bring this node to {price:.3g}, it accepts {limit:g}"
        )


def party_events(plan: RoundPlan, name: str) -> tuple[PrivacyEvent, ...]:
    """Return what the round spends of the data of `name`, priced as if every round asked it: a client cannot see how
    the server chose, so no choice of clients makes its own price smaller. Raises Misuse for events that have no price.
    """
    spent = tuple(e for e in plan.events(plan.facts.clients) if e.party in ("", name))
    if not spent:
        return ()
    always = tuple(to_fact(always_asked(from_fact(e)), e.adversary, e.party) for e in spent)
    return tuple(replace(fact, layer=event.layer) for fact, event in zip(always, spent, strict=True))
