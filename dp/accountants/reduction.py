"""From discrete noise to a continuous Gaussian that dominates it, and the distance that this costs.

N_Z(c, s^2) is, up to a factor exp(+-eta) in every point mass, post-processing of the continuous N(c, s^2 -
s0^2); a sum of shares is N_Z up to exp(+-tau). docs/dp-account.md, sections 3 and 4, derives both; tests
hold them against brute force.
"""

import math

from dp.events import (
    DiscreteGaussianSum,
    Event,
    Failing,
    Gaussian,
    Planned,
    PoissonGaussian,
    Skellam,
    UnknownEvent,
)

SMOOTHING_VARIANCE = 3.6
"""s0^2: what of the variance is given up for the reduction. eta is below 2^-100 then."""


def eta(smoothing_variance: float = SMOOTHING_VARIANCE) -> float:
    """Bound on |log| of the ratio of point masses, per coordinate: 2 atanh(e0), e0 = 2 sum_k exp(-2 pi^2
    s0^2 k^2)."""
    first = math.exp(-2 * math.pi**2 * smoothing_variance)
    e0 = 2 * first / (1 - first)
    return 2 * math.atanh(e0) if e0 < 1 else math.inf


def dominating(event: Event) -> tuple[Event, float]:
    """An event with a price that dominates `event`, and the total variation distance of one application.

    Raises UnknownEvent for discrete Gaussian noise too narrow for the reduction.
    """
    if isinstance(event, DiscreteGaussianSum):
        return _continuous(event), _distance(event)
    if isinstance(event, Planned):
        raise UnknownEvent(
            f"a promise of epsilon {event.epsilon:g} at delta {event.delta:g} for a whole run does not add up with "
            "anything: tell the layer what its steps follow (SampleDP: batch_size, and examples or the clients' sizes)"
        )
    if isinstance(event, Failing):
        inner, distance = dominating(event.event)
        return inner, distance + event.probability
    if isinstance(event, Skellam):
        return event, event.shares * event.dims * event.sampler_distance
    return event, 0.0


def _continuous(event: DiscreteGaussianSum) -> Event:
    left = event.variance - SMOOTHING_VARIANCE
    if left <= 0:
        raise UnknownEvent(
            f"discrete Gaussian noise of variance {event.variance} steps^2 is too narrow to price: the reduction needs "
            f"more than {SMOOTHING_VARIANCE}; choose a finer grid"
        )
    multiplier = math.sqrt(left) / event.sensitivity
    if event.sample_rate == 1:
        return Gaussian(noise_multiplier=multiplier, unit=event.unit, relation=event.relation)
    return PoissonGaussian(
        noise_multiplier=multiplier, sample_rate=event.sample_rate, unit=event.unit, relation=event.relation
    )


def _distance(event: DiscreteGaussianSum) -> float:
    """|log ratio| <= k for all outcomes gives a distance of at most tanh(k / 2) <= k / 2; k itself is
    charged."""
    ratio = event.dims * (eta() + event.tau)
    return min(1.0, ratio) + event.shares * event.dims * event.sampler_distance
