"""The privacy ledger: what was spent, written before it is spent, and refused before it would be too much.

Belongs here: budgets, charging, spending. Does not belong here: the file (`dp.ledger_store`), pages
(`dp.ledger_page`).

The rule for whoever releases something noised: `ledger.charge(event)` first, release after. A crash between
the two leaves a charge without a release: spending is over-counted then, never under-counted. A retry
charges again. Nothing is ever taken back.
"""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from dp import ledger_page
from dp import ledger_store as store
from dp.accountants import Accountant
from dp.accountants import accountant as make_accountant
from dp.budget import Spending, Terms
from dp.event_json import decode, encode
from dp.events import Event, Relation, Unit, UnknownEvent
from dp.ledger_head import LedgerVerdict, SignedHead
from dp.ledger_store import Entry
from protocols.errors import BudgetExceeded, Misuse, StoreError, require
from protocols.guarantee import rounded_up
from protocols.identity import Identity

Statement = tuple[str, str]
Totals = list[tuple[str, str, str, str, int]]


@dataclass(frozen=True)
class Charge:
    """`count` times `event`, for the data of `party` ("" for every one's), with a note of its own for whoever
    reads it. Raises Misuse for a count below 1."""

    event: Event
    count: int = 1
    party: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        require(type(self.count) is int and self.count >= 1, "a count of at least 1", f"{self.count!r}")
        store.checked_text("party", self.party)
        store.checked_text("note", self.note)

    def row(self) -> dict[str, Any]:
        """The columns that this charge fills. Raises UnknownEvent."""
        event = encode(self.event)
        return {
            "party": self.party,
            "unit": str(self.event.unit),
            "relation": str(self.event.relation),
            "event": event,
            "count": self.count,
            "note": self.note,
        }


class Ledger:
    """An append-only account of privacy events with a budget, in a file that threads and processes may share.

    - path: of the file; made with the terms below, or opened where it exists.
    - epsilon: the budget, >= 0, infinity to record only (default: None, an existing ledger's).
    - delta: at which epsilon is counted, in (0, 1) (default: None, an existing ledger's).
    - accountant: "pld" (privacy loss distributions; default) or "rdp" (Renyi), for every price.
    - dataset: a name for whose data it counts, printable, at most 500 characters (default: "").

    A federation keeps one, in which `party` names whose data an event spends ("" for every client's). A client
    keeps one per data set (`for_dataset`), which adds up over federations, runs, rounds and retries. Charge first,
    then release. Each unit and relation has a price of its own, and the budget limits each.

    Raises Misuse for terms that are missing, out of range or not those of the existing ledger, StoreError for a
    file that is no ledger. `charge` raises BudgetExceeded, and writes nothing, where the budget has no room.

        ledger = Ledger("budget.ledger", epsilon=8.0, delta=1e-5)
        Federation(make, loaders, privacy=[ClientDP(noise_multiplier=2.0), SecAggPlus()], ledger=ledger).fit(rounds=1)
        ledger.epsilon(), [entry.event for entry in ledger.entries()]
    """

    def __init__(
        self,
        path: str | Path,
        *,
        epsilon: float | None = None,
        delta: float | None = None,
        accountant: str = "pld",
        dataset: str = "",
    ) -> None:
        self.path = Path(path)
        if epsilon is None or delta is None:
            if not self.path.exists():
                raise Misuse(f"there is no ledger at {self.path.name}: give epsilon and delta to make one")
            self.terms = Terms.from_plain(store.load(self.path))
        else:
            wanted = Terms(epsilon, delta, accountant, dataset)
            self.terms = Terms.from_plain(store.create(self.path, wanted.to_plain()))
            if self.terms != wanted:
                raise Misuse(
                    f"the ledger {self.path.name} has other terms: it holds {self.terms}, given were {wanted}"
                )

    @classmethod
    def for_dataset(cls, folder: str | Path, dataset: str, **terms: Any) -> Self:
        """A client's ledger for one data set: the same name gives the same file, whatever federation or run
        asks."""
        name = hashlib.sha256(store.checked_text("dataset", dataset).encode()).hexdigest()[:32]
        return cls(Path(folder) / f"{name}.ledger", dataset=dataset, **terms)

    def charge(
        self, event: Event, count: int = 1, *, run: str = "", round: int = 0, party: str = "", note: str = ""
    ) -> Entry:
        """Write down `count` times `event` and return once that is on disk. Call it before what it pays for
        is released.

        Raises BudgetExceeded, with nothing written, where the price afterwards would exceed the budget for
        any party it concerns; UnknownEvent for an event that the ledger's accountant cannot price;
        StoreError if it cannot be written.
        """
        return self.charge_all([Charge(event, count, party)], run=run, round=round, note=note)[0]

    def charge_all(
        self, charges: Iterable[Charge], *, run: str = "", round: int = 0, note: str = ""
    ) -> tuple[Entry, ...]:
        """Write several charges at once, all of them or none: what one round costs every party. Raises as
        `charge` does."""
        wanted = tuple(charges)
        common = {"run": store.checked_text("run", run), "round": int(round)}
        rows = [charge.row() for charge in wanted]
        for row in rows:
            row["note"] = row["note"] or store.checked_text("note", note)
        with store.opened(self.path) as connection, store.writing(connection):
            totals = store.totals(connection)
            for charge, row in zip(wanted, rows, strict=True):
                self._refuse_overspending(totals, charge.event, charge.count, charge.party)
                totals.append((row["unit"], row["relation"], row["party"], row["event"], row["count"]))
            return store.append(connection, [{**common, **row} for row in rows])

    def price_with(self, event: Event, count: int = 1, party: str = "") -> float:
        """The epsilon of the event's statement if it were charged now, the largest over the parties it
        concerns; writes nothing."""
        return max(self._prices_with(self._totals(), event, count, party, self.terms.accountant).values())

    def spent(self) -> tuple[Spending, ...]:
        """The price of every statement so far, in a fixed order; none before the first charge."""
        totals = self._totals()
        return tuple(
            self._spending(totals, key) for key in sorted({(unit, relation) for unit, relation, *_ in totals})
        )

    def epsilon(self, party: str | None = None) -> float:
        """The price of the only statement (the largest over parties, or for one party); 0 before the first charge.

        Raises Misuse where units or relations differ: each has a price of its own then, in `spent`.
        """
        spent = self.spent()
        if len(spent) > 1:
            raise Misuse(f"no single epsilon: {'; '.join(str(one) for one in spent)}; read spent()")
        if not spent:
            return 0.0
        return spent[0].epsilon if party is None else spent[0].parties.get(party, spent[0].parties[""])

    def to_json(self) -> dict[str, Any]:
        """Terms, prices with unit and relation, and every charge, as one JSON object
        (`dp.ledger_page.export`)."""
        return ledger_page.export(self.terms, self.spent(), self.entries())

    def page(self) -> str:
        """The same for people, as Markdown (`dp.ledger_page.page`)."""
        return ledger_page.page(self.terms, self.spent(), self.entries())

    def entries(self) -> tuple[Entry, ...]:
        """Every charge, in order."""
        with store.opened(self.path) as connection:
            return tuple(store.entries(connection))

    def verify(self, head: SignedHead | None = None, public_key: bytes | None = None) -> LedgerVerdict:
        """Check the file, the chain of charges, the head over terms and charges, and that all fits a kept head.

        head: one that `sign_head` made and somebody else kept. public_key: 32 bytes, who must have signed it. Raises
        StoreError naming what does not fit: an edited charge, charges cut off, another budget, another signer; Misuse
        for a key without a head.
        """
        with store.opened(self.path) as connection:
            charges, now = store.verify(connection)
            terms, digests = store.terms_in(connection), [entry.digest for entry in store.entries(connection)]
        if head is None:
            if public_key is not None:
                raise Misuse(
                    "a ledger's own file is not signed: give the signed head that somebody kept, too"
                )
            return LedgerVerdict("internally consistent only", charges, now)
        if public_key is not None:
            head.check_signature(public_key)
        if head.charges > charges:
            raise StoreError(
                f"the kept head is over {head.charges} charges, the ledger has {charges}: cut short"
            )
        last = digests[head.charges - 1] if head.charges else ""
        if terms != head.terms or last != head.last:
            what = "terms (the budget)" if terms != head.terms else "charges"
            raise StoreError(f"the ledger's {what} are not those of the kept head: changed or replaced since")
        level = "fits the head" if public_key is None else "verified"
        return LedgerVerdict(level, charges, now, head.charges)

    def sign_head(self, signer: Identity) -> SignedHead:
        """Return a signed head over the terms and every charge so far, after checking them, for others to keep.

        Raises StoreError as `verify` does.
        """
        with store.opened(self.path) as connection:
            charges, _ = store.verify(connection)
            rows = list(store.entries(connection))
            return SignedHead.sign(
                store.terms_in(connection), charges, rows[-1].digest if rows else "", signer
            )

    def _totals(self) -> Totals:
        with store.opened(self.path) as connection:
            return store.totals(connection)

    def _spending(self, totals: Totals, key: Statement) -> Spending:
        rows = [row for row in totals if row[:2] == key]
        parties = {row[2] for row in rows}
        prices = {
            party: self._price(_concerning(rows, party), self.terms.accountant)
            for party in sorted(parties | {""})
        }
        return Spending(
            Unit(key[0]),
            Relation(key[1]),
            max(prices.values()),
            self.terms.delta,
            self.terms.accountant,
            prices,
        )

    def _refuse_overspending(self, totals: Totals, event: Event, count: int, party: str) -> None:
        make_accountant(self.terms.accountant).add(event, count)  # an event without a price is refused first
        limit = self.terms.epsilon
        if self._quickly_within(totals, event, count, party):
            return
        prices = self._prices_with(totals, event, count, party, self.terms.accountant)
        worst = max(prices, key=prices.__getitem__)
        if prices[worst] > limit:
            whom = f" of {worst!r}" if worst else ""
            found, bound = f"to epsilon {rounded_up(prices[worst])}", f"the budget is {limit:g}"
            if math.isinf(prices[worst]):
                found, bound = "where no epsilon bounds it", "keep the ledger at a larger delta, or add noise"
            raise BudgetExceeded(
                f"the next step would bring the spending{whom} {found} at delta "
                f"{self.terms.delta:g} (per {event.unit}, {event.relation}, {self.terms.accountant}); {bound}. "
                "It was not taken"
            )

    def _quickly_within(self, totals: Totals, event: Event, count: int, party: str) -> bool:
        """Any sound accountant's price within the budget will do, and Renyi's takes milliseconds."""
        if math.isinf(self.terms.epsilon):
            return True
        try:
            prices = self._prices_with(totals, event, count, party, "rdp")
        except UnknownEvent:
            return False
        return max(prices.values()) <= self.terms.epsilon

    def _prices_with(
        self, totals: Totals, event: Event, count: int, party: str, name: str
    ) -> dict[str, float]:
        rows = [row for row in totals if row[:2] == (str(event.unit), str(event.relation))]
        rows.append((str(event.unit), str(event.relation), party, encode(event), count))
        concerned = {party} if party else {row[2] for row in rows}
        seen: dict[tuple[tuple[str, int], ...], float] = {}
        prices = {}
        for one in sorted(concerned):
            mine = _concerning(rows, one)
            key = tuple(sorted(mine.items()))
            if key not in seen:
                seen[key] = self._price(mine, name)
            prices[one] = seen[key]
        return prices

    def _price(self, counts: dict[str, int], name: str) -> float:
        account: Accountant = make_accountant(name)
        for text, count in counts.items():
            account.add(decode(text), count)
        return account.epsilon(self.terms.delta)


def _concerning(rows: Iterable[tuple[str, str, str, str, int]], party: str) -> dict[str, int]:
    """Counts by event of what spends the data of `party`: its own charges and every one's."""
    counts: dict[str, int] = {}
    for _, _, whose, event, count in rows:
        if whose in ("", party):
            counts[event] = counts.get(event, 0) + count
    return counts
