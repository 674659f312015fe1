"""Prices by privacy loss distributions, through dp-accounting (pessimistic, connect-the-dots; Doroshenko et
al. 2022)."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from dp.accountants.base import Accountant
from dp.accountants.rdp import RDPAccountant
from dp.events import Event, Gaussian, PoissonGaussian, Pure, Relation, UnknownEvent
from protocols.errors import Misuse

_DEAREST = 1e7
"""Distributions of larger losses overflow."""


class PLDAccountant(Accountant):
    """Convolves privacy loss distributions, on a grid of 1e-4, wider where the price is high; tighter than
    RDP, slower."""

    name = "pld"

    def supports(self, event: Event) -> bool:
        return isinstance(event, Gaussian | PoissonGaussian | Pure)

    def _epsilon(self, counts: Mapping[Event, int], delta: float) -> float:
        return _price(frozenset(counts.items()), delta)

    def _delta(self, counts: Mapping[Event, int], epsilon: float) -> float:
        return float(_total(frozenset(counts.items())).get_delta_for_epsilon(epsilon)) + _lost(counts)


@lru_cache(maxsize=256)
def _price(counts: frozenset[tuple[Event, int]], delta: float) -> float:
    """Kept, for a run asks for the same prices in every round."""
    lost = _lost(dict(counts))
    return math.inf if delta <= lost else float(_total(counts).get_epsilon_for_delta(delta - lost))


def _lost(counts: Mapping[Event, int]) -> float:
    """What rounding in convolutions takes from a delta at most: measured are up to 3e-17 for each event."""
    convolved = sum(1 if isinstance(event, Gaussian) else count for event, count in counts.items())
    return 1e-16 * (convolved + 10) if convolved > 1 else 0.0


@lru_cache(maxsize=16)
def _total(counts: frozenset[tuple[Event, int]]) -> Any:  # dp-accounting has no types
    total = None
    width = interval(counts)
    for event, count in sorted(counts, key=lambda item: repr(item[0])):
        composed = _composed(event, count, width)
        total = composed if total is None else total.compose(composed)
    return total


def interval(counts: Iterable[tuple[Event, int]]) -> float:
    """Width of the grid of privacy losses: 1e-4, and in proportion to the price (roughly, by Renyi) from 30
    on.

    A distribution of losses up to 1,000 at 1e-4 takes minutes and gigabytes. The price stays an upper bound
    at any width.
    """
    account = RDPAccountant()
    for event, count in counts:
        if isinstance(event, Gaussian | PoissonGaussian) and event.relation is Relation.REPLACE:
            event = replace(event, noise_multiplier=event.noise_multiplier / 2)
        account.add(replace(event, relation=Relation.ZERO_OUT), count)
    rough = account.epsilon(1e-6)
    if rough > _DEAREST:
        raise Misuse(
            f"epsilon is about {rough:.1e}, beyond what pld can price: more noise, or accountant='rdp'"
        )
    return 1e-4 * 2.0 ** max(0, math.ceil(math.log2(max(rough, 1.0) / 30)))


def _composed(event: Event, count: int, width: float) -> Any:
    if isinstance(event, Gaussian):  # count Gaussians are one with less noise
        return _distribution(Gaussian, event.noise_multiplier / math.sqrt(count), 1.0, event.relation, width)
    if isinstance(event, PoissonGaussian):
        rate = event.sample_rate
        once = _distribution(PoissonGaussian, event.noise_multiplier, rate, event.relation, width)
    elif isinstance(event, Pure):
        once = _distribution(Pure, event.epsilon, 1.0, event.relation, width)
    else:
        raise UnknownEvent(f"no privacy loss distribution for {type(event).__name__}")
    return once if count == 1 else once.self_compose(count)


@lru_cache(maxsize=64)
def _distribution(kind: type[Event], value: float, rate: float, relation: Relation, width: float) -> Any:
    from dp_accounting import NeighboringRelation
    from dp_accounting.pld import common, privacy_loss_distribution

    if kind is Pure:
        return privacy_loss_distribution.from_privacy_parameters(
            common.DifferentialPrivacyParameters(value, 0.0), value_discretization_interval=width
        )
    if rate == 0:
        return privacy_loss_distribution.identity(value_discretization_interval=width)
    theirs = (
        NeighboringRelation.REPLACE_ONE
        if relation is Relation.REPLACE
        else NeighboringRelation.ADD_OR_REMOVE_ONE
    )
    return privacy_loss_distribution.from_gaussian_mechanism(
        value, sampling_prob=rate, neighboring_relation=theirs, value_discretization_interval=width
    )
