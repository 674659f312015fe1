"""FedProx (Li et al., MLSys 2020, equation 2): FedAvg with a proximal term mu/2 |w - w_broadcast|^2 in the
local loss.
"""

from fl.strategies.fedavg import FedAvg
from fl.strategies.steering import Steering
from protocols.errors import require
from protocols.layers import LocalTask, RoundFacts


class FedProx(FedAvg):
    """FedAvg whose local steps are pulled towards the broadcast model (Li et al., MLSys 2020, equation 2).

    - mu: strength of the pull, >= 0; 0 is FedAvg (default: 0.01).
    - server_lr: factor on the mean difference, > 0 (default: 1, the plain mean).
    - weighted: whether clients count by their examples, up to the public weight_cap, else equally (default: True).

    Raises Misuse for a value out of range.

        Federation(make, loaders, strategy=FedProx(mu=0.1), privacy=[SecAggPlus()]).fit(rounds=2)
    """

    name = "fedprox"
    steers = True

    def __init__(self, mu: float = 0.01, server_lr: float = 1.0, weighted: bool = True) -> None:
        super().__init__(server_lr, weighted)
        require(0 <= mu < float("inf"), "mu >= 0", mu)
        self.mu = mu

    def begin(self, task: LocalTask, facts: RoundFacts) -> None:
        Steering(task, pull=self.mu)
