"""What a layer is told of its correlated noise, checked, and what follows from it for a planned run.

Does not belong here: C' itself (`strategy`), vectors (`rows`), noise.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from dp.correlated.attendance import Attendance
from dp.correlated.patterns import dearest
from dp.correlated.strategy import MOST_ROWS, StrategyMatrix, optimised
from dp.events import CorrelatedRow, Event
from protocols.errors import Misuse, refuse, require
from protocols.layers import RoundFacts, RunFacts, Value
from protocols.numbers import real, whole
from protocols.turns import groups_of

USUAL_BANDS = 32
"""Where bands=None and the separation allows: more gain little, and each is a vector that somebody keeps."""
STRATEGY = "strategy"
"""Under this name a layer broadcasts C', so that it is in the session's digest."""


@dataclass(frozen=True)
class Correlation:
    """Banded correlated noise. separation: rows between two participations of a unit, at least 2. participations: of a
    unit, at most (None: as many as the separation leaves room for). bands: at most the separation, or the rows of two
    participations meet and cost more (None: the separation, at most 32). momentum: of the server, by which C' is
    weighted.
    """

    separation: int
    participations: int | None = None
    bands: int | None = None
    momentum: float = 0.0

    def __post_init__(self) -> None:
        whole("separation (with 1 correlated noise gains nothing)", self.separation, 2, MOST_ROWS)
        if self.participations is not None:
            whole("participations", self.participations, 1)
        if self.bands is not None and whole("bands", self.bands, 1) > self.separation:
            raise Misuse(
                f"expected from 1 to {self.separation} bands, got {self.bands}: beyond the separation the rows of two "
                "participations meet, and cost more than both"
            )
        real("momentum", self.momentum, "in [0, 1)", lambda number: 0 <= number < 1)

    def strategy(self, rounds: int) -> StrategyMatrix:
        """C' of a run of so many rows."""
        return optimised(rounds, self.bands or min(self.separation, USUAL_BANDS), self.momentum)

    def times(self, rounds: int) -> int:
        """Participations of the dearest pattern of a run."""
        return round(dearest([1.0] * rounds, self.separation, self.participations or rounds))

    def require_turns(self, run: RunFacts, owner: str) -> None:
        """Raises Misuse for a run that asks clients before their separation is over."""
        turns = {
            "cyclic": groups_of(run.rate),
            "round-robin": run.population // run.cohort,
            "arrivals": self.separation,
        }
        if turns.get(run.sampling.split(" within")[0], 0) < self.separation:
            raise Misuse(
                f"{owner}: clients take part {self.separation} rounds apart, and {run.sampling} asks them earlier: say "
                f'sampling="cyclic" with a fraction of at most 1/{self.separation}, or "arrivals", where each comes by '
                "itself and not too early"
            )

    def attendance(self, rounds: int) -> Attendance:
        """What a party holds itself to in a run of so many rows."""
        return Attendance(self.separation, self.times(rounds))

    def row(self, once: Event, facts: RoundFacts) -> CorrelatedRow:
        """The round's event. once: what one participation costs, over all rows that it enters."""
        return CorrelatedRow(
            event=once,
            plan=facts.scope,
            row=facts.number,
            separation=self.separation,
            participations=self.times(facts.run.rounds),
            unit=once.unit,
            relation=once.relation,
        )

    def public(self, rounds: int) -> dict[str, Value]:
        """What the server broadcasts: C', as its bands."""
        return {STRATEGY: np.array(self.strategy(rounds).coefficients, np.float64)}

    def admit(self, facts: RoundFacts, owner: str, attendance: Attendance, terms: object) -> None:
        """Check that everybody was shown this party's own C', and take the row. terms: whatever else may not change.

        Raises ProtocolViolation for another C' and a row that is not planned, and what `Attendance.take` raises.
        """
        if not 1 <= facts.number <= facts.run.rounds:
            raise refuse(f"{owner}: expected a row from 1 to {facts.run.rounds}, got {facts.number}")
        own = self.public(facts.run.rounds)[STRATEGY]
        shown = facts.public.get(owner, {}).get(STRATEGY)
        if not (isinstance(shown, np.ndarray) and shown.dtype.kind == "f" and np.array_equal(shown, own)):
            raise refuse(
                f"{owner}: the server shows another strategy C' than this party's own for {facts.run.rounds} rounds: "
                "all must have the same options and rounds"
            )
        text = repr((np.asarray(own).tolist(), facts.run.rounds, facts.run.dimension, terms))
        attendance.take(facts, owner, hashlib.sha256(text.encode()).digest())


def chosen(
    correlation: str | None,
    separation: int | None,
    participations: int | None,
    bands: int | None,
    momentum: float,
) -> Correlation | None:
    """What a layer's arguments ask for; None for independent noise. Raises Misuse for what does not belong together."""
    require(correlation in (None, "banded"), 'correlation "banded" or None', f"{correlation!r}")
    given = (separation, participations, bands)
    if correlation is None:
        if any(value is not None for value in given) or momentum:
            raise Misuse('min_separation, participations, bands and momentum are for correlation="banded"')
        return None
    if separation is None:
        raise Misuse(
            'correlation="banded" needs min_separation: how many rounds lie between two of one client, at least; it is '
            "enforced in every client's own store"
        )
    return Correlation(separation, participations, bands, momentum)
