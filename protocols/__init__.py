"""Ground floor: what a layer is, what a multi-party sum is; run in memory, on a wire, under audit.

It imports no other package of this project, and neither torch, TenSEAL, phe, Opacus nor Flower.
"""

from protocols.plain import PlainSum
from protocols.policy import Policy
from protocols.simulate import Outcome, simulate
from protocols.summation import SecureSum

__all__ = ["Outcome", "PlainSum", "Policy", "SecureSum", "simulate"]
