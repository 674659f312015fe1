"""FedAdam (Reddi et al., ICLR 2021, Algorithm 2): Adam on the server, the mean difference as its gradient."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fl.strategies.base import Strategy
from protocols.errors import Misuse


class FedAdam(Strategy):
    """Adaptive server steps. lr > 0; beta1, beta2 in [0, 1); tau > 0: the degree of adaptivity."""

    name: ClassVar[str] = "fedadam"

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
        self._m: NDArray[np.float64] | None = None
        self._v: NDArray[np.float64] | None = None

    def step(self, mean: NDArray[np.float64]) -> NDArray[np.float64]:
        m = np.zeros_like(mean) if self._m is None else self._m
        v = np.full_like(mean, self.tau**2) if self._v is None else self._v
        self._m = self.beta1 * m + (1 - self.beta1) * mean
        self._v = self.beta2 * v + (1 - self.beta2) * mean**2
        moved: NDArray[np.float64] = self.lr * self._m / (np.sqrt(self._v) + self.tau)
        return moved

    def state(self) -> dict[str, NDArray[np.float64]]:
        return {} if self._m is None or self._v is None else {"m": self._m, "v": self._v}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        self._m, self._v = (np.array(state[name]) if state else None for name in ("m", "v"))
