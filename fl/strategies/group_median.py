"""GroupMedian: the coordinate-wise median of the means of random groups (Chen, Su and Xu, POMACS 2017, Algorithm 2,
with the coordinate-wise median of Yin et al., ICML 2018, in place of the geometric one).

    v(t+1) = v(t) + median over groups g of mean over i in g of (x_i - v(t))

A round has a secure sum per group. Groups are drawn by the operating system's generator once the round's clients are
fixed, so that nobody can choose a group. While fewer than half of the groups hold a client that lies, the median lies
between honest groups' means, coordinate by coordinate. The server sees every group's sum: a client hides among its
group's survivors and no more. A layer that noises sums noises each group's, before the median; a client is charged
for the group that it is in.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fl.round import Mean
from fl.strategies.base import Floats, Strategy
from protocols.errors import Misuse
from protocols.layers import Value
from protocols.randomness import SecureRandom, SystemRandom


class GroupMedian(Strategy):
    """A median over groups in place of the mean over clients.

    groups: >= 3, more than twice as many as clients may lie. min_survivors: of each group, >= 2; a round with fewer in
    one of them is abandoned whole. random: draws the groups (the operating system's).

        Federation(make, loaders, strategy=GroupMedian(5, min_survivors=3), privacy=[SecAggPlus()])
    """

    name: ClassVar[str] = "group-median"
    weighted = False

    def __init__(self, groups: int = 5, min_survivors: int = 2, random: SecureRandom | None = None) -> None:
        if groups < 3:
            raise Misuse(f"groups: expected at least 3, got {groups}: a median of two is their mean")
        if min_survivors < 2:
            raise Misuse(
                f"min_survivors: expected at least 2 in a group, got {min_survivors}: one alone is told"
            )
        self.groups, self.min_survivors = groups, min_survivors
        self._random, self._least = random or SystemRandom(), 0

    def notes(self) -> tuple[str, ...]:
        fewest = f"; {self._least} were the fewest so far" if self._least else ""
        return (
            f"group-median: the server sees the sum of each of {self.groups} groups, drawn at random in every round "
            f"once its clients are fixed, so that a client hides among its group's survivors alone, at least "
            f"{self.min_survivors}{fewest}",
        )

    def sums(self, clients: tuple[str, ...], number: int) -> Mapping[str, tuple[str, ...]]:
        lots = {name: self._random.bytes(16) for name in clients}
        drawn = sorted(clients, key=lots.__getitem__)
        groups = {f"group-{k + 1}": set(drawn[k :: self.groups]) for k in range(self.groups)}
        return {name: tuple(c for c in clients if c in group) for name, group in groups.items()}

    def least(self, number: int, clients: tuple[str, ...], public: Mapping[str, Value]) -> int:
        return self.min_survivors

    def moves(self, means: Mapping[str, Mean]) -> Floats:
        fewest = min(len(mean.survivors) for mean in means.values())
        self._least = min(self._least or fewest, fewest)
        return np.median([mean.vector for mean in means.values()], axis=0)

    def state(self) -> dict[str, Floats]:
        return {"least": np.array([self._least], np.float64)}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        if state:
            self._least = int(state["least"][0])
