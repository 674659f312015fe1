"""A mixed-integer program, row by row, for HiGHS (`scipy.optimize.milp`). What does not belong here: any protocol."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

Terms = Mapping[int, float]


class Undecided(Exception):
    """The solver ran out of time before it found a solution or excluded one."""


class Program:
    """Binary variables, linear rows, one objective that is made small."""

    def __init__(self) -> None:
        self.costs: list[float] = []
        self.tops: list[float] = []
        self._rows: list[Terms] = []
        self._low: list[float] = []
        self._seen: set[tuple[object, float]] = set()

    def new(self, cost: float = 0.0) -> int:
        """Return a new binary variable."""
        self.costs.append(cost)
        self.tops.append(1.0)
        return len(self.costs) - 1

    def fix(self, variable: int) -> None:
        """The variable is 0."""
        self.tops[variable] = 0.0

    def least(self, terms: Terms, low: float) -> None:
        """Demand sum(terms) >= low; a row that is there already, or always true, is left out."""
        terms = {k: v for k, v in terms.items() if v}
        if sum(min(v, 0.0) for v in terms.values()) >= low:
            return
        key = (frozenset(terms.items()), low)
        if key not in self._seen:
            self._seen.add(key)
            self._rows.append(terms)
            self._low.append(low)

    def implies(self, one: int, *others: int) -> None:
        """one <= each of the others."""
        for other in others:
            self.least({other: 1.0, one: -1.0}, 0.0)

    def solve(self, seconds: float) -> NDArray[np.bool_] | None:
        """Return values that keep every row, or None where there are none. Raises Undecided after `seconds`."""
        counts = [len(row) for row in self._rows]
        columns = np.fromiter((k for row in self._rows for k in row), np.int64)
        values = np.fromiter((v for row in self._rows for v in row.values()), float)
        starts = np.concatenate([[0], np.cumsum(counts)])
        matrix = csr_array((values, columns, starts), shape=(len(counts), len(self.costs)))
        found = milp(
            np.array(self.costs),
            integrality=np.ones(len(self.costs), np.int64),
            bounds=Bounds(0.0, np.array(self.tops)),
            constraints=LinearConstraint(matrix, np.array(self._low), np.inf),
            options={"time_limit": seconds},
        )
        if found.x is not None:
            return np.asarray(found.x > 0.5)
        if found.status == 2:
            return None
        raise Undecided(f"no answer within {seconds:g} s: {found.message}")
