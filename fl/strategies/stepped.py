"""Strategies whose step takes several rounds, all of one step with the clients of its first round that are left.

What does not belong here: what a round of a step does, an update that leaves again (`resending`).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl.round import Mean
from fl.strategies.base import Floats, Strategy


class Stepped(Strategy):
    """Base. longest: rounds of a step, >= 1; a round that is abandoned ends the step, and the next one begins another.
    `move` calls `closed`. `_step` and `_now` are the step's first round and the present one.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._step, self._now, self._closed = 1, 0, -1
        self._members: tuple[str, ...] = ()

    def _goes_on(self, number: int) -> bool:
        return self._closed == number - 1 and 0 < number - self._step < self._longest

    def drawn_in(self, number: int) -> int:
        return self._step if self._goes_on(number) else number

    def sums(self, clients: tuple[str, ...], number: int) -> Mapping[str, tuple[str, ...]]:
        if not self._goes_on(number):
            self._step, self._members = number, clients
        self._now = number
        return {"": self._members}

    def closed(self, mean: Mean) -> None:
        """Note that the present round closed: the next one of its step is over its survivors."""
        self._members, self._closed = mean.survivors, self._now

    def state(self) -> dict[str, Floats]:
        if self._longest == 1:
            return {}  # nothing goes on, and who took part may be a secret that this file would tell
        names = np.frombuffer("\0".join(self._members).encode(), np.uint8).astype(np.float64)
        return {"at": np.array([self._step, self._closed], np.float64), "members": names}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        if "at" in state:
            self._step, self._closed = (int(value) for value in state["at"])
            self._members = tuple(bytes(state["members"].astype(np.uint8)).decode().split("\0"))
