"""Prices by privacy loss distributions, through dp-accounting (pessimistic, connect-the-dots; Doroshenko et
al. 2022)."""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from dp.accountants.base import Accountant
from dp.events import Event, Gaussian, PoissonGaussian, Pure, Relation, UnknownEvent


class PLDAccountant(Accountant):
    """Convolves privacy loss distributions, discretised at 1e-4 upwards; tighter than RDP, slower."""

    name = "pld"

    def supports(self, event: Event) -> bool:
        return isinstance(event, Gaussian | PoissonGaussian | Pure)

    def _epsilon(self, counts: Mapping[Event, int], delta: float) -> float:
        return float(_total(frozenset(counts.items())).get_epsilon_for_delta(delta))

    def _delta(self, counts: Mapping[Event, int], epsilon: float) -> float:
        return float(_total(frozenset(counts.items())).get_delta_for_epsilon(epsilon))


@lru_cache(maxsize=16)
def _total(counts: frozenset[tuple[Event, int]]) -> Any:  # dp-accounting has no types
    total = None
    for event, count in sorted(counts, key=lambda item: repr(item[0])):
        composed = _composed(event, count)
        total = composed if total is None else total.compose(composed)
    return total


def _composed(event: Event, count: int) -> Any:
    if isinstance(event, Gaussian):  # count Gaussians are one with less noise
        return _distribution(Gaussian, event.noise_multiplier / math.sqrt(count), 1.0, event.relation)
    if isinstance(event, PoissonGaussian):
        once = _distribution(PoissonGaussian, event.noise_multiplier, event.sample_rate, event.relation)
    elif isinstance(event, Pure):
        once = _distribution(Pure, event.epsilon, 1.0, event.relation)
    else:
        raise UnknownEvent(f"no privacy loss distribution for {type(event).__name__}")
    return once if count == 1 else once.self_compose(count)


@lru_cache(maxsize=64)
def _distribution(kind: type[Event], value: float, rate: float, relation: Relation) -> Any:
    from dp_accounting import NeighboringRelation
    from dp_accounting.pld import common, privacy_loss_distribution

    if kind is Pure:
        return privacy_loss_distribution.from_privacy_parameters(
            common.DifferentialPrivacyParameters(value, 0.0)
        )
    if rate == 0:
        return privacy_loss_distribution.identity()
    theirs = (
        NeighboringRelation.REPLACE_ONE
        if relation is Relation.REPLACE
        else NeighboringRelation.ADD_OR_REMOVE_ONE
    )
    return privacy_loss_distribution.from_gaussian_mechanism(
        value, sampling_prob=rate, neighboring_relation=theirs
    )
