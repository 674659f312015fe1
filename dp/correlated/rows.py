"""Rows of C' x: what goes into one, exactly, and what comes out of those that were opened.

    in:   y_t = sum_j C'[t, j] x_j                       int64, exact, over the vectors that are kept
    out:  x_t = (z_t - sum_{j < t} C'[t, j] x_j) / C'[t, t]

A row that was never opened, and its column, are left out of both: what remains of C' is lower triangular still, and no
column of it is longer. Nothing here is private by itself. What does not belong here: noise, grids, who takes part.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from dp.correlated.strategy import StrategyMatrix
from protocols.errors import Misuse

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
LIMIT = 2.0**62


def combined(strategy: StrategyMatrix, row: int, kept: Mapping[int, Integers]) -> Integers:
    """y_row over the vectors of `kept` (int64, alike in length), by row; `row` itself among them or not.

    Raises Misuse where a sum could leave int64: nothing wraps.
    """
    live = {j: x for j, x in kept.items() if strategy.at(row, j)}
    sizes = {j: float(np.abs(x, dtype=np.float64).max(initial=0)) for j, x in live.items()}
    if sum(abs(strategy.at(row, j)) * size for j, size in sizes.items()) >= LIMIT:
        raise Misuse(
            f"row {row} of {strategy.bands} bands does not fit 64 bits: take a coarser grid or fewer bands"
        )
    total = np.zeros_like(next(iter(kept.values())))
    for j, x in live.items():
        total += strategy.at(row, j) * x
    return total


def decoded(strategy: StrategyMatrix, row: int, opened: Floats, known: Mapping[int, Floats]) -> Floats:
    """x_row from z_row (float64) and the rows decoded before, by row."""
    left = np.array(opened, np.float64)
    for j, x in known.items():
        if (weight := strategy.at(row, j)) and j < row:
            left -= weight * x
    left /= strategy.at(row, row)
    return left


@dataclass
class OpenedRows:
    """What a server keeps of the rows it opened, as long as later ones need it. exact: the sums themselves where the
    server adds the noise: as secret as they are. known: what was decoded. scope: the run whose rows they are.
    """

    exact: dict[int, Integers] = field(default_factory=dict, repr=False)
    known: dict[int, Floats] = field(default_factory=dict, repr=False)
    scope: str = ""

    def of(self, scope: str) -> Self:
        """Return this for a run's rows ("": no run yet). Raises Misuse while it holds another's: they would enter."""
        if self.known and scope not in ("", self.scope):
            raise Misuse(
                "correlated noise: this layer holds the last rows of another run, which is stopped or still going: "
                "give every Federation a layer of its own"
            )
        self.scope = scope or self.scope
        return self

    def take(
        self, strategy: StrategyMatrix, row: int, opened: Floats, exact: Integers | None = None
    ) -> Floats:
        """Return x_row, and keep it (and the exact sum) for the next bands - 1 rows."""
        found = decoded(strategy, row, opened, self.known)
        for kept, new in ((self.known, found), (self.exact, exact)):
            if new is not None:
                kept[row] = new  # type: ignore[assignment]  # each dict its own kind
            for gone in kept.keys() - set(strategy.live(row, range(1, row + 1))):
                del kept[gone]
        return found

    def state(self) -> dict[str, Any]:
        """Arrays by name; `restore` takes them back."""
        kept: dict[str, Any] = {f"exact/{row}": array for row, array in self.exact.items()}
        kept |= {f"known/{row}": array for row, array in self.known.items()}
        return kept | {f"scope/{self.scope}": np.zeros(0)} if kept else {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned."""
        self.exact, self.known, self.scope = {}, {}, ""
        for name, array in state.items():
            kind, _, row = name.partition("/")
            if kind in ("exact", "known"):
                getattr(self, kind)[int(row)] = array
            if kind == "scope":
                self.scope = row
