"""FedAvgM (Hsu, Qi and Brown, 2019, section 4): momentum on the server.

v_t = momentum v_{t-1} + D_t,   x_{t+1} = x_t + server_lr v_t,   D_t: the mean difference, v_0 = 0
"""

from typing import ClassVar

from fl.strategies.base import Floats
from fl.strategies.fedavg import FedAvg
from protocols.errors import require


class FedAvgM(FedAvg):
    """FedAvg with momentum at the server (Hsu, Qi and Brown, 2019, section 4).

    - momentum: in [0, 1); 0 is FedAvg (default: 0.9).
    - server_lr: factor on the velocity, > 0 (default: 1).
    - weighted: whether clients count by their examples, up to the public weight_cap, else equally (default: True).

    Raises Misuse for a value out of range.

        Federation(make, loaders, strategy=FedAvgM(momentum=0.5), privacy=[SecAggPlus()]).fit(rounds=2)
    """

    name = "fedavgm"
    remembers: ClassVar = {"v": "_v"}

    def __init__(self, momentum: float = 0.9, server_lr: float = 1.0, weighted: bool = True) -> None:
        super().__init__(server_lr, weighted)
        require(0 <= momentum < 1, "momentum in [0, 1)", momentum)
        self.momentum, self.averages = momentum, False
        self._v: Floats | None = None

    def step(self, mean: Floats) -> Floats:
        self._v = mean if self._v is None else self.momentum * self._v + mean
        return super().step(self._v)
