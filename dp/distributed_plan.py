"""What a distributed layer plans from its options and the public facts of a run: grid, shares, strategy and price.

All of it is the same on every machine. What does not belong here: what a client sends and the server decodes
(`dp.distributed`), the arithmetic of grids (`dp.encoding`).
"""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from dp import encoding
from dp.correlated.options import Correlation
from dp.correlated.strategy import StrategyMatrix
from dp.events import DiscreteGaussianSum, Event, Relation, Skellam, Unit
from dp.layering import PricedLayer, discrete
from dp.mechanisms import SAMPLER_DISTANCE
from dp.rotation import padded
from dp.rounding import l1_bound
from protocols.errors import Misuse, StackError, require
from protocols.layers import RoundFacts, RunFacts, Value


@dataclass(frozen=True)
class NoisePlan:
    """What follows from options and run, the same on every machine. grid: of the update; a further vector's steps are
    in proportion to its clip. dims: of each vector. rows: that one contribution enters. vectors: of a contribution.
    """

    grid: encoding.Grid
    dims: int
    survivors: int
    shares: int
    rows: int = 1
    vectors: int = 1


def unknown(survivors: int, colluders: int) -> int:
    """Return how many shares of noise an adversary does not know at least: the colluders, or any one client of the sum,
    subtract their own; whoever the sum tells of adds one in any case.
    """
    return max(1, survivors - max(1, colluders))


class DistributedPlan(PricedLayer):
    """The planning half of `DistributedDP`, whose options these are."""

    unit: Unit
    relation: Relation
    noise: str
    colluders: int | None
    least: int | None
    bits: int | None
    overflow: float
    rate: float
    examples: int
    batches: int
    epochs: int
    amplify: bool
    correlation: Correlation | None
    _rounds: int

    def _correlated(
        self,
        correlation: str | None,
        batches: int | None,
        epochs: int | None,
        bands: int | None,
        momentum: float,
        even_so: bool,
    ) -> Correlation | None:
        if correlation is None and not (batches or epochs or bands or momentum or self.amplify):
            return None
        if correlation != "banded" or batches is None or epochs is None or epochs < 1 or batches < 2:
            raise Misuse(
                'correlated noise needs correlation="banded", batches >= 2 (how many take turns) and epochs >= 1, '
                f"which the other options are for; got {correlation!r}, batches={batches} and epochs={epochs}"
            )
        if self.noise != "gaussian":
            raise Misuse('correlated noise is a discrete Gaussian: say noise="gaussian"')
        if self.unit is Unit.CLIENT and (self.amplify or not even_so):
            raise Misuse(
                f"{self.name} at client level: everybody who sends in every round, with independent noise, does better "
                "than clients that take turns under correlated noise, for the same traffic: leave out correlation. "
                'unit="example" gains by it; even_so=True plays it nevertheless (without amplify)'
            )
        if not self.amplify:
            return Correlation(batches, epochs, bands, momentum)
        bands = bands or min(4, batches)
        require(
            bands <= batches, f"at most {batches} bands", f"{bands}: a coin of probability bands / batches"
        )
        return Correlation(bands, None, bands, momentum)

    @property
    def _coin(self) -> float:
        """The chance that is claimed for an example's coin; 1 where nothing is sampled in secret."""
        if self.correlation is None:
            return self.rate
        return (self.correlation.bands or 1) / self.batches if self.amplify else 1.0

    def _strategy(self, run: RunFacts) -> StrategyMatrix | None:
        return None if self.correlation is None else self.correlation.strategy(run.rounds)

    def plan(self, run: RunFacts) -> None:
        if self.correlation is None:
            return
        if (run.rounds, run.sampling) != (self.batches * self.epochs, "all"):
            raise Misuse(
                f"{self.name}: {self.batches} batches and {self.epochs} epochs make {self.batches * self.epochs} "
                f"rounds, each of which asks everybody, for who holds history sends it; planned are {run.rounds}, "
                f"sampling {run.sampling!r}"
            )
        self._rounds = run.rounds

    def public(self) -> dict[str, Value]:
        return self.correlation.public(self._rounds) if self.correlation and self._rounds else {}

    def _plan(self, run: RunFacts) -> NoisePlan:
        return self.calibrated(run, lambda: self._calibrated(run))

    def _calibrated(self, run: RunFacts) -> NoisePlan:
        survivors = self.survivors(run)
        colluders = self._colluders(run)
        if survivors <= colluders:
            raise Misuse(
                f"{survivors} survivors less {colluders} colluders leave nobody to add noise; demand more survivors"
            )
        shares = unknown(survivors, colluders)
        dims = padded(run.dimension)
        if others := [b.name for b in run.blocks if padded(b.dimension) != dims]:
            raise StackError(
                f"{self.name} shares one grid between vectors of one length; the block {others[0]!r} is of another"
            )
        vectors = len(self.vectors(run))
        draft = encoding.Demand(
            self.clip, dims, run.cohort, shares, 1.0, self._units(run), conditional=self.unit is Unit.CLIENT
        )
        times, rows = run.rounds, 1
        if self.correlation is not None:
            strategy = self.correlation.strategy(run.rounds)
            draft = replace(draft, weights=strategy.weights, dithered=self.unit is Unit.EXAMPLE)
            times, rows = self.correlation.times(run.rounds), strategy.bands
        multiplier = self.price.multiplier(
            lambda m: discrete(m, self.unit, self.relation, vectors * dims * rows, shares, self._coin),
            times,
            run,
        )
        grid = self._grid(draft, multiplier, vectors)
        planned = NoisePlan(grid, dims, survivors, shares, rows, vectors)
        if self.price.noise_multiplier is None and self.noise == "skellam":
            planned = self._skellam_plan(planned, draft, multiplier, run)
        return planned

    def _skellam_plan(
        self, planned: NoisePlan, draft: encoding.Demand, multiplier: float, run: RunFacts
    ) -> NoisePlan:
        """Skellam noise costs a little more, the more the coarser the grid: raise the multiplier until the
        chosen grid keeps the price."""
        while True:
            needed = self.price.multiplier(partial(self._skellam, planned), run.rounds, run)
            if needed <= multiplier:
                return planned
            multiplier = needed * (1 + 1e-3)
            planned = replace(planned, grid=self._grid(draft, multiplier, planned.vectors))

    def _grid(self, draft: encoding.Demand, multiplier: float, vectors: int) -> encoding.Grid:
        """Of each of so many vectors, noised by `multiplier` times what one unit moves all of them by."""
        demand = replace(draft, multiplier=multiplier * math.sqrt(vectors))
        return encoding.choose(demand, self.bits, self.overflow / vectors)

    def survivors(self, run: RunFacts) -> int:
        """The fewest clients in a total of this run."""
        if self.least is not None:
            return self.least
        slack = 4 * math.sqrt(run.expected) if run.sampling == "poisson" else 0.0
        return max(self._colluders(run) + 1, math.floor((run.expected - slack) * (1 - run.dropout)))

    def _colluders(self, run: RunFacts) -> int:
        """How many clients' noise is not counted. Raises StackError for fewer than may work with the server."""
        if self.colluders is None:
            return run.corrupt
        if self.colluders < run.corrupt:
            raise StackError(
                f"{self.name}: colluders={self.colluders}, but of {run.cohort} clients the secure sum withstands "
                f"{run.corrupt} that work with the server and tell it their noise: leave colluders out, or plan the "
                "sum with a smaller collusion"
            )
        return self.colluders

    def _units(self, run: RunFacts) -> float:
        """How many clips a sum holds at most: clients, or examples (beyond twice the expected number only
        with chance 2^-60)."""
        if self.unit is Unit.CLIENT:
            return run.cohort
        expected = self.rate * self.examples
        return min(self.examples, expected + 10 * math.sqrt(expected) + 100)

    def _skellam(self, plan: NoisePlan, multiplier: float) -> Event:
        variance = (multiplier * plan.grid.sensitivity) ** 2 * plan.vectors
        return self._event(replace(plan, grid=replace(plan.grid, share_variance=variance / plan.shares)))

    def _event(self, plan: NoisePlan) -> Event:
        """The account's view of one round: the guaranteed least noise."""
        grid, dims = plan.grid, plan.vectors * plan.dims * plan.rows
        moved = grid.sensitivity * math.sqrt(plan.vectors)
        common: dict[str, Any] = {
            "shares": plan.shares,
            "dims": dims,
            "sample_rate": self._coin,
            "unit": self.unit,
            "relation": self.relation,
        }
        if self.noise == "gaussian":
            # the chance that a dithered row moves further than stated, as distance
            if self.correlation is not None:
                common["sampler_distance"] = SAMPLER_DISTANCE + encoding.DITHERED / plan.dims
            return DiscreteGaussianSum(sensitivity=moved, share_variance=grid.share_variance, **common)
        total = grid.share_variance * plan.shares
        return Skellam(l1=l1_bound(moved, dims), l2=moved, variance=total, **common)

    def _row_event(self, plan: NoisePlan, facts: RoundFacts) -> Event:
        event = self._event(plan)
        return event if self.correlation is None else self.correlation.row(event, facts)
