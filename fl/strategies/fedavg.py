"""FedAvg (McMahan et al., AISTATS 2017, Algorithm 1): the mean of the clients' models, weighted by examples."""

from fl.strategies.base import Floats, Strategy
from protocols.errors import require


class FedAvg(Strategy):
    """The weighted mean of the clients' models (McMahan et al., AISTATS 2017, Algorithm 1).

    - server_lr: factor on the mean difference, > 0 (default: 1, the plain mean).
    - weighted: whether clients count by their examples, up to the public weight_cap, else equally (default: True).

    Raises Misuse for a value out of range.

        Federation(make, loaders, strategy=FedAvg(), privacy=[SecAggPlus()]).fit(rounds=2)
    """

    name = "fedavg"

    def __init__(self, server_lr: float = 1.0, weighted: bool = True) -> None:
        require(0 < server_lr < float("inf"), "server_lr > 0", server_lr)
        self.server_lr, self.averages = server_lr, server_lr == 1.0
        self.weighted = weighted

    def step(self, mean: Floats) -> Floats:
        return mean if self.server_lr == 1.0 else self.server_lr * mean
