"""The federation's privacy account: events that happened, their price, and the ledger that refuses to overspend.

Prices come from `dp.accountants`, one guarantee per unit, relation, adversary and delta. Where clients differ, a
guarantee's epsilon is their maximum.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dp.accountants import accountant as accountant_of
from dp.event_json import decode, from_fact, to_fact
from dp.events import Planned, UnknownEvent
from dp.ledger import Charge, Ledger
from dp.ledger_store import Entry
from protocols.errors import Misuse
from protocols.guarantee import AGAINST, EVALUATION, Guarantee
from protocols.layers import PrivacyLayer
from protocols.stack import Stack
from protocols.statement import PrivacyEvent, Protection, Statement

DEFAULT_DELTA = 1e-5
PLANNED = "Planned"
"""Kind of an event that promises the price of a whole run, whatever part of it happens (`dp.events.Planned`)."""
_AGAINST = ", against "
Key = tuple[str, str, str, float]
"""Unit, relation, adversary, delta: what one guarantee is about."""
Listed = tuple[Key, PrivacyEvent, Any]
"""An event with what its guarantee is about, and as its accountant prices it."""


class Account:
    """Events in order, and what they cost.

    Each event is priced at its layer's own delta (else `delta`, else 1e-5) by its layer's own accountant; events of
    no known layer at the first layer's. run: names the run in the ledger. accountant: in place of the layers' own.
    rounds: those charged by this process.
    """

    def __init__(
        self,
        layers: Sequence[PrivacyLayer] = (),
        delta: float | None = None,
        ledger: Ledger | None = None,
        run: str = "",
        accountant: str = "",
    ) -> None:
        prices = {
            layer.name: price for layer in layers if (price := getattr(layer, "price", None)) is not None
        }
        self._deltas = {name: price.delta or delta or DEFAULT_DELTA for name, price in prices.items()}
        self._accountants = {name: accountant or str(price.accountant) for name, price in prices.items()}
        self._default = next(iter(self._deltas.values()), delta or DEFAULT_DELTA)
        # noise that was calibrated for an epsilon holds for the rounds that were planned, and no more
        self.calibrated = any(price.epsilon is not None for price in prices.values())
        self.ledger, self.run = ledger, run
        self.events: list[PrivacyEvent] = []
        self.rounds: set[int] = set()

    @property
    def delta(self) -> float:
        """The least delta of the layers: what a ledger for the whole stack can be kept at."""
        return min(self._deltas.values(), default=self._default)

    @property
    def accountant(self) -> str:
        """The layers' accountant; "rdp" where they differ."""
        return next(iter(names)) if len(names := set(self._accountants.values())) == 1 else "rdp"

    def charge(self, events: Sequence[PrivacyEvent], round: int) -> None:
        """Record what is about to be released, in the ledger first (synced before this returns).

        Raises BudgetExceeded; then nothing may be released.
        """
        if self.ledger is not None:
            charges = [Charge(from_fact(event), party=event.party, note=_note(event)) for event in events]
            self.ledger.charge_all(charges, run=self.run, round=round)
        self.events.extend(events)
        self.rounds.add(round)

    def check(self, events: Sequence[PrivacyEvent]) -> None:
        """Refuse kinds of events that the ledger cannot price. Raises UnknownEvent (a Misuse)."""
        if self.ledger is None or not events:
            return
        for event in events:
            accountant_of(self.ledger.terms.accountant).add(from_fact(event))

    def restore(self, events: Sequence[PrivacyEvent], run: str, last: int = 0) -> None:
        """Go on with an interrupted run's account: what its checkpoint knew, and what the ledger was charged since.

        last: the last round that the checkpoint knows. The ledger, whichever the run began with, may know of a later
        one that was paid for and never finished: it counts, for the layer and against the adversary that its charge
        names. Raises Misuse where an earlier version, whose charges name neither, wrote it.
        """
        self.run = run
        self.events = list(events)
        if self.ledger is None:
            return
        later = [entry for entry in self.ledger.entries() if entry.run == run and entry.round > last]
        self.events.extend(_charged(entry) for entry in later for _ in range(entry.count))

    def guarantees(self) -> tuple[Guarantee, ...]:
        """Return the price of everything so far, a line per unit, relation, adversary and delta; none if nothing was
        spent. Each is the largest client's, of training and evaluation together where the adversary sees both.
        """
        return self._priced(self.events)

    def statement(self, stack: Stack, protection: Protection, notes: Sequence[str]) -> Statement:
        """Return what is protected so far, from whom, under which assumption, at what price."""
        return Statement(stack.describe(), protection, tuple(self.events), tuple(notes), self.guarantees())

    def _priced(self, events: Sequence[PrivacyEvent]) -> tuple[Guarantee, ...]:
        if not events:
            return ()
        promised = {(fact.layer, fact.party) for fact in events if fact.kind == PLANNED}
        # what is a part of a promise is priced with it
        facts = [f for f in events if f.kind == PLANNED or (f.layer, f.party) not in promised]
        listed = [(self._key(fact), fact, from_fact(fact)) for fact in facts]
        releases = {_evaluates(fact) for fact in facts}
        lines = []
        for key in dict.fromkeys(key for key, _, _ in listed):
            counted = [each for release in releases for each in _nearest(key, release, listed)]
            spent: dict[str, Counter[Any]] = defaultdict(Counter)
            for _, fact, event in counted:
                spent[fact.party][event] += 1
            alone = {_evaluates(fact) for _, fact, _ in counted} != releases
            lines.append(self._guarantee(key, [fact.layer for _, fact, _ in counted], spent, alone))
        return tuple(lines)

    def _key(self, fact: PrivacyEvent) -> Key:
        return fact.unit, fact.relation, fact.adversary, self._deltas.get(fact.layer, self._default)

    def _guarantee(
        self, key: Key, of: list[str], spent: Mapping[str, Counter[Any]], alone: bool
    ) -> Guarantee:
        layers = tuple(dict.fromkeys(layer for layer in of if layer))
        common = spent.get("", Counter())
        totals = [common + own for party, own in spent.items() if party] or [common]
        for name in dict.fromkeys(
            [*(self._accountants.get(layer, self.accountant) for layer in layers), "rdp"]
        ):
            try:
                epsilon = max(_epsilon(counts, key[3], name) for counts in totals)
            except UnknownEvent as error:  # this accountant has no sound price for one of them
                refused = error
                continue
            return Guarantee(*key[:3], epsilon, key[3], name, layers, alone)
        raise refused


def _evaluates(fact: PrivacyEvent) -> bool:
    return fact.layer.startswith(EVALUATION)


def _nearest(key: Key, evaluates: bool, listed: Sequence[Listed]) -> list[Listed]:
    """What a line counts of training or evaluation: its own events; where there are none, those of its unit and
    relation whose noise holds against a stronger adversary, of the nearest. Its own adversary sees that release too.
    """
    of = [each for each in listed if _evaluates(each[1]) is evaluates and each[0][:2] == key[:2]]
    if own := [each for each in of if each[0] == key]:
        return own
    order = list(AGAINST)
    for adversary in reversed(order[: order.index(key[2]) + 1]):
        if found := [each for each in of if each[0][2] == adversary]:
            return found
    return []


def _note(event: PrivacyEvent) -> str:
    """What a charge says of an event beside its price, for `_charged` to read."""
    return f"{event.layer}{_AGAINST}{event.adversary}"


def _charged(entry: Entry) -> PrivacyEvent:
    layer, named, adversary = entry.note.rpartition(_AGAINST)
    if not named:
        raise Misuse(
            f"round {entry.round} of this run was paid for and never finished, under an earlier version, whose charge "
            "does not say which layer spent it: begin anew in another folder; what was spent stays in the ledger"
        )
    return replace(to_fact(decode(entry.event), adversary, entry.party), layer=layer)


def _epsilon(counts: Counter[Any], delta: float, name: str) -> float:
    if len(counts) == 1 and isinstance(whole := next(iter(counts)), Planned) and whole.delta <= delta:
        return whole.epsilon  # once, whatever part of the plan it was listed for
    account = accountant_of(name)
    for event, times in counts.items():
        account.add(event, times)
    return account.epsilon(delta)
