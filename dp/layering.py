"""What the layers share: the price a user asks for, turned into a noise multiplier for the whole planned run, and
what has no price refused when a stack is built.

Belongs here: options and steps common to the layers, and their checks. Does not belong here: prices
(`dp.accountants`), noise, a layer.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from dp.accountants import accountant
from dp.accountants.reduction import SMOOTHING_VARIANCE
from dp.calibration import scale_for
from dp.event_json import to_fact
from dp.events import DiscreteGaussianSum, Event, Relation, Unit, repeat
from protocols.errors import Misuse, StackError
from protocols.layers import UPDATE, Block, PrivacyLayer, RoundFacts, RunFacts, Signal
from protocols.numbers import between_0_and_1, positive, real
from protocols.statement import PrivacyEvent

DEFAULT_DELTA = 1e-5
T = TypeVar("T")


def _noise(name: str, value: Any) -> float:
    return real(name, value, "> 0 and at most 1e10", lambda number: 0 < number <= 1e10)


@dataclass(frozen=True)
class Price:
    """What the user allows: (epsilon, delta) for the whole run, or the noise multiplier itself.

    epsilon > 0 and 0 < delta < 1 (None: the run's delta, else 1e-5), or 0 < noise_multiplier <= 1e10. accountant:
    "rdp" or "pld".
    """

    epsilon: float | None
    delta: float | None
    noise_multiplier: float | None
    accountant: str = "rdp"

    def __post_init__(self) -> None:
        if (self.epsilon is None) == (self.noise_multiplier is None):
            raise Misuse("expected either epsilon (with delta) or noise_multiplier, not both and not neither")
        for name, check in (("epsilon", positive), ("delta", between_0_and_1), ("noise_multiplier", _noise)):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, check(name, value))
        accountant(self.accountant)

    def at(self, run: RunFacts) -> float:
        """The delta that counts in this run."""
        return self.delta or run.delta or DEFAULT_DELTA

    def of(self, event: Event, times: int, run: RunFacts) -> float:
        """What `times` events cost at the delta that counts; infinity where there is no price."""
        return accountant(self.accountant).add(event, times).epsilon(self.at(run))

    def multiplier(self, event: Callable[[float], Event], times: int, run: RunFacts) -> float:
        """The least noise multiplier with which `times` events cost at most epsilon; or the user's own.

        event: from a noise multiplier to what happens once. Raises Misuse where no noise would do.
        """
        if self.noise_multiplier is not None:
            return self.noise_multiplier
        if self.epsilon is None:
            raise Misuse("expected an epsilon or a noise multiplier")
        return scale_for(
            lambda scale: repeat(event(scale), times),
            epsilon=self.epsilon,
            delta=self.at(run),
            accountant=self.accountant,
        )


NOMINAL = 2.0**10
"""Sensitivity, in steps, at which a layer is calibrated: with the smoothing put back, the price does not
depend on it."""


def discrete(
    multiplier: float, unit: Unit, relation: Relation, dims: int, shares: int = 1, rate: float = 1.0
) -> Event:
    """One release of discrete Gaussian noise that is priced like a continuous one of this multiplier,
    samplers' distance included."""
    return DiscreteGaussianSum(
        sensitivity=NOMINAL,
        share_variance=integer_sigma(multiplier, NOMINAL) ** 2 / shares,
        shares=shares,
        dims=dims,
        sample_rate=rate,
        unit=unit,
        relation=relation,
    )


Ledgers = Callable[[str], Any] | Mapping[str, Any] | None
"""A client's name to its own `Ledger`: a function or a mapping (a missing name raises KeyError); None for
no ledgers."""


class PricedLayer(PrivacyLayer):
    """What all layers with a price share: kinds of events and who refuses them, clients' own ledgers, what is kept of a
    calibration. A layer gives `kind`, and `own` where a client's ledger is charged another event than the run's.
    """

    own_options = frozenset({"ledger"})

    def __init__(self, price: Price, ledger: Ledgers, clip: float) -> None:
        self.price, self.ledger = price, ledger
        self.clip = real("clip", clip, "from 2^-500 to 2^500", lambda norm: 2.0**-500 <= norm <= 2.0**500)
        self._kept: dict[tuple[Any, ...], Any] = {}

    def kind(self, run: RunFacts | None) -> Event | None:
        """An event like those of such a run, with nominal numbers; None where that follows a run that is not known."""
        return None

    def own(self, event: Event) -> Event:
        """What a client's own ledger is charged for `event`."""
        return event

    def kinds(self, run: RunFacts | None = None) -> tuple[PrivacyEvent, ...]:
        """Raises UnknownEvent for a kind that its accountant, or one of the clients' ledgers listed, cannot price."""
        event = self.kind(run)
        if event is None:
            return ()
        accountant(self.price.accountant).add(event)
        for ledger in self.ledger.values() if isinstance(self.ledger, Mapping) else ():
            accountant(ledger.terms.accountant).add(self.own(event))
        return (to_fact(event),)

    def calibrated(self, run: RunFacts, make: Callable[[], T], *further: Any) -> T:
        """`make()`, once for every run that differs in what a calibration may follow."""
        facts = (
            run.rounds,
            run.population,
            run.cohort,
            run.sampling,
            run.rate,
            run.dropout,
            run.dimension,
            run.delta,
            run.corrupt,
            run.blocks,
        )
        key = (*facts, run.least_chosen, run.failing, *further)
        if key not in self._kept:
            self._kept[key] = make()
        found: T = self._kept[key]
        return found

    def vectors(self, run: RunFacts) -> dict[str, Block]:
        """Every vector of a contribution, with the norm to which it is clipped: the update first. k of them are one
        release: over their clips they are one vector of norm sqrt(k) at most.

        Raises StackError for a block without a clip of its own.
        """
        if bare := [block.name for block in run.blocks if block.clip is None]:
            raise StackError(
                f"{self.name} clips every vector, and the block {bare[0]!r} has no clip of its own"
            )
        update = Block(UPDATE, run.dimension, clip=self.clip)
        return {block.name: block for block in (update, *run.blocks)}

    def clip_of(self, run: RunFacts, name: str) -> float:
        """The clip of one vector of a contribution. Raises StackError as `vectors`."""
        return self.vectors(run)[name].clip or self.clip

    def charge(self, event: Event, facts: RoundFacts, count: int = 1) -> None:
        """Write what a client is about to send into its own ledger. Raises BudgetExceeded; then nothing may be sent."""
        if self.ledger is None:
            return
        of = self.ledger[facts.client] if isinstance(self.ledger, Mapping) else self.ledger(facts.client)
        if of is not None:
            of.charge(self.own(event), count, round=facts.number, party=facts.client, note=self.name)

    def takes_floats(self, given: Signal, facts: RoundFacts) -> None:
        """Raises StackError where the layer before makes integers, appends coordinates, adds noise to the sum or sends
        less than the whole update.
        """
        if (
            given.kind != "real"
            or given.coordinates
            or (given.l2 is not None and not given.exact_coordinates)
        ):
            raise StackError(
                f"{self.name} takes a vector of floats and makes the integers itself: put it right before the secure "
                "sum, and no layer before it that makes integers, appends coordinates or adds noise to the sum"
            )
        whole = self.vectors(facts.run)[given.block].dimension
        if given.dimension != whole:
            raise StackError(
                f"{self.name} plans for the whole {given.block} of {whole} values, and a layer before it sends "
                f"{given.dimension}: take ClientDP behind it"
            )


def integer_sigma(multiplier: float, sensitivity: float) -> float:
    """Standard deviation, in steps, of discrete noise that is priced like continuous noise of `multiplier`
    x `sensitivity`.

    The reduction to a continuous Gaussian gives up `SMOOTHING_VARIANCE` steps^2 (docs/dp-account.md); it is
    put back here.
    """
    return math.sqrt((multiplier * sensitivity) ** 2 + SMOOTHING_VARIANCE) * (1 + 2.0**-40)
