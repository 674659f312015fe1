"""Deliberately broken variants, by what they break. They exist to measure audits and tests; no wheel holds them."""

from tests.defects.answers import DEFECTS as ANSWERS
from tests.defects.entropy import DEFECTS as ENTROPY
from tests.defects.forged import DEFECTS as FORGED
from tests.defects.homomorphic import DEFECTS as HOMOMORPHIC
from tests.defects.leaks import DEFECTS as LEAKS
from tests.defects.masks import DEFECTS as MASKS
from tests.defects.planting import Defect
from tests.defects.rules import DEFECTS as RULES
from tests.defects.sealing import DEFECTS as SEALING
from tests.defects.views import DEFECTS as VIEWS

ALL: tuple[Defect, ...] = (
    *MASKS, *SEALING, *ANSWERS, *FORGED, *ENTROPY, *LEAKS, *RULES, *HOMOMORPHIC, *VIEWS,
)  # fmt: skip
