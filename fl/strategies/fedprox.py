"""FedProx (Li et al., MLSys 2020, equation 2): FedAvg with a proximal term mu/2 |w - w_broadcast|^2 in the
local loss.
"""

from typing import ClassVar

from fl.strategies.fedavg import FedAvg
from fl.strategies.steering import Steering
from protocols.errors import Misuse
from protocols.layers import LocalTask, RoundFacts


class FedProx(FedAvg):
    """FedAvg whose local steps are pulled towards the broadcast model. mu: strength, >= 0; others as FedAvg."""

    name: ClassVar[str] = "fedprox"
    steers = True

    def __init__(self, mu: float = 0.01, server_lr: float = 1.0, weighted: bool = True) -> None:
        super().__init__(server_lr, weighted)
        if not 0 <= mu < float("inf"):
            raise Misuse(f"expected mu >= 0, got {mu}")
        self.mu = mu

    def begin(self, task: LocalTask, facts: RoundFacts) -> None:
        Steering(task, pull=self.mu)
