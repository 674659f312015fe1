"""What the layers share: the price a user asks for, turned into a noise multiplier for the whole planned
run.

Belongs here: options common to the layers and their checks. Does not belong here: prices
(`dp.accountants`), noise, a layer.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dp.accountants import accountant
from dp.accountants.reduction import SMOOTHING_VARIANCE
from dp.calibration import scale_for
from dp.events import DiscreteGaussianSum, Event, Relation, Unit, repeat
from protocols.errors import Misuse
from protocols.layers import RunFacts

DEFAULT_DELTA = 1e-5


@dataclass(frozen=True)
class Price:
    """What the user allows: (epsilon, delta) for the whole run, or the noise multiplier itself.

    epsilon > 0 and 0 < delta < 1 (None: the run's delta, else 1e-5), or noise_multiplier > 0. accountant:
    "rdp" or "pld".
    """

    epsilon: float | None
    delta: float | None
    noise_multiplier: float | None
    accountant: str = "rdp"

    def __post_init__(self) -> None:
        if (self.epsilon is None) == (self.noise_multiplier is None):
            raise Misuse("expected either epsilon (with delta) or noise_multiplier, not both and not neither")
        if self.epsilon is not None and not 0 < self.epsilon < math.inf:
            raise Misuse(f"expected a finite epsilon > 0, got {self.epsilon}")
        if self.delta is not None and not 0 < self.delta < 1:
            raise Misuse(f"expected 0 < delta < 1, got {self.delta}")
        if self.noise_multiplier is not None and not 0 < self.noise_multiplier < math.inf:
            raise Misuse(f"expected a finite noise_multiplier > 0, got {self.noise_multiplier}")
        accountant(self.accountant)

    def at(self, run: RunFacts) -> float:
        """The delta that counts in this run."""
        return self.delta or run.delta or DEFAULT_DELTA

    def check(self, event: Event, ledgers: "Ledgers" = None) -> None:
        """Refuse, when a run is planned, what its own accountant, or one of the ledgers listed, cannot price.

        Raises UnknownEvent (a Misuse).
        """
        accountant(self.accountant).add(event)
        for ledger in ledgers.values() if isinstance(ledgers, Mapping) else ():
            accountant(ledger.terms.accountant).add(event)

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


def charge_own(ledgers: Ledgers, client: str, event: Event, count: int, round: int, layer: str) -> None:
    """Write what a client is about to send into its own ledger. Raises BudgetExceeded; then nothing may be
    sent."""
    if ledgers is None:
        return
    ledger = ledgers[client] if isinstance(ledgers, Mapping) else ledgers(client)
    if ledger is not None:
        ledger.charge(event, count, round=round, party=client, note=layer)


def integer_sigma(multiplier: float, sensitivity: float) -> float:
    """Standard deviation, in steps, of discrete noise that is priced like continuous noise of `multiplier`
    x `sensitivity`.

    The reduction to a continuous Gaussian gives up `SMOOTHING_VARIANCE` steps^2 (docs/dp-account.md); it is
    put back here.
    """
    return math.sqrt((multiplier * sensitivity) ** 2 + SMOOTHING_VARIANCE) * (1 + 2.0**-40)
