"""The federation's privacy account: events that happened, their price, and the ledger that refuses to overspend.

Prices come from `dp.accountants`. Where clients differ, the printed epsilon is their maximum. Without DP
layers nothing here imports `dp`.
"""

from collections import Counter, defaultdict
from typing import Any

from protocols.statement import Event

DEFAULT_DELTA = 1e-5


class Account:
    """Events in order, and their price at `delta` by `accountant` ("rdp" or "pld")."""

    def __init__(self, delta: float | None = None, ledger: Any = None, accountant: str = "rdp") -> None:
        self.delta = delta or DEFAULT_DELTA
        self.ledger = ledger
        self.accountant = accountant
        self.events: list[Event] = []

    def charge(self, events: tuple[Event, ...], label: str) -> None:
        """Record what is about to be released, in the ledger first.

        label: names the release ("round 3 of ..."). Raises BudgetExceeded; then nothing may be released.
        """
        if not events:
            return
        if self.ledger is not None:
            from dp.event_json import from_fact

            self.ledger.charge([from_fact(event) for event in events], label)
        self.events.extend(events)

    def price(self) -> float | None:
        """Return the largest client's epsilon at `delta`, None if nothing was spent."""
        if not self.events:
            return None
        from dp.event_json import from_fact

        by_party: dict[str, Counter[Any]] = defaultdict(Counter)
        for fact in self.events:
            by_party[fact.party][from_fact(fact)] += 1
        common = by_party.pop("", Counter())
        return max(self._epsilon(common + own) for own in by_party.values() or [Counter()])

    def _epsilon(self, counts: "Counter[Any]") -> float:
        from dp.accountants import accountant

        account = accountant(self.accountant)
        for event, times in counts.items():
            account.add(event, times)
        return account.epsilon(self.delta)
