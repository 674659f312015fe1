"""LocalDP: every update is private by itself, before anybody else sees it. For comparison: its noise grows
with every client.

Clip, round to an integer grid, add discrete Gaussian noise there (the analytic Gaussian of Balle and Wang
2018 sets its width for one release, the accountant for several). The sum then carries every client's whole
noise; no trust in server or clients is needed.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from dp.clipping import clip_or_drop
from dp.event_json import to_fact
from dp.events import Event, Relation, Unit
from dp.layering import Ledgers, Price, PricedLayer, discrete, integer_sigma
from dp.mechanisms import discrete_gaussian, to_grid
from dp.mechanisms.grid import noise_step, rounded_bound
from dp.suggestion import drowned
from protocols.errors import CapacityError
from protocols.layers import UPDATE, Aggregate, Contribution, RoundFacts, RunFacts, Signal, SumFacts
from protocols.numbers import whole
from protocols.statement import PrivacyEvent

_REACH = 40.0
"""Noise beyond this many standard deviations has probability below 2^-1150: the modulus has room for that
much."""


class LocalDP(PricedLayer):
    """Local differential privacy: every client noises its own update, in full, before anybody else sees it. The
    noise of the mean grows with every client's, so it serves for comparison (discrete Gaussian: Canonne, Kamath and
    Steinke, NeurIPS 2020). Neighbours: one client's update set to zero.

    - epsilon: price of the whole planned run at `delta`, > 0; or give `noise_multiplier` (default: None).
    - delta: in (0, 1) (default: None, the run's delta, else 1e-5).
    - clip: L2 norm of an update, > 0 (default: 1).
    - noise_multiplier: each update's noise, its standard deviation over the clip, > 0, in place of epsilon
      (default: None).
    - accountant: "rdp" (Renyi; default) or "pld" (privacy loss distributions), for calibration.
    - resolution: grid steps in a standard deviation of the noise, as a power of two, 4 to 30 (default: 14).
    - ledger: from a client's name to its own `Ledger`, as a function or a mapping, charged before its update
      leaves; None from the function for a client without one (default: None).

    A contribution's further vectors are clipped and noised beside the update, as in `ClientDP`.

    Raises Misuse for values out of range; before round 1 Misuse where no noise reaches epsilon, StackError behind a
    layer that makes integers, CapacityError where no modulus carries the sum; BudgetExceeded at a client whose own
    ledger has no room, before its update leaves.

        Federation(make, loaders, privacy=[LocalDP(epsilon=8, delta=1e-5, clip=0.5)]).fit(rounds=1).guarantees
    """

    name = "local-dp"
    charges_parties = True
    takes_blocks = True
    counts_broken_as_zero = True

    def __init__(
        self,
        epsilon: float | None = None,
        delta: float | None = None,
        clip: float = 1.0,
        noise_multiplier: float | None = None,
        accountant: str = "rdp",
        resolution: int = 14,
        ledger: Ledgers = None,
    ) -> None:
        super().__init__(Price(epsilon, delta, noise_multiplier, accountant), ledger, clip)
        self.resolution = whole("resolution", resolution, 4, 30)

    def describe(self) -> str:
        noise = f"{self.name}: discrete Gaussian noise on every update"
        return f"{noise}, clip {self.clip:g} per client, zero-out neighbours"

    def kind(self, run: RunFacts | None) -> Event:
        return discrete(1.0, Unit.CLIENT, Relation.ZERO_OUT, 1)

    def outlook(self, run: RunFacts) -> str | None:
        multiplier = self._multiplier(run) * math.sqrt(1 + len(run.blocks))
        return drowned(self.name, multiplier, self.clip, run.dimension, max(1.0, run.expected))

    def _multiplier(self, run: RunFacts) -> float:
        return self.calibrated(run, lambda: self.price.multiplier(self._once(run), run.rounds, run))

    def _once(self, run: RunFacts) -> Callable[[float], Event]:
        dims = sum(block.dimension for block in self.vectors(run).values())
        return lambda multiplier: discrete(multiplier, Unit.CLIENT, Relation.ZERO_OUT, dims)

    def _grid(self, run: RunFacts, name: str) -> tuple[float, float, float]:
        """(step, L2 bound in steps, standard deviation in steps) of one vector of a contribution."""
        multiplier = self._multiplier(run) * math.sqrt(1 + len(run.blocks))
        clip = self.clip_of(run, name)
        step = noise_step(max(multiplier, 2.0**-10) * clip, self.resolution)
        bound = rounded_bound(clip, self.vectors(run)[name].dimension, step)
        return step, bound, integer_sigma(multiplier, bound)

    def _most(self, run: RunFacts, name: str) -> int:
        """The largest integer that one client sends of one vector."""
        _, bound, sigma = self._grid(run, name)
        return math.ceil(bound + _REACH * sigma)

    def transform(self, given: Signal, facts: RoundFacts) -> Signal:
        self.takes_floats(given, facts)
        step, bound, _ = self._grid(facts.run, given.block)
        most = max(self._most(facts.run, name) for name in self.vectors(facts.run))
        modulus = 1 << (2 * len(facts.clients) * most + 1).bit_length()
        if modulus > 1 << 60:
            raise CapacityError(
                f"{modulus.bit_length() - 1} bits per value do not fit: lower the resolution or the cohort"
            )
        return replace(
            given,
            kind="integer",
            weight_cap=1,
            l2=bound * step,
            linf=None,
            exact_coordinates=False,
            step=step,
            modulus=modulus,
            bound=most,
            clip=self.clip_of(facts.run, given.block),
        )

    def encode(self, contribution: Contribution, given: Signal, facts: RoundFacts) -> Contribution:
        step, _, sigma = self._grid(facts.run, given.block)
        if given.block == UPDATE:  # for all vectors of the contribution
            self.charge(self._priced(facts.run), facts)
        clip = self.clip_of(facts.run, given.block)
        values = to_grid(clip_or_drop(contribution.vector, clip, facts.whose).vector, step)
        return Contribution(values + discrete_gaussian(facts.random, sigma, given.dimension), 1)

    def decode(self, aggregate: Aggregate, opened: SumFacts, facts: RoundFacts) -> Aggregate:
        return Aggregate(aggregate.vector.astype(float) * opened.released.step, float(len(facts.clients)))

    def events(self, facts: RoundFacts, survivors: tuple[str, ...]) -> tuple[PrivacyEvent, ...]:
        fact_for = partial(to_fact, self._priced(facts.run), "server")
        return tuple(fact_for(name) for name in survivors)

    def _priced(self, run: RunFacts) -> Event:
        return self._once(run)(self._multiplier(run))
