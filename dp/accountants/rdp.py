"""Prices by Renyi differential privacy (Mironov, CSF 2017), through dp-accounting where it has the event.

Own curves (`dp.accountants.curves`): Skellam noise, also Poisson-sampled, pure mechanisms, samples of tiny price. The
conversion to (epsilon, delta) is dp-accounting's: Canonne, Kamath and Steinke 2020, Proposition 12, and the
bound through KL.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dp.accountants.base import Accountant
from dp.accountants.curves import pure_curve, sampled_gaussian_curve, skellam_curve
from dp.events import (
    Event,
    FixedSizeGaussian,
    Gaussian,
    PoissonGaussian,
    Pure,
    Relation,
    Skellam,
    UnknownEvent,
)

Curve = NDArray[np.float64]


class RDPAccountant(Accountant):
    """Adds Renyi curves over dp-accounting's default orders."""

    name = "rdp"

    def supports(self, event: Event) -> bool:
        sampled = isinstance(event, PoissonGaussian) or (isinstance(event, Skellam) and event.sample_rate < 1)
        if sampled and event.relation is Relation.REPLACE:
            return False
        return isinstance(event, Gaussian | PoissonGaussian | FixedSizeGaussian | Skellam | Pure)

    def curve(self, counts: Mapping[Event, int]) -> Curve:
        """The Renyi divergence of all events together, at every order of `orders()`."""
        total = np.zeros(len(orders()))
        for event, count in counts.items():
            total += count * curve(event)
        return total

    def _epsilon(self, counts: Mapping[Event, int], delta: float) -> float:
        from dp_accounting.rdp import rdp_privacy_accountant

        return float(rdp_privacy_accountant.compute_epsilon(orders(), self.curve(counts), delta)[0])

    def _delta(self, counts: Mapping[Event, int], epsilon: float) -> float:
        from dp_accounting.rdp import rdp_privacy_accountant

        return float(rdp_privacy_accountant.compute_delta(orders(), self.curve(counts), epsilon)[0])


def orders() -> tuple[float, ...]:
    """The Renyi orders in use, all above 1."""
    from dp_accounting.rdp import rdp_privacy_accountant

    return tuple(float(order) for order in rdp_privacy_accountant.DEFAULT_RDP_ORDERS)


@lru_cache(maxsize=4096)
def curve(event: Event) -> Curve:
    """The Renyi divergence of one application at every order of `orders()`; float64, not to be written
    to."""
    if isinstance(event, Skellam):
        return skellam_curve(event, orders())
    if isinstance(event, Pure):
        return pure_curve(event, orders())
    if isinstance(event, FixedSizeGaussian):  # sampling never costs (docs/dp-account.md, section 6)
        unsampled = Gaussian(
            noise_multiplier=event.noise_multiplier, unit=event.unit, relation=event.relation
        )
        # beyond a million their logarithms cancel, and more noise costs no more
        sampled = replace(event, noise_multiplier=min(event.noise_multiplier, 1e6))
        return np.minimum(_through_dp_accounting(sampled), _through_dp_accounting(unsampled))
    if isinstance(event, PoissonGaussian):  # what cancels in theirs may be as much as that, and ends below 0
        lost = 1e-11 * event.sample_rate
        return np.minimum(_through_dp_accounting(event) + lost, sampled_gaussian_curve(event, orders()))
    return _through_dp_accounting(event)


@contextmanager
def _quiet() -> Iterator[None]:
    """dp-accounting warns of each fractional order that it leaves out; leaving one out only raises the
    price."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _through_dp_accounting(event: Event) -> Curve:
    import dp_accounting
    from dp_accounting.rdp import RdpAccountant

    relation = dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE
    if isinstance(event, Gaussian):
        theirs = dp_accounting.GaussianDpEvent(event.noise_multiplier / event.reach)
    elif isinstance(event, PoissonGaussian):
        theirs = dp_accounting.PoissonSampledDpEvent(
            event.sample_rate, dp_accounting.GaussianDpEvent(event.noise_multiplier)
        )
    elif isinstance(event, FixedSizeGaussian):  # as a replacement, at twice the clip norm, for both relations
        relation = dp_accounting.NeighboringRelation.REPLACE_ONE
        theirs = dp_accounting.SampledWithoutReplacementDpEvent(
            event.population, event.sample_size, dp_accounting.GaussianDpEvent(event.noise_multiplier / 2)
        )
    else:
        raise UnknownEvent(f"no Renyi curve for {type(event).__name__}")
    account = RdpAccountant(orders(), relation)
    with _quiet():
        account.compose(theirs)
    return np.asarray(account.rdp, dtype=np.float64)
