"""The attacks of examples/attacks keep working where nothing protects, and get nothing where something does."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from dp import DistributedDP, LocalDP
from he import CKKSSum
from secagg import SecAggPlus

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "attacks"
BLIND = 0.65
"""Correlation of 64 independent pixels: beyond this with probability below 10^-7 (t-test, 62 degrees of freedom)."""


def attack(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"attack_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_update_in_clear_is_the_image() -> None:
    inversion = attack("gradient_inversion")
    difference, images = inversion.update_received([])
    assert inversion.likeness(inversion.invert(difference), images[0]) > 0.99


@pytest.mark.parametrize("layer", [SecAggPlus, CKKSSum])
def test_one_hidden_update_shows_nothing(layer: Any) -> None:
    inversion = attack("gradient_inversion")
    difference, images = inversion.update_received([layer()])
    assert inversion.likeness(inversion.invert(difference), images[0]) < BLIND


def test_noise_hides_the_image_in_an_update_and_in_a_sum() -> None:
    inversion = attack("gradient_inversion")
    for difference, images in (
        inversion.private_update([LocalDP(epsilon=8, delta=1e-5)]),
        inversion.sum_released([DistributedDP(epsilon=8, delta=1e-5), SecAggPlus()]),
    ):
        assert inversion.likeness(inversion.invert(difference), images[0]) < BLIND


def test_members_of_an_overfitted_model_show_and_masks_change_nothing_of_that() -> None:
    membership = attack("membership_inference")
    strengths = []
    for layers in ([], [SecAggPlus()]):
        result, members, others = membership.overfitted(layers, rounds=10)
        strengths.append(membership.advantage(result.model, members, others))
    assert strengths[0] > 0.65
    assert strengths[0] == strengths[1]
