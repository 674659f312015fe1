"""Degree, threshold and cost of a masked sum, before anything runs. What does not belong here: secrets, messages sent.

`tails` computes probabilities, `conditions` says what must be improbable, `plan` finds the smallest graph for which it
is, `costs` counts bytes and operations, `calibration` turns operations into seconds of this machine.
"""

from secagg.parameters.conditions import Cohort
from secagg.parameters.plan import Infeasible, Plan, plan

__all__ = ["Cohort", "Infeasible", "Plan", "plan"]
