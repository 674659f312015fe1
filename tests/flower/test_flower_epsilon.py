"""Flower's own client-level account (1.41 on) and ours print the same epsilon for the same releases and relation."""

import pytest
from flwr.supercore.privacy_accounting import (
    GaussianPrivacyEvent,
    NeighboringRelation,
    PrivacyConfig,
    SamplingMethod,
)
from flwr.supercore.privacy_accounting.rdp_accountant import RdpAccountant

from dp.accountants import epsilon
from dp.events import Gaussian, Relation, Unit

DELTA = 1e-5


@pytest.mark.parametrize(("multiplier", "rounds"), [(1.0, 1), (1.2, 10), (4.0, 100)])
def test_fixed_clipping_without_amplification(multiplier: float, rounds: int) -> None:
    """Its fixed clipping adds noise of multiplier x clip to a sum of uniform weights: our `Gaussian`, add-remove."""
    theirs = RdpAccountant(
        PrivacyConfig(
            target_delta=DELTA,
            population_size=100,
            neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE,
            sampling_method=SamplingMethod.NO_AMPLIFICATION,
        )
    )
    theirs.compose(GaussianPrivacyEvent(multiplier, sample_size=20, population_size=100), rounds)
    event = Gaussian(noise_multiplier=multiplier, unit=Unit.CLIENT, relation=Relation.ADD_REMOVE)
    assert epsilon([event] * rounds, DELTA, "rdp") == pytest.approx(theirs.get_epsilon(DELTA), rel=1e-9)
    assert epsilon([event] * rounds, DELTA, "pld") <= theirs.get_epsilon(
        DELTA
    )  # tighter, for the same events
