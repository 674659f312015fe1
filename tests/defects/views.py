"""Broken rules of opening: what an adversary that searches must find by itself."""

from secagg import SecAgg
from tests.defects.masks import anything_goes
from tests.defects.planting import Defect, put


def fifth() -> SecAgg:
    """One of five clients may be corrupt."""
    return SecAgg(collusion=0.2)


DEFECTS = (
    Defect(
        "opening before the vote is complete",
        "no-split-opens-few",
        put("secagg.client.opening.expect_threshold", anything_goes),
        fifth,
    ),
)
