"""FedAdagrad, FedYogi and FedAdam (Reddi et al., ICLR 2021, Algorithm 2): adaptive steps of the server, the mean
difference D_t as its gradient.

    m_t = beta1 m_{t-1} + (1 - beta1) D_t
    v_t = v_{t-1} + D_t^2                                        (FedAdagrad)
    v_t = v_{t-1} - (1 - beta2) D_t^2 sign(v_{t-1} - D_t^2)      (FedYogi)
    v_t = beta2 v_{t-1} + (1 - beta2) D_t^2                      (FedAdam)
    x_{t+1} = x_t + lr m_t / (sqrt(v_t) + tau),     m_0 = 0, v_0 = tau^2
"""

from abc import abstractmethod
from typing import ClassVar

import numpy as np

from fl.strategies.base import Floats, Strategy
from protocols.errors import Misuse


class FedOpt(Strategy):
    """Adaptive server steps; a subclass says how v moves. lr > 0; beta1, beta2 in [0, 1); tau > 0: the degree of
    adaptivity. weighted: by examples, publicly capped, else equally.
    """

    averages = False
    remembers: ClassVar = {"m": "_m", "v": "_v"}

    def __init__(
        self,
        lr: float = 0.01,
        beta1: float = 0.9,
        beta2: float = 0.99,
        tau: float = 1e-3,
        weighted: bool = True,
    ) -> None:
        if not (lr > 0 and tau > 0 and 0 <= beta1 < 1 and 0 <= beta2 < 1):
            raise Misuse(f"expected lr, tau > 0 and betas in [0, 1), got {lr}, {tau}, {beta1}, {beta2}")
        self.lr, self.beta1, self.beta2, self.tau = lr, beta1, beta2, tau
        self.weighted = weighted
        self._m: Floats | None = None
        self._v: Floats | None = None

    @abstractmethod
    def second(self, v: Floats, square: Floats) -> Floats:
        """Return v_t from v_{t-1} and D_t^2."""

    def step(self, mean: Floats) -> Floats:
        m = np.zeros_like(mean) if self._m is None else self._m
        v = np.full_like(mean, self.tau**2) if self._v is None else self._v
        self._m = self.beta1 * m + (1 - self.beta1) * mean
        self._v = self.second(v, mean**2)
        moved: Floats = self.lr * self._m / (np.sqrt(self._v) + self.tau)
        return moved


class FedAdam(FedOpt):
    """Adam at the server, with the clients' mean difference as its gradient (Reddi et al., ICLR 2021, Algorithm 2).

    - lr: the server's learning rate, > 0 (default: 0.01).
    - beta1: share of the last mean that the next one keeps, in [0, 1) (default: 0.9).
    - beta2: share of the last second moment that the next one keeps, in [0, 1) (default: 0.99).
    - tau: > 0, added to the root of the second moment: the larger, the less adaptive (default: 0.001).
    - weighted: whether clients count by their examples, up to the public weight_cap, else equally (default: True).

    Raises Misuse for a value out of range.

        Federation(make, loaders, strategy=FedAdam(lr=0.1), privacy=[SecAggPlus()]).fit(rounds=2)
    """

    name = "fedadam"

    def second(self, v: Floats, square: Floats) -> Floats:
        return self.beta2 * v + (1 - self.beta2) * square


class FedYogi(FedAdam):
    """Yogi at the server (Reddi et al., ICLR 2021, Algorithm 2): Adam whose second moment moves by at most (1 -
    beta2) D^2 in a round, for a mean difference D.

    - lr: the server's learning rate, > 0 (default: 0.01).
    - beta1: share of the last mean that the next one keeps, in [0, 1) (default: 0.9).
    - beta2: 1 - beta2 is how fast the second moment moves; in [0, 1) (default: 0.99).
    - tau: > 0, added to the root of the second moment: the larger, the less adaptive (default: 0.001).
    - weighted: whether clients count by their examples, up to the public weight_cap, else equally (default: True).

    Raises Misuse for a value out of range.

        Federation(make, loaders, strategy=FedYogi(lr=0.1), privacy=[SecAggPlus()]).fit(rounds=2)
    """

    name = "fedyogi"

    def second(self, v: Floats, square: Floats) -> Floats:
        return v - (1 - self.beta2) * square * np.sign(v - square)


class FedAdagrad(FedOpt):
    """Adagrad at the server (Reddi et al., ICLR 2021, Algorithm 2): the second moment only grows.

    - lr: the server's learning rate, > 0 (default: 0.01).
    - beta1: share of the last mean that the next one keeps, in [0, 1) (default: 0, no momentum).
    - tau: > 0, added to the root of the second moment: the larger, the less adaptive (default: 0.001).
    - weighted: whether clients count by their examples, up to the public weight_cap, else equally (default: True).

    Raises Misuse for a value out of range.

        Federation(make, loaders, strategy=FedAdagrad(lr=0.1), privacy=[SecAggPlus()]).fit(rounds=2)
    """

    name = "fedadagrad"

    def __init__(
        self, lr: float = 0.01, beta1: float = 0.0, tau: float = 1e-3, weighted: bool = True
    ) -> None:
        super().__init__(lr, beta1, 0.0, tau, weighted)

    def second(self, v: Floats, square: Floats) -> Floats:
        return v + square
