"""Robust aggregation by sums alone: a norm bound, and the refusal of what needs single updates."""

from functools import partial
from typing import Any

import numpy as np
import pytest

import fl
from dp import ClientDP, DistributedDP, NormBound
from fl import FedAvg
from fl.registry import STRATEGIES
from protocols import PlainSum
from protocols.errors import Misuse, StackError
from protocols.stack import Stack
from secagg import SecAgg, SecAggPlus
from tests.unit.fl.robust_rig import TARGETS, at, federation


@pytest.mark.parametrize("layers", [[], [SecAgg()], [SecAggPlus()]])
def test_a_norm_bound_is_a_clip_of_every_update(layers: list[Any]) -> None:
    (run := federation(FedAvg(), [NormBound(0.25), *layers])).fit(1)
    norms = np.linalg.norm(TARGETS, axis=1)
    clipped = TARGETS * np.minimum(1, 0.25 / np.maximum(norms, 1e-300))[:, None]
    assert at(run) == pytest.approx(clipped.mean(0), abs=1e-6)


def test_a_norm_bound_claims_no_privacy() -> None:
    result = federation(FedAvg(), [NormBound(0.25), SecAgg()]).fit(2)
    assert (result.epsilon, result.guarantees) == (None, ())
    assert "robust, not private" in str(result.statement)
    assert "the sum itself may reveal an update" in str(result.statement)


def test_a_norm_bound_goes_before_noise_and_changes_nothing_of_its_price() -> None:
    def layers(*first: Any) -> list[Any]:
        return [*first, ClientDP(noise_multiplier=1.0, clip=0.5), SecAgg()]

    bounded, plain = (federation(FedAvg(), layers(*first)).fit(2) for first in ([NormBound(0.25)], []))
    assert bounded.epsilon == plain.epsilon
    with pytest.raises(StackError, match="before the layer that makes integers"):
        federation(FedAvg(), [DistributedDP(noise_multiplier=1.0), NormBound(), SecAgg()]).fit(1)
    with pytest.raises(Misuse, match="bound: expected a number > 0, got"):
        NormBound(0.0)


@pytest.mark.parametrize(
    "name", ["krum", "multi-krum", "Trimmed_Mean", "median", "coordinate-median", "bulyan"]
)
def test_what_needs_single_updates_is_refused_by_name_with_the_nearest_alternative(name: str) -> None:
    with pytest.raises(Misuse, match=rf"{name} needs single updates: .* take .*(rfa|group-median)"):
        STRATEGIES.build(name)


def test_what_needs_single_updates_is_refused_in_python_too() -> None:
    with pytest.raises(Misuse, match="Krum needs single updates"):
        fl.Krum  # noqa: B018  # the look-up is what is tried
    assert not hasattr(fl, "Nonsense")


def test_rfa_is_built_by_its_name() -> None:
    made = STRATEGIES.build("rfa:radius=0.2,iterations=4,damped=true")
    assert (made.radius, made.iterations, made.damped) == (0.2, 4, True)  # type: ignore[attr-defined]
    assert isinstance(Stack([NormBound(), PlainSum()]).layers[0], partial(NormBound).func)
