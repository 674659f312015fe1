"""GroupMedian: the coordinate-wise median of the means of random groups (Chen, Su and Xu, POMACS 2017, Algorithm 2,
with the coordinate-wise median of Yin et al., ICML 2018, in place of the geometric one).

    v(t+1) = v(t) + median over groups g of mean over i in g of (x_i - v(t))

A round has a secure sum per group. The server draws the groups by the operating system's generator once the clients'
names are fixed, so that no client can choose its group; nothing binds the server's draw. They are drawn once for the
run: sums over other groups in every round would be equations enough to solve each client's update (Lam et al.,
"Gradient Disaggregation", ICML 2021). While fewer than half of the groups hold a client that lies, the median lies
between honest groups' means, coordinate by coordinate. The server sees every group's sum: a client hides among its
group's survivors and no more. A layer that noises sums noises each group's, before the median; a client is charged
for the group that it is in.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl.round import Mean
from fl.strategies.base import Floats, Strategy
from protocols.errors import Misuse, require
from protocols.layers import Value
from protocols.randomness import SecureRandom, SystemRandom


class GroupMedian(Strategy):
    """The coordinate-wise median of the means of random groups (Chen, Su and Xu, POMACS 2017, Algorithm 2). It
    withstands clients that lie while they sit in fewer than half of the groups. The server sees each group's sum.

    - groups: >= 3, more than twice as many as clients may lie (default: 5).
    - min_survivors: of each group, >= 2; the server abandons a round in which a group has fewer (default: 2).
    - random: a `SecureRandom` that draws the groups, once for the run (default: None, the operating system's).

    Raises Misuse for a value out of range, and before round 1 for a group with too few clients.

        Federation(make, loaders, strategy=GroupMedian(3), privacy=["none"]).fit(rounds=2)
    """

    name = "group-median"
    weighted = False

    def __init__(self, groups: int = 5, min_survivors: int = 2, random: SecureRandom | None = None) -> None:
        require(groups >= 3, "at least 3", f"{groups}: a median of two is their mean", "groups")
        if min_survivors < 2:
            raise Misuse(
                f"min_survivors: expected at least 2 in a group, got {min_survivors}: one alone is told"
            )
        self.groups, self.min_survivors = groups, min_survivors
        self._random, self._least, self._key = random or SystemRandom(), 0, b""

    def notes(self) -> tuple[str, ...]:
        fewest = f"; {self._least} were the fewest so far" if self._least else ""
        return (
            f"group-median: the server sees the sum of each of {self.groups} groups, drawn at random once for the run, "
            f"so that a client hides among its group's survivors alone, at least {self.min_survivors}{fewest}; who may "
            "collude is counted in each group by itself, as for the smallest one. Where a group's sums are over other "
            "clients from round to round (a fraction is asked, some leave), they tell single updates as far as these "
            "stay alike, and a server that does not draw at random puts together whom it likes",
        )

    def sums(self, clients: tuple[str, ...], number: int) -> Mapping[str, tuple[str, ...]]:
        drawn = sorted(clients, key=self._lot)
        places = np.array_split(np.arange(len(drawn)), self.groups)
        groups = {f"group-{k + 1}": {drawn[place] for place in part} for k, part in enumerate(places)}
        return {name: tuple(c for c in clients if c in group) for name, group in groups.items()}

    def _lot(self, client: str) -> bytes:
        """Return where a client stands in the order of this run, which is drawn when the first one asks."""
        self._key = self._key or self._random.bytes(32)
        return hashlib.sha256(self._key + client.encode()).digest()

    def least(self, number: int, clients: tuple[str, ...], public: Mapping[str, Value]) -> int:
        return self.min_survivors

    def opened(self, survivors: Sequence[int]) -> None:
        known = [self._least] if self._least else []
        self._least = min([*known, *survivors], default=0)

    def moves(self, means: Mapping[str, Mean]) -> Floats:
        return np.median([mean.vector for mean in means.values()], axis=0)

    def state(self) -> dict[str, Floats]:
        key = np.frombuffer(self._key, np.uint8).astype(np.float64)
        return {"least": np.array([self._least], np.float64), "key": key}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        if state:
            self._least, self._key = int(state["least"][0]), bytes(state["key"].astype(np.uint8))
