"""DistributedDP: noise that nobody is trusted with. Each client adds a share; only the sum, with all
shares, is ever opened.

Client level: clip, rotate, scale, conditional stochastic rounding, a discrete Gaussian or Skellam share,
modulo M. Example level (with FedSGD): the sum of clipped per-example gradients of a secret Poisson batch
takes the update's place. Each share is calibrated to the fewest survivors less the stated colluders, at least one (any
client of the sum knows the share that it added itself), and clients do not unmask fewer: noise that more survivors add
is never counted. Noise may be correlated over rounds
(`dp.correlated`): parties then send rows of C' X, of their own last vectors. Source: Kairouz, Liu and
Steinke (ICML 2021). The arithmetic is in `dp.encoding`, the rotation in `dp.rotation`.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dp import encoding
from dp.clipping import clip_or_drop
from dp.correlated.attendance import Attendance
from dp.correlated.rows import Integers, OpenedRows, combined
from dp.correlated.slots import batch
from dp.distributed_plan import DistributedPlan, NoisePlan
from dp.event_json import to_fact
from dp.events import Event, Relation, Unit
from dp.layering import Ledgers, Price
from dp.mechanisms import discrete_gaussian, skellam
from dp.mechanisms.grid import noise_step, rounded_bound, to_grid
from dp.rotation import rotate, unrotate
from dp.rounding import conditional_round, dithered_round
from dp.sample.options import ASSUMED
from dp.suggestion import drowned
from protocols.errors import Aborted, Misuse, StackError, TooFewSurvivors, require
from protocols.layers import (
    UPDATE,
    Aggregate,
    Compute,
    Contribution,
    LocalTask,
    RoundFacts,
    RunFacts,
    Signal,
    SumFacts,
)
from protocols.numbers import real, whole
from protocols.party_state import PartyState
from protocols.statement import PrivacyEvent

if TYPE_CHECKING:
    from dp.sample.own_sum import OwnSum

HISTORY_SECONDS = 30 * 86_400.0
"""How long a party keeps its last sums for a row that does not come (`_told`)."""
_FINE_BITS = 22
_EDGE = 1 - 2.0**-6


class DistributedDP(DistributedPlan):
    """Distributed differential privacy: every client adds a share of the noise before a secure sum, so that nobody
    sees a sum without it (Kairouz, Liu and Steinke, ICML 2021). It holds against the server and, beside it,
    `colluders`.

    What is promised:

    - epsilon: price of the whole planned run at `delta`, > 0; or give `noise_multiplier` (default: None).
    - delta: in (0, 1) (default: None, the run's delta, else 1e-5).
    - noise_multiplier: the noise's standard deviation over the clip, > 0, in place of epsilon (default: None).
    - unit: "client" (default), or "example", with `FedSGD` on `loss(model, batch)`.
    - accountant: "rdp" (Renyi; default) or "pld" (privacy loss distributions), for calibration; Skellam noise has
      "rdp" alone.
    - ledger: from a client's name to its own `Ledger`, as a function or a mapping, charged before its update
      leaves; None from the function for a client without one (default: None).

    Clip and noise:

    - clip: L2 norm of one unit's contribution, an update or an example's gradient, > 0 (default: 1).
    - noise: "gaussian" (discrete; default) or "skellam".
    - min_survivors: fewest clients in a total, >= 1 (default: None, the cohort less the planned drop-out).
    - colluders: clients that may tell their noise to the adversary, in [0, min_survivors) (default: None, as many
      as the secure sum withstands; fewer are refused). One share is never counted: a client knows its own.
    - bits: of the modulus (default: None, so many that rounding costs at most half a per cent).
    - overflow: the chance per round, at worst, that a coordinate wraps (default: 2^-40).

    Examples, for unit="example":

    - sample_rate: an example's secret chance to take part in a round, in (0, 1] (default: None; needed).
    - examples: the public, approximate number of all clients' examples, >= 1; sample_rate x examples is the fixed
      denominator (default: None; needed).
    - reduction: how the loss joins a batch's examples, "mean" (default) or "sum", where the check before training
      cannot find it.
    - physical_batch: the most examples in memory at once, >= 1 (default: 256).

    Correlated noise:

    - correlation: "banded" for noise that later rounds take back in part (docs/dp-correlated.md), else None
      (default).
    - batches: how many take turns, >= 2; every example lies in one of them, and sample_rate is left out (default:
      None).
    - epochs: how often each has its turn, >= 1; a run has batches x epochs rounds, which ask everybody (default:
      None).
    - bands: of the noise's matrix, 1 to batches (default: None, batches and at most 32; with amplify, 4).
    - momentum: of the server, in [0, 1), for which the noise is weighted (default: 0).
    - amplify: draw the batches by secret coins, within `bands` groups that take turns (default: False).
    - even_so: allow unit="client", where independent noise does better (default: False).

    A contribution's further vectors are clipped and noised beside the update, as in `ClientDP`.

    Raises Misuse for values out of range or that do not fit each other; before round 1 Misuse where no noise
    reaches epsilon, StackError for a layer before it that makes integers, CapacityError for a modulus that does not
    carry the sum; Aborted for a round in which a coordinate may have wrapped; BudgetExceeded at a client whose own
    ledger has no room, before its update leaves.

        privacy = [DistributedDP(epsilon=8, delta=1e-5, clip=0.5), SecAggPlus()]
        Federation(make, loaders, privacy=privacy)   # fit(rounds=50) then costs epsilon 8
    """

    name = "distributed-dp"
    protects_sums_only = True
    counts_broken_as_zero = True
    own_options = frozenset({"ledger", "physical_batch"})

    def __init__(
        self,
        epsilon: float | None = None,
        delta: float | None = None,
        clip: float = 1.0,
        unit: str = "client",
        noise: str = "gaussian",
        noise_multiplier: float | None = None,
        min_survivors: int | None = None,
        colluders: int | None = None,
        sample_rate: float | None = None,
        examples: int | None = None,
        bits: int | None = None,
        overflow: float = encoding.OVERFLOW,
        accountant: str = "rdp",
        reduction: str = "mean",
        physical_batch: int = 256,
        ledger: Ledgers = None,
        correlation: str | None = None,
        batches: int | None = None,
        epochs: int | None = None,
        bands: int | None = None,
        momentum: float = 0.0,
        amplify: bool = False,
        even_so: bool = False,
    ) -> None:
        super().__init__(Price(epsilon, delta, noise_multiplier, accountant), ledger, clip)
        require(unit in ("client", "example"), 'unit "client" or "example"', f"{unit!r}")
        require(noise in ("gaussian", "skellam"), 'noise "gaussian" or "skellam"', f"{noise!r}")
        if noise == "skellam" and accountant != "rdp":
            raise Misuse("Skellam noise has a Renyi curve only: use accountant='rdp'")
        self.colluders = None if colluders is None else whole("colluders", colluders, 0, 2**40)
        self.least = None if min_survivors is None else whole("min_survivors", min_survivors, 1, 2**40)
        self.bits = None if bits is None else whole("bits", bits, 2, encoding.MAX_BITS)
        if self.colluders is not None and self.colluders >= (self.least or math.inf):
            raise Misuse(f"expected 0 <= colluders < min_survivors, got {colluders} and {min_survivors}")
        self.noise = noise
        self.unit = Unit(unit)
        self.relation = Relation.ZERO_OUT if self.unit is Unit.CLIENT else Relation.ADD_REMOVE
        self.overflow = real(
            "overflow", overflow, "from 1e-100 to 0.5", lambda chance: 1e-100 <= chance <= 0.5
        )
        self.reduction, self.physical_batch = reduction, whole("physical_batch", physical_batch, 1)
        self.batches = 1 if batches is None else whole("batches", batches, 1)
        self.epochs = 1 if epochs is None else whole("epochs", epochs, 1)
        self.amplify = amplify
        self.correlation = self._correlated(correlation, batches, epochs, bands, momentum, even_so)
        self.keeps_state = self.one_sum = self.correlation is not None
        self._opened, self._rounds = OpenedRows(), 0
        if self.correlation is not None and self.unit is Unit.EXAMPLE:
            if sample_rate is not None:
                raise Misuse(
                    "correlated noise takes batches in turns: leave out sample_rate (amplify=True has coins)"
                )
            sample_rate = 1 / self.batches  # an example's share of the rows
        self.rate, self.examples = self._sampling(sample_rate, examples)
        self._sums: dict[str, NDArray[np.int64]] = {}
        self._own: OwnSum | None = None

    def _sampling(self, rate: float | None, examples: int | None) -> tuple[float, int]:
        if self.unit is Unit.CLIENT:
            if rate is not None or examples is not None:
                raise Misuse(
                    'sample_rate and examples are for unit="example"; a server sees which clients take part'
                )
            return 1.0, 0
        if rate is None or examples is None:
            raise Misuse(
                'unit="example" needs sample_rate, and examples, the public number of all clients\' examples'
            )
        chance = real("sample_rate", rate, "in (0, 1]", lambda number: 0 < number <= 1)
        return chance, whole("examples", examples, 1)

    # -- public arithmetic --

    @property
    def takes_blocks(self) -> bool:
        """Examples' gradients are one vector, and so is what rows of correlated noise cover."""
        return self.unit is Unit.CLIENT and self.correlation is None

    def describe(self) -> str:
        kind = "discrete Gaussian" if self.noise == "gaussian" else "Skellam"
        told = (
            "as many clients as the secure sum withstands"
            if self.colluders is None
            else f"{self.colluders} clients"
        )
        return (
            f"{self.name}: {kind} noise in shares, clip {self.clip:g} per {self.unit}, {self.relation} neighbours; at "
            f"most {told}, or one curious client, tell their noise to the adversary{self._told()}"
            + (f"; assumed: {ASSUMED}" if self.unit is Unit.EXAMPLE else "")
        )

    def _told(self) -> str:
        if self.correlation is None:
            return ""
        turns = (
            f"{self.batches} batches in turns"
            if not self.amplify
            else f"coins within {self.correlation.bands} bands"
        )
        return (
            f"; correlated over rounds, {turns}: parties keep their last sums, sealed, for as long as C' has bands, "
            "and 30 days at most without a row"
        )

    def kind(self, run: RunFacts | None) -> Event:
        return self._event(NoisePlan(encoding.Grid(1.0, 2, 2.0**10, 2.0**20), 1, 1, 1))

    def outlook(self, run: RunFacts) -> str | None:
        if self.unit is Unit.EXAMPLE:  # a step of noised gradients is short; many add up
            return None
        grid = self._plan(run).grid
        others = math.sqrt(grid.share_variance * max(1, self.survivors(run) - 1)) * grid.step / self.clip
        return drowned(self.name, others, self.clip, run.dimension, max(1.0, run.expected))

    def _step(self, plan: NoisePlan, run: RunFacts, block: str) -> float:
        return plan.grid.step * self.clip_of(run, block) / self.clip

    def transform(self, given: Signal, facts: RoundFacts) -> Signal:
        self.takes_floats(given, facts)
        self._opened.of(facts.scope)
        plan = self._plan(facts.run)
        step = self._step(plan, facts.run, given.block)
        if self.unit is Unit.CLIENT and plan.survivors > len(facts.clients):
            raise StackError(
                f"{self.name} demands {plan.survivors} survivors, the round asks {len(facts.clients)} clients"
            )
        return replace(
            given,
            kind="integer",
            dimension=plan.dims,
            weight_cap=1,
            l2=plan.grid.sensitivity * step,
            linf=None,
            exact_coordinates=False,
            step=step,
            modulus=plan.grid.modulus,
            bound=plan.grid.modulus // 2,
            min_survivors=max(given.min_survivors, plan.survivors),
            clip=self.clip_of(facts.run, given.block),
        )

    # -- the client --

    def needs_local(self) -> bool:
        """At example level alone: a client's noise and clip need its finished update, whoever trained it."""
        return self.unit is Unit.EXAMPLE

    def local(self, compute: Compute, facts: RoundFacts) -> Compute:
        if self.unit is Unit.CLIENT:
            return compute

        def gradients(task: LocalTask) -> dict[str, float]:
            from dp.sample.own_sum import OwnSum

            if self._own is None:
                self._own = OwnSum(self.rate, self.examples, self.clip, self.reduction, self.physical_batch)
            rows = None if self.correlation is None else self._batch(len(task.loader.dataset), facts)
            exact, private = self._own.of(task, self._fine_step(), facts, rows)
            self._sums[facts.client] = exact
            return private

        return gradients

    def _batch(self, examples: int, facts: RoundFacts) -> list[int]:
        """This client's examples of the round: by turns, and within bands by coins."""
        assert self.correlation is not None
        return batch(facts, self.name, examples, self.correlation.separation, self._coin)

    def _fine_step(self) -> float:
        return noise_step(self.clip, _FINE_BITS)

    def encode(self, contribution: Contribution, given: Signal, facts: RoundFacts) -> Contribution:
        plan = self._plan(facts.run)
        if self.correlation is not None:
            vector = self._row(contribution.vector, plan, facts)
            self.charge(self._row_event(plan, facts), facts)
        else:
            if given.block == UPDATE:  # for all vectors of the contribution
                self.charge(self._event(plan), facts)
            if self.unit is Unit.CLIENT:
                vector = self._client_level(contribution.vector, given.block, plan, facts)
            else:
                vector = self._example_level(plan, self._exact(facts), facts)
        noised = vector + self._share(plan, facts)
        half = plan.grid.modulus // 2
        return Contribution(np.mod(noised + half, plan.grid.modulus) - half, 1)

    def _client_level(
        self, vector: NDArray[np.float64], block: str, plan: NoisePlan, facts: RoundFacts
    ) -> NDArray[np.int64]:
        clipped = clip_or_drop(vector, self.clip_of(facts.run, block), facts.whose).vector
        bound = self.clip / plan.grid.step
        rotated = rotate(clipped, facts.seed) / self._step(plan, facts.run, block)
        norm = math.sqrt(float(np.einsum("i,i->", rotated, rotated)))  # no BLAS: see `dp.clipping.l2_norm`
        if norm > bound:  # rotation in floats can add 2^-45 to the norm
            rotated *= bound / norm * (1 - 2.0**-45)
        return conditional_round(facts.random, rotated, bound, encoding.BETA)

    def _exact(self, facts: RoundFacts) -> Integers:
        """Minus the client's exact sum of clipped gradients, on the fine grid."""
        exact = self._sums.pop(facts.client, None)
        if exact is None:
            raise StackError(
                f"{self.name} at example level computes the gradients itself: its `local` hook did not run"
            )
        return -exact

    def _example_level(self, plan: NoisePlan, exact: Integers, facts: RoundFacts) -> Integers:
        """An exact sum, rotated and rounded to nearest. Two sums that differ by one example
        differ by at most clip + fine step x sqrt(d) / 2, which the margin in `_example_clip` covers.
        """
        return np.rint(self._rotated(plan, exact, 1.0, facts)).astype(np.int64)

    def _rotated(
        self, plan: NoisePlan, exact: Integers, over: float, facts: RoundFacts
    ) -> NDArray[np.float64]:
        """A sum on the fine grid divided by `over`, in steps of the coarse one, rotated."""
        shrink = self._example_clip(exact.size)
        return rotate(exact.astype(np.float64), facts.seed) * (
            self._fine_step() * shrink / over / plan.grid.step
        )

    def _row(self, update: NDArray[np.float64], plan: NoisePlan, facts: RoundFacts) -> Integers:
        """The round's row of C' over this party's own last vectors: combined exactly, unrotated, then rounded once.

        What it keeps for coming rows is pending until this row closed, and gone if it never does. The row is taken,
        and what is kept is on disk, before this returns.
        """
        assert self.correlation is not None
        strategy, row, grid = self.correlation.strategy(facts.run.rounds), facts.number, plan.grid
        state = PartyState.of(facts, self.name)
        fixed = (
            self.clip,
            plan.dims,
            grid.modulus,
            f"{grid.step:.9g} {grid.share_variance:.9g}",
            self.batches,
            facts.clients if self.unit is Unit.CLIENT else (),  # a place among others would be another turn
        )
        self.correlation.admit(facts, self.name, Attendance(1, facts.run.rounds), fixed)
        kept = {int(name): array for name, array in state.arrays().items()}
        kept[row] = self._exact(facts) if self.unit is Unit.EXAMPLE else self._turn(update, facts)
        live = [str(j) for j in strategy.live(row, range(1, row + 1)) if j in kept]
        state.keep({name: kept[int(name)] for name in live}, live, HISTORY_SECONDS)
        rotated = self._rotated(plan, combined(strategy, row, kept), strategy.norm, facts)
        if self.unit is Unit.EXAMPLE:
            return dithered_round(facts.random, rotated)
        since = (row - 1 - self._place(facts)) % self.batches  # rows since this client's turn
        bound = (strategy.weights[since] if since < strategy.bands else 0.0) * self.clip / grid.step
        return conditional_round(facts.random, rotated, bound, encoding.BETA)

    def _place(self, facts: RoundFacts) -> int:
        """Which turn is this client's, from 0."""
        return facts.clients.index(facts.client) % self.batches

    def _turn(self, update: NDArray[np.float64], facts: RoundFacts) -> Integers:
        """A client's clipped update on the fine grid where it is its turn, else zero."""
        if (facts.number - 1) % self.batches != self._place(facts):
            return np.zeros(update.size, np.int64)
        return to_grid(clip_or_drop(update, self.clip, facts.whose).vector, self._fine_step())

    def _example_clip(self, dims: int) -> float:
        """What scales an example's rounded gradient back to the clip: 1 less the growth by rounding on the
        fine grid."""
        step = self._fine_step()
        return self.clip / (rounded_bound(self.clip, dims, step) * step) * (1 - 2.0**-24)

    def _share(self, plan: NoisePlan, facts: RoundFacts) -> NDArray[np.int64]:
        variance = plan.grid.share_variance
        if self.noise == "gaussian":
            return discrete_gaussian(facts.random, math.sqrt(variance), plan.dims)
        return skellam(facts.random, variance, plan.dims)

    # -- the server --

    def decode(self, aggregate: Aggregate, opened: SumFacts, facts: RoundFacts) -> Aggregate:
        plan = self._plan(facts.run)
        if len(opened.survivors) < plan.survivors:
            raise TooFewSurvivors(
                f"{len(opened.survivors)} clients are in the total, {plan.survivors} are needed for the stated "
                "noise; nothing is released"
            )
        edge = plan.grid.modulus / 2 * _EDGE
        if np.any(np.abs(aggregate.vector) > edge):
            raise Aborted(
                "a coordinate of the sum lies at the edge of the modulus and may have wrapped: allow "
                "more bits, or clip more"
            )
        real = aggregate.vector.astype(np.float64) * opened.released.step
        vector = unrotate(real, facts.seed, opened.given.dimension)
        if (strategy := self._strategy(facts.run)) is not None:
            vector = self._opened.of(facts.scope).take(strategy, facts.number, vector * strategy.norm)
        weight = self.rate * self.examples if self.unit is Unit.EXAMPLE else len(facts.clients) / self.batches
        return Aggregate(vector, weight)

    def events(self, facts: RoundFacts, survivors: tuple[str, ...]) -> tuple[PrivacyEvent, ...]:
        return (to_fact(self._row_event(self._plan(facts.run), facts), adversary="server"),)

    def state(self) -> dict[str, Any]:
        return self._opened.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        self._opened.restore(state)
