"""What every accountant promises, and what they share: counting primitive events, rows of correlated noise at their
dearest pattern, and adding distances to delta.

Does not belong here: prices. `tests/unit/dp/test_accountants.py` holds the suite that every accountant
passes.
"""

import math
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Self

from dp.accountants.reduction import dominating
from dp.correlated.patterns import dearest
from dp.events import CorrelatedRow, Event, Relation, Unit, UnknownEvent, flatten
from protocols.errors import Misuse
from protocols.numbers import between_0_and_1, real


class Accountant(ABC):
    """Adds up events of one unit and relation, and says what they cost together.

    Events compose adaptively: each may depend on what earlier ones released. Distances (samplers, the
    reduction of discrete noise) add up to `distance`, a total variation distance t between what ran and
    what is priced; it costs (1 + exp(epsilon)) t of delta (docs/dp-account.md, section 2).
    """

    name: ClassVar[str]

    def __init__(self) -> None:
        self._listed: Counter[Event] = Counter()
        self._rows: defaultdict[CorrelatedRow, Counter[int]] = defaultdict(Counter)
        self._statement: tuple[Unit, Relation] | None = None

    def add(self, event: Event, count: int = 1) -> Self:
        """Account `count` >= 0 further times for `event`; returns itself.

        Raises UnknownEvent where there is no sound price, Misuse where unit or relation differ from earlier
        events; then nothing has been added.
        """
        if type(count) is not int or count < 0:
            raise Misuse(f"expected a count of at least 0, got {count!r}")
        listed = Counter(dict[Event, int]())
        for primitive, times in flatten(event, count):
            once = primitive.event if isinstance(primitive, CorrelatedRow) else primitive
            if not self.supports(dominating(once)[0]):
                raise UnknownEvent(self._refusal(once))
            listed[primitive] += times
        if self._statement not in (None, (event.unit, event.relation)):
            raise Misuse(
                f"one account holds one unit and relation: expected {self._statement}, "
                f"got {event.unit}/{event.relation}"
            )
        self._statement = (event.unit, event.relation)
        for primitive, times in listed.items():
            if isinstance(primitive, CorrelatedRow):
                self._rows[replace(primitive, row=1)][primitive.row] += times
            else:
                self._listed[primitive] += times
        return self

    @property
    def distance(self) -> float:
        """Total variation distance between what ran and what is priced, so far."""
        return self._whole()[1]

    def _whole(self) -> tuple[Counter[Event], float]:
        """What is priced, and its distance: of a plan's rows, the participations that one unit can have had."""
        whole = Counter(self._listed)
        for plan, rows in self._rows.items():
            listed = [float(rows[row]) for row in range(1, max(rows) + 1)]
            whole[plan.event] += round(dearest(listed, plan.separation, plan.participations))
        counts, distance = Counter(dict[Event, int]()), 0.0
        for event, times in whole.items():
            reduced, each = dominating(event)
            counts[reduced] += times
            distance += each * times
        return counts, distance

    def epsilon(self, delta: float) -> float:
        """The least epsilon this accountant can state at `delta`, 0 < delta < 1; infinity where there is
        none.

        Raises Misuse for a delta outside (0, 1).
        """
        delta = between_0_and_1("delta", delta)
        counts, distance = self._whole()
        if not counts:
            return 0.0
        guess = self._epsilon(counts, delta)
        if distance == 0:
            return guess
        for _ in range(100):  # rises to the fixed point of epsilon = price(delta - (1 + exp(epsilon)) t)
            upper = guess * (1 + 1e-7) + 1e-9
            left = delta - (1 + math.exp(min(upper, 700.0))) * distance
            if left <= 0:
                return math.inf
            guess = self._epsilon(counts, left)
            if guess <= upper:
                return guess
        return math.inf

    def delta(self, epsilon: float) -> float:
        """The least delta this accountant can state at `epsilon` >= 0; at most 1. Raises Misuse for a
        negative or NaN epsilon."""
        epsilon = real("epsilon", epsilon, ">= 0", lambda number: number >= 0)
        counts, distance = self._whole()
        if not counts:
            return 0.0
        return min(1.0, self._delta(counts, epsilon) + (1 + math.exp(min(epsilon, 700.0))) * distance)

    @abstractmethod
    def supports(self, event: Event) -> bool:
        """Whether this accountant has a sound price for a primitive, already reduced event."""

    @abstractmethod
    def _epsilon(self, counts: Mapping[Event, int], delta: float) -> float: ...

    @abstractmethod
    def _delta(self, counts: Mapping[Event, int], epsilon: float) -> float: ...

    def _refusal(self, event: Event) -> str:
        return (
            f"the {self.name} accountant has no price for {type(event).__name__} under {event.relation}; "
            "use another accountant or another relation"
        )
