"""What it costs to run a mechanism several times and to release the best run: choosing on the data themselves.

What does not belong here: the choice. Nothing of this toolkit chooses so; the number says what data apart have saved.
"""

import math
from collections import Counter
from collections.abc import Mapping

import numpy as np
from scipy.optimize import brentq

from dp.accountants.rdp import Curve, RDPAccountant, orders
from dp.events import Event
from protocols.numbers import real


class SelectedAccountant(RDPAccountant):
    """The price of the best of K runs, each with the events that were added; K is drawn from the logarithmic
    distribution with `runs`, from 1.000001 to 1e100, in the mean, and every run's settings are drawn independently.

    Papernot and Steinke (ICLR 2022, "Hyperparameter tuning with Renyi differential privacy"), Theorem 2 with eta = 0.
    A search that looks at the runs before (Optuna's) or plays a fixed number is not covered: its price is that of all
    runs together. Raises Misuse for other `runs`.
    """

    name = "selected"

    def __init__(self, runs: float) -> None:
        super().__init__()
        self.runs = real("runs", runs, "from 1.000001 to 1e100", lambda number: 1 + 1e-6 <= number <= 1e100)

    def _whole(self) -> tuple[Counter[Event], float]:
        counts, distance = super()._whole()
        return counts, self.runs * distance  # of all runs: a coupling fails in each

    def curve(self, counts: Mapping[Event, int]) -> Curve:
        """The paper's bound at every order, from that of one run at all orders."""
        order, once = np.asarray(orders()), super().curve(counts)
        least = float(np.min((1 - 1 / order) * once - math.log(logarithmic(self.runs)) / order))
        selected: Curve = once + least + math.log(self.runs) / (order - 1)
        return selected


def logarithmic(mean: float) -> float:
    """The parameter gamma in (0, 1) at which the distribution has that mean > 1: (1 / gamma - 1) / log(1 / gamma)."""
    exponent = brentq(lambda x: math.expm1(x) / x - mean, 1e-9, 700.0)
    return math.exp(-float(exponent))
