"""Groups of clients that take turns: how many. What does not belong here: who is in which (`fl.sampling`)."""

import math


def groups_of(rate: float) -> int:
    """How many fixed groups of clients take turns where each round asks at most the share `rate` of them."""
    return max(1, math.floor(1 / rate + 1e-9))
