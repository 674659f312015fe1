"""The federation's privacy account: events that happened, their price, and the ledger that refuses to overspend.

Prices come from `dp.accountants`. Where clients differ, the printed epsilon is their maximum. Without DP
layers nothing here imports `dp`.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from protocols.statement import Event

DEFAULT_DELTA = 1e-5


class Account:
    """Events in order, and their price at `delta` by `accountant` ("rdp" or "pld").

    delta: None takes that of the first layer that names one, else 1e-5; the accountant is that layer's too.
    run: names the run in the ledger.
    """

    def __init__(
        self, layers: Sequence[Any] = (), delta: float | None = None, ledger: Any = None, run: str = ""
    ) -> None:
        prices = [layer.price for layer in layers if getattr(layer, "price", None) is not None]
        named = [price.delta for price in prices if price.delta is not None]
        self.delta: float = delta or (named[0] if named else DEFAULT_DELTA)
        self.accountant: str = prices[0].accountant if prices else "rdp"
        # noise that was calibrated for an epsilon holds for the rounds that were planned, and no more
        self.calibrated = any(price.epsilon is not None for price in prices)
        self.ledger, self.run = ledger, run
        self.events: list[Event] = []

    def charge(self, events: Sequence[Event], round: int) -> None:
        """Record what is about to be released, in the ledger first (synced before this returns).

        Raises BudgetExceeded; then nothing may be released.
        """
        if self.ledger is not None:
            from dp.event_json import from_fact
            from dp.ledger import Charge

            charges = [Charge(from_fact(event), party=event.party) for event in events]
            self.ledger.charge_all(charges, run=self.run, round=round)
        self.events.extend(events)

    def restore(
        self, events: Sequence[Event], run: str, adversaries: Mapping[str, str] | None = None
    ) -> None:
        """Go on with an interrupted run's account: what its checkpoint knew, or all that the ledger was charged.

        The ledger may know of a round that was paid for and never finished: it counts. A ledger does not say
        against whom an event holds: adversaries does, by the event's kind (else "public").
        """
        self.run = run
        self.events = list(events)
        if self.ledger is None:
            return
        from dp.event_json import decode, to_fact

        charged = [entry for entry in self.ledger.entries() if entry.run == run]
        listed = [to_fact(decode(e.event), party=e.party) for e in charged for _ in range(e.count)]
        if len(listed) > len(self.events):
            held = adversaries or {}
            self.events += [
                replace(fact, adversary=held.get(fact.kind, fact.adversary))
                for fact in listed[len(self.events) :]
            ]

    def price(self) -> float | None:
        """Return the largest client's epsilon at `delta`, None if nothing was spent.

        Events of different units or neighbouring relations are statements of their own: each holds at its
        price, and the largest is returned.
        """
        if not self.events:
            return None
        from dp.event_json import from_fact

        statements: dict[tuple[str, str], dict[str, Counter[Any]]] = defaultdict(lambda: defaultdict(Counter))
        for fact in self.events:
            statements[fact.unit, fact.relation][fact.party][from_fact(fact)] += 1
        return max(self._largest(by_party) for by_party in statements.values())

    def _largest(self, by_party: "dict[str, Counter[Any]]") -> float:
        common = by_party.pop("", Counter())
        return max(self._epsilon(common + own) for own in by_party.values() or [Counter()])

    def _epsilon(self, counts: "Counter[Any]") -> float:
        from dp.accountants import accountant

        account = accountant(self.accountant)
        for event, times in counts.items():
            account.add(event, times)
        return account.epsilon(self.delta)
