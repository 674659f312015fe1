"""Broken rules of opening: what an adversary that searches must find by itself."""

from secagg import SecAgg
from tests.defects.masks import anything_goes
from tests.defects.planting import Defect, put

DEFECTS = (
    Defect(
        "opening before the vote is complete",
        "no-split-opens-few",
        put("secagg.client.view.check_certificate", anything_goes),
        lambda: SecAgg(threshold=2),
    ),
)
