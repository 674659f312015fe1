"""What every strategy is. What does not belong here: any particular one.

A client's contribution is the difference between its model after the local computation and the broadcast
one; the server moves the model by what `step` makes of the mean difference. A strategy needs that mean
only, so every secure sum fits.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from protocols.layers import Compute, RoundFacts


class Strategy:
    """Base: override what the strategy changes.

    owns: of {"optimizer", "criterion"}, what the user's train function must take as arguments. weighted:
    clients count by their examples (capped), else equally.
    """

    name: ClassVar[str] = ""
    owns: frozenset[str] = frozenset()
    weighted: bool = True

    def local(self, compute: Compute, facts: RoundFacts) -> Compute:
        """Wrap the local computation of the client `facts.client` (inside every privacy layer's wrapping)."""
        return compute

    def step(self, mean: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the movement of the model for a mean difference (float64 [d])."""
        return mean

    def state(self) -> dict[str, NDArray[np.float64]]:
        """The server's vectors across rounds, by name; `restore` takes them back on resume."""
        return {}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take back what `state` returned."""
