"""ClientDP: client-level DP-FedAvg (McMahan et al. 2018). Updates are clipped, the server adds the noise to
their sum.

The server is trusted with the noise; a secure sum in the same stack hides single updates from it, not the
sum. The clip may follow a quantile of the updates' norms (Andrew et al. 2021), whose own noise is
accounted. Noise is drawn on the integer grid of the sum. Noise may be correlated over rounds (`dp.correlated`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp.clipping import clip_or_drop
from dp.correlated import options as correlated
from dp.correlated.rows import OpenedRows, combined
from dp.event_json import to_fact
from dp.events import (
    Event,
    Failing,
    FixedSizeGaussian,
    Gaussian,
    PoissonGaussian,
    Relation,
    Unit,
    always_asked,
)
from dp.layering import Ledgers, Price, PricedLayer, discrete, integer_sigma
from dp.mechanisms import discrete_gaussian
from dp.mechanisms.envelope import Integers
from dp.mechanisms.sampling import chance_of_fewer
from dp.suggestion import drowned
from protocols.errors import Misuse, StackError
from protocols.layers import (
    UPDATE,
    Aggregate,
    Contribution,
    Coordinate,
    RoundFacts,
    RunFacts,
    Signal,
    SumFacts,
    Value,
)
from protocols.numbers import between_0_and_1, positive, whole
from protocols.statement import PrivacyEvent
from protocols.store import Store

UNCLIPPED = "unclipped"
COUNT_SHARE = 0.05
COUNT_OVER_VECTOR = 1.6
"""Noise on the count over the whole multiplier: (2 x 1.6)^-2 is a tenth of the budget."""


@dataclass(frozen=True)
class Quantile:
    """Adaptive clipping: log(clip) moves by `rate` times how far the share of unclipped clients is from
    `target`.

    start: first clip. count_noise: standard deviation of the noise on the count of unclipped clients, as a
    share of the cohort. None: a twentieth (Andrew et al. 2021, section 3.1), or what costs a tenth of the
    budget where the cohort is small.
    """

    start: float = 0.1
    target: float = 0.5
    rate: float = 0.2
    count_noise: float | None = None

    def __post_init__(self) -> None:
        between_0_and_1("target", self.target)
        noise = 1.0 if self.count_noise is None else self.count_noise
        for name, value in (("start", self.start), ("rate", self.rate), ("count_noise", noise)):
            positive(name, value)


class ClientDP(PricedLayer):
    """Client-level differential privacy: clients clip, the server adds noise to their sum (McMahan et al., ICLR
    2018, Algorithm 1). It holds against the clients and the public, not against the server.

    What is promised:

    - epsilon: price of the whole planned run at `delta`, > 0; or give `noise_multiplier` (default: None).
    - delta: in (0, 1) (default: None, the run's delta, else 1e-5).
    - noise_multiplier: the noise's standard deviation over what one client moves the sum by, > 0, in place of
      epsilon (default: None).
    - relation: neighbours: one client's update "zero-out" (set to zero; default) or "replace" (by another).
    - amplify: count on the secret choice of clients. The promise then holds against the public alone, who and how
      many took part is withheld, and every planned round is charged (default: False).
    - accountant: "rdp" (Renyi; default) or "pld" (privacy loss distributions), for calibration.
    - ledger: from a client's name to its own `Ledger`, as a function or a mapping, charged before its update
      leaves; None from the function for a client without one (default: None).

    The sum:

    - clip: L2 norm of an update, > 0; "adaptive", or a `dp.client.Quantile`, to follow a quantile of the updates'
      norms (Andrew et al., NeurIPS 2021) (default: 1).
    - weights: "uniform" (default), or "bounded": a client counts by its examples up to `weight_cap`.
    - weight_cap: >= 1; the sensitivity grows with it (default: 1).
    - denominator: fixed number, > 0, by which the noised sum is divided (default: None, the expected cohort times
      weight_cap).

    Correlated noise:

    - correlation: "banded" for noise that later rounds take back in part (docs/dp-correlated.md), else None
      (default).
    - min_separation: rounds between two in which a client takes part, >= 2; each client's store enforces it. Needs
      sampling="cyclic" or "arrivals" (default: None).
    - participations: the most of one client, >= 1 (default: None, as many as the separation leaves room for).
    - bands: of the noise's matrix, 1 to min_separation (default: None, min_separation and at most 32).
    - momentum: of the server, in [0, 1), for which the noise is weighted (default: 0).

    Further vectors of a contribution (a control variate) are clipped to norms of their own. A round's k vectors are
    one release: each gets sqrt(k) times the noise, and the round costs what it would cost without them.

    Raises Misuse for values out of range or that do not fit each other; Misuse before round 1 where no noise
    reaches epsilon; StackError behind a layer that makes integers; BudgetExceeded at a client whose own ledger has
    no room, before its update leaves.

        privacy = [ClientDP(epsilon=8, delta=1e-5, clip=0.5), SecAggPlus()]
        Federation(make, loaders, privacy=privacy, fraction=0.5)   # fit(rounds=50) then costs epsilon 8
    """

    name = "client-dp"
    hides_sum_from_clients = True
    counts_broken_as_zero = True
    takes_blocks = True

    def __init__(
        self,
        epsilon: float | None = None,
        delta: float | None = None,
        clip: float | str | Quantile = 1.0,
        noise_multiplier: float | None = None,
        weights: str = "uniform",
        weight_cap: int = 1,
        denominator: float | None = None,
        relation: str = "zero-out",
        amplify: bool = False,
        accountant: str = "rdp",
        ledger: Ledgers = None,
        correlation: str | None = None,
        min_separation: int | None = None,
        participations: int | None = None,
        bands: int | None = None,
        momentum: float = 0.0,
    ) -> None:
        self.quantile = Quantile() if clip == "adaptive" else clip if isinstance(clip, Quantile) else None
        start: Any = self.quantile.start if self.quantile else clip
        super().__init__(Price(epsilon, delta, noise_multiplier, accountant), ledger, start)
        self.weight_cap = whole("weight_cap", weight_cap, 1, 2**40)
        if weights not in ("uniform", "bounded") or (weights == "uniform" and weight_cap != 1):
            raise Misuse(
                f'expected weights "uniform", or "bounded" with weight_cap >= 1, got {weights!r} and '
                f"{weight_cap}"
            )
        if relation not in ("zero-out", "replace"):
            raise Misuse(
                f'expected relation "zero-out" or "replace", got {relation!r}: who takes part is seen, so '
                "add-remove is not on offer"
            )
        self.denominator = None if denominator is None else positive("denominator", denominator)
        self.relation, self.amplify = Relation(relation), amplify
        self.correlation = correlated.chosen(correlation, min_separation, participations, bands, momentum)
        self.keeps_state = self.one_sum = self.correlation is not None
        self._opened, self._rounds = OpenedRows(), 0
        if self.correlation is not None and (self.quantile or amplify):
            raise Misuse(
                'correlation="banded" needs a clip that is fixed for the run, for rows hold earlier contributions, and '
                "no amplification, for the choice of clients is seen: give a number as clip, and amplify=False"
            )

    @property
    def secret_sampling(self) -> bool:
        return self.amplify

    def describe(self) -> str:
        clip = "adaptive clip" if self.quantile else f"clip {self.clip:g}"
        against = "public" if self.amplify else "clients and the public"
        if self.amplify:
            against += " (assuming that who leaves follows neither the choice nor the data, and no more than planned)"
        return (
            f"{self.name}: the server adds discrete Gaussian noise, {clip} per client, weights up to "
            f"{self.weight_cap}, "
            f"{self.relation} neighbours; {self._told()}holds against {against}, not against the server"
        )

    def _told(self) -> str:
        if self.correlation is None:
            return ""
        return (
            f"correlated over rounds, {self.correlation.separation} between two of one client, which every client "
            "enforces in its own store, and the server by who was in which total; the server keeps past exact sums "
            "secret; "
        )

    # -- public arithmetic --

    def kind(self, run: RunFacts | None) -> Event | None:
        return None if run is None and self.amplify else self._planned_event(1.0, run or RunFacts(1, 1, 1))

    def own(self, event: Event) -> Event:
        """Return the event for which a client's own ledger is charged. A client that is asked knows that it was
        chosen, so the secret choice makes its own price no smaller.
        """
        return always_asked(event)

    def comes(self, store: Store, scope: str, number: int) -> bool:
        if self.correlation is None:
            return True
        return self.correlation.attendance(self._rounds).comes(store, scope, self.name, number)

    def may_ask(self, rows: Sequence[int], number: int) -> bool:
        """What the server holds itself to: a client's store may have been put back."""
        return self.correlation is None or self.correlation.attendance(self._rounds).allows(rows, number)

    def plan(self, run: RunFacts) -> None:
        if self.correlation is not None:
            self.correlation.require_turns(run, self.name)
            self._rounds = run.rounds
        chance, delta = self._chance(run), self.price.at(run)
        if (1 + math.exp(min(self.price.epsilon or 0.0, 700.0))) * chance * run.rounds >= delta:
            raise self._fails_too_often(run)
        event = self._round_event(run)
        if isinstance(event, Failing):
            with_it, without = (self.price.of(one, run.rounds, run) for one in (event, event.event))
            if with_it == math.inf > without:
                raise self._fails_too_often(run)

    def _chance(self, run: RunFacts) -> float:
        """The probability that a round is abandoned for the number of clients that were secretly chosen."""
        if not self.amplify or run.sampling != "poisson":
            return 0.0
        return max(run.failing, chance_of_fewer(run.population, run.rate, run.least_chosen))

    def outlook(self, run: RunFacts) -> str | None:
        return drowned(
            self.name, self._vector_multiplier(run), self.clip, run.dimension, max(1.0, run.expected)
        )

    def _fails_too_often(self, run: RunFacts) -> Misuse:
        chance, delta = self._chance(run), self.price.at(run)
        return Misuse(
            f"{self.name}: amplification counts on a secret choice, and a round with fewer than {run.least_chosen} of "
            f"{run.population} clients at rate {run.rate:g} is abandoned, or with a number above that the secure "
            f"sum does not carry: probability {chance:.3g} a round, {run.rounds} rounds. That is part of the price, "
            f"and delta {delta:g} has no room for it. Ask more "
            'clients, choose sampling="fixed", lower min_survivors (without a secure sum every round is played), or '
            "take amplify=False"
        )

    def _multiplier(self, run: RunFacts) -> float:
        """Noise over sensitivity of everything that a round releases together."""
        return self.calibrated(run, lambda: self._found(run))

    def _found(self, run: RunFacts) -> float:
        times = run.rounds if self.correlation is None else self.correlation.times(run.rounds)
        found = self.price.multiplier(lambda m: self._planned_event(m, run), times, run)
        fixed = self.quantile.count_noise if self.quantile else None
        if fixed is not None and found >= 2 * fixed * run.cohort:
            raise Misuse(
                f"adaptive clipping needs count noise above half the noise multiplier ({found:.3g} / 2): raise "
                f"count_noise above {found / 2 / run.cohort:.3g}, or ask more clients"
            )
        return found

    def _event(self, multiplier: float, run: RunFacts) -> Event:
        """One round as continuous noise, with the sampling that is claimed for it."""
        common: dict[str, Any] = {
            "noise_multiplier": multiplier,
            "unit": Unit.CLIENT,
            "relation": self.relation,
        }
        if not self.amplify or run.sampling == "all":
            return Gaussian(**common)
        if run.sampling == "poisson":
            return PoissonGaussian(sample_rate=run.rate, **common)
        return FixedSizeGaussian(population=run.population, sample_size=run.cohort, **common)

    def _planned_event(self, multiplier: float, run: RunFacts) -> Event:
        if self.amplify and run.sampling == "fixed":
            return self._event(multiplier, run)
        rate = run.rate if self.amplify and run.sampling == "poisson" else 1.0
        dims = sum(block.dimension for block in self.vectors(run).values())
        if self.correlation is not None:  # what one participation costs, over all rows that it enters
            dims *= self.correlation.strategy(run.rounds).bands
        event = discrete(multiplier, Unit.CLIENT, self.relation, dims + 1, rate=rate)
        if not (chance := self._chance(run)):
            return event
        return Failing(event=event, probability=chance, unit=event.unit, relation=event.relation)

    def _count_std(self, run: RunFacts) -> float:
        """Of the noise on the count of unclipped clients."""
        if self.quantile is None:
            return 0.0
        if self.quantile.count_noise is not None:
            return self.quantile.count_noise * run.cohort
        return max(COUNT_SHARE * run.cohort, COUNT_OVER_VECTOR * self._multiplier(run))

    def _vector_multiplier(self, run: RunFacts) -> float:
        """Noise on each vector alone, so that all of them and the count together cost `_multiplier` (Andrew et al.,
        Theorem 1)."""
        whole = self._multiplier(run)
        alone = (whole**-2 - (2 * self._count_std(run)) ** -2) ** -0.5 if self.quantile else whole
        return alone * math.sqrt(1 + len(run.blocks))

    def public(self) -> dict[str, Value]:
        if self.correlation is not None and self._rounds:
            return self.correlation.public(self._rounds)
        return {"clip": self.clip} if self.quantile else {}

    def _clip(self, facts: RoundFacts, name: str = UPDATE) -> float:
        """A fixed clip is this party's own, whatever a server broadcasts; a further block's is fixed."""
        own = self.clip_of(facts.run, name)
        return facts.number_for(self.name, "clip", own) if self.quantile and name == UPDATE else own

    def transform(self, given: Signal, facts: RoundFacts) -> Signal:
        if given.kind != "real":
            raise StackError(
                f"{self.name} clips a vector of floats: put it before the layer that makes integers"
            )
        if self.correlation is not None and given.block != UPDATE:
            raise StackError(
                f"{self.name}: correlated noise covers the update alone, not {given.block!r} too"
            )
        self._opened.of(facts.scope)
        clip = self._clip(facts, given.block)
        count = (Coordinate(UNCLIPPED, 1, 1),) if self.quantile and given.block == UPDATE else ()
        return replace(
            given,
            weight_cap=min(given.weight_cap, self.weight_cap),
            l2=clip,
            linf=clip,
            range=clip,
            exact_coordinates=False,
            coordinates=given.coordinates + count,
        )

    def encode(self, contribution: Contribution, given: Signal, facts: RoundFacts) -> Contribution:
        clip = self._clip(facts, given.block)
        clipped = clip_or_drop(contribution.vector, clip, facts.whose)
        weight_cap = min(self.weight_cap, given.weight_cap)
        weight = min(contribution.weight, weight_cap)
        if given.block != UPDATE:  # a part of the release that the update's turn pays for
            return Contribution(clipped.vector, weight)
        vote = 0 if clipped.norm == math.inf else -1 if clipped.was_clipped else 1
        coordinates = {UNCLIPPED: np.array([vote], np.int64)} if self.quantile else {}
        if self.correlation is not None:
            terms = (clip, weight_cap, f"{self._multiplier(facts.run):.9g}")
            self.correlation.admit(facts, self.name, self.correlation.attendance(facts.run.rounds), terms)
        self.charge(self._row_event(facts), facts)
        return Contribution(clipped.vector, weight, coordinates)

    # -- the server --

    def decode(self, aggregate: Aggregate, opened: SumFacts, facts: RoundFacts) -> Aggregate:
        released = opened.released
        if released.l2 is None or released.modulus:
            raise StackError(f"{self.name} adds the noise to a sum over Z whose norm bound is known")
        counts = np.rint(np.asarray(aggregate.vector, np.float64) / released.step).astype(np.int64)
        vector = self._noised(counts, released.l2 / released.step, facts) * released.step
        if UNCLIPPED in aggregate.coordinates:
            self._adapt(int(aggregate.coordinates[UNCLIPPED][0]), facts)
        coordinates = {name: block for name, block in aggregate.coordinates.items() if name != UNCLIPPED}
        return Aggregate(vector, self._denominator(facts.run, released), coordinates)

    def _noised(self, counts: Integers, bound: float, facts: RoundFacts) -> NDArray[np.float64]:
        """An exact sum with its noise, in steps; correlated: this row's part of what its row of C' X and noise say.
        bound: what one client adds at most.
        """
        multiplier = self._vector_multiplier(facts.run)
        if self.correlation is None:
            return (
                counts + discrete_gaussian(facts.random, integer_sigma(multiplier, bound), counts.size)
            ).astype(np.float64)
        strategy, row = self.correlation.strategy(facts.run.rounds), facts.number
        own = self._opened.of(facts.scope)
        sigma = integer_sigma(multiplier, strategy.norm * bound)
        noise = discrete_gaussian(facts.random, sigma, counts.size)
        opened = combined(strategy, row, own.exact | {row: counts}) + noise
        return own.take(strategy, row, opened.astype(np.float64), counts)

    def _denominator(self, run: RunFacts, released: Signal) -> float:
        given = self.denominator if released.block == UPDATE else None
        return given or max(1.0, run.expected) * released.weight_cap

    def _adapt(self, balance: int, facts: RoundFacts) -> None:
        if self.quantile is None:
            return
        sigma = integer_sigma(2 * self._count_std(facts.run), 1.0)
        noised = balance + int(discrete_gaussian(facts.random, sigma, 1)[0])
        share = 0.5 + noised / (2 * max(1.0, facts.run.expected))
        self.clip = self._clip(facts) * math.exp(-self.quantile.rate * (share - self.quantile.target))

    @property
    def adversary(self) -> str:
        """The server adds the noise, so it sees the sum; amplified, other clients must not know who took part."""
        return "public" if self.amplify else "clients"

    def events(self, facts: RoundFacts, survivors: tuple[str, ...]) -> tuple[PrivacyEvent, ...]:
        """The round's one release: vector and count together."""
        return (to_fact(self._row_event(facts), adversary=self.adversary),)

    def _row_event(self, facts: RoundFacts) -> Event:
        event = self._round_event(facts.run)
        return event if self.correlation is None else self.correlation.row(event, facts)

    def _round_event(self, run: RunFacts) -> Event:
        return self._planned_event(self._multiplier(run), run)

    def state(self) -> dict[str, Any]:
        return {"clip": self.clip} if self.quantile else self._opened.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        self._opened.restore(state)
        if self.quantile:
            self.clip = float(state.get("clip", self.clip))
