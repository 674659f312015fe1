"""IFCA (Ghosh, Chung, Yin and Ramchandran, NeurIPS 2020, Algorithm 1, averaging models): k models, and every client
trains the one that fits its data best. Which one that is stays hidden inside the sum.

    c_i = argmin over j of F_i(w_j)          w_j <- w_j + the mean over {i : c_i = j} of client i's difference to w_j

The k models are one module (`Copies`), so that an update is one vector: a client's difference in its own copy's place,
and zeros elsewhere. It is k times as long as one model's, and a layer clips and noises it as one: zeroing a client out
moves one copy by at most the clip, replacing one moves two copies by the clip each, or one by twice the clip.

A step takes two rounds: first the clients are counted by their choice, then the same clients send their updates by the
choice that was counted (`counted`). Nobody sends to a copy that fewer than `least` chose, for a cluster of one shows
its member, and every client insists on so many survivors that none falls below that. A server that lies about the
counts is not found out: against an active one only noise on the clients' updates helps, and with it (`least=0`)
nothing is counted.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl.copies import Copies, begun_anew, losses_of
from fl.round import Count, Mean
from fl.strategies.base import Extras, Floats, Reported
from fl.strategies.counted import COUNTS, CountedChoice
from fl.strategies.stepped import Stepped
from protocols.errors import Misuse, require
from protocols.layers import Compute, LocalTask, RoundFacts, RunFacts, Value


class IFCA(Stepped):
    """Clustered federated learning: k models, and every client trains the one that fits its data best (Ghosh et
    al., NeurIPS 2020, Algorithm 1). Which one a client chose stays hidden inside the sum. A step takes two rounds,
    one that counts the choices and one that sums the updates.

    - clusters: models, k >= 2 (default: 2).
    - least: fewest clients of a cluster that send, >= 2; or 0 beside noise on clients' updates, and only there:
      nothing is counted then, a step is one round, and a model moves by its cluster's sum over the number of all
      clients (default: 3).
    - server_lr: factor on a cluster's mean difference, > 0 (default: 1).
    - reseed: >= 0. With 0, as in the paper, a model that nobody chose stays, and several starts are needed. Above
      0, a model that fewer than `least` chose begins anew near the most chosen one, with noise of this share of its
      root mean square; every round must then ask all clients (default: 0).

    Raises Misuse for a value out of range, and before round 1 for a reseed where not all clients are asked;
    StackError for least=0 without a layer that noises updates.

        strategy = IFCA(2, least=2, reseed=0.01)
        result = Federation(make, loaders, strategy=strategy, privacy=[SecAggPlus()]).fit(rounds=4)   # two steps
        result.model.copies[0], fl.copies.losses_of(result.model, loaders["a"])
    """

    name = "ifca"
    weighted = False
    beyond_examples = "a client's choice of a cluster follows its examples, and no noise covers it"

    def __init__(
        self, clusters: int = 2, least: int = 3, server_lr: float = 1.0, reseed: float = 0.0
    ) -> None:
        require(clusters >= 2, "at least 2", clusters, "clusters")
        if least < 0 or least == 1:
            raise Misuse(
                f"least: expected at least 2, or 0 beside noise, got {least}: a cluster of one is told"
            )
        if not (0 < server_lr < float("inf") and 0 <= reseed < float("inf")):
            raise Misuse(f"expected server_lr > 0 and reseed >= 0, got {server_lr} and {reseed}")
        super().__init__(2 if least else 1)
        self.clusters, self.fewest, self.server_lr, self.reseed = clusters, least, server_lr, reseed
        self.needs_noise = "" if least else "nothing keeps a cluster of one from being told: say least=3"
        names = (*(f"cluster-{c + 1}" for c in range(clusters)), "no cluster")
        self.counts = tuple(Count(name, 1) for name in names) if least else ()
        self.keeps_state = self.undelayed = bool(least)
        self._choice = CountedChoice(self.name, clusters, least)
        self._counted, self._corrupt = np.zeros(clusters + 1), 0
        self.averages = server_lr <= 1

    def require_names(self, names: Sequence[str]) -> None:
        own = [name.split(".", 2)[2] for name in names]  # copies.<which>.<entry>
        each = own[: len(own) // self.clusters]
        if own != each * self.clusters:
            raise Misuse("stay_local, parameters: expected patterns that match every copy's entries alike")

    def plan(self, run: RunFacts) -> None:
        self._corrupt = run.corrupt
        if self.reseed and run.sampling != "all":
            raise Misuse(
                f"reseed={self.reseed:g}: a cluster whose clients are not drawn in a round would lose its model; ask "
                "all clients in every round (fraction=1), or take reseed=0"
            )

    def notes(self) -> tuple[str, ...]:
        least, corrupt = self.fewest, self._corrupt
        told = (
            f"the server learns how many clients chose each of {self.clusters} models, and the sum of each cluster's "
            f"updates, of at least {least} clients each, of whom up to {corrupt} may work with the server: a client "
            f"hides among the honest ones, at least {max(1, least - corrupt)} with it; "
        )
        return (
            f"ifca: a client's choice is hidden inside the sum, and its upload is {self.clusters} times one model's; "
            + told * bool(least)
            + "a server that lies about counts or shows clients other models is stopped by noise alone; zeroing a "
            "client out moves one model by at most its clip, replacing one two by the clip each or one by twice that",
        )

    def module(self, make: Callable[[], Any]) -> Any:
        return Copies([make() for _ in range(self.clusters)])

    # -- the server --

    def public(self) -> Mapping[str, Value]:
        return {COUNTS: self._counted} if self._now > self._step else {}

    def sends_update(self, public: Mapping[str, Value]) -> bool:
        return not self.fewest or COUNTS in public

    def least(self, number: int, clients: tuple[str, ...], public: Mapping[str, Value]) -> int:
        return self._choice.sending(public, len(clients)) if self.fewest else 1

    def move(self, mean: Mean) -> Floats:
        chose = np.array([mean.counts[count.name] for count in self.counts], np.float64)
        self.closed(mean)
        if self.fewest and self._now == self._step:
            self._counted = chose
            return np.zeros(0)
        share = len(mean.survivors) / np.maximum(1, chose[:-1]) if self.fewest else np.ones(self.clusters)
        return np.ravel(self.server_lr * share[:, None] * mean.vector.reshape(self.clusters, -1))

    def settled(self, model: Floats) -> Floats:
        few = [c for c in range(self.clusters) if self._counted[c] < self.fewest]
        if not (self.reseed and few and self._now > self._step):  # in a round that summed updates
            return model
        return begun_anew(model, self._counted[:-1], few, self.reseed, self._now)

    def state(self) -> dict[str, Floats]:
        return {**super().state(), COUNTS: self._counted}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        super().restore(state)
        self._counted = np.array(state.get(COUNTS, self._counted), np.float64)

    # -- the client --

    def local(self, compute: Compute, facts: RoundFacts) -> Compute:
        def chosen(task: LocalTask) -> dict[str, float]:
            public, whole = facts.public.get(self.name, {}), task.model

            def nearest() -> int | None:
                losses = losses_of(whole, task.loader, task.criterion, task.device, task.loss)
                return None if losses is None else int(np.argmin(losses))

            choice = task.noted["choice"] = self._choice.of(facts, nearest) if self.fewest else nearest()
            if choice is None or not self.sends_update(public):
                return {}
            task.model = whole.copies[choice]
            try:
                return compute(task)
            finally:
                task.model = whole

        return chosen

    def extras(self, task: LocalTask, difference: Floats, reported: Reported, facts: RoundFacts) -> Extras:
        choice = task.noted["choice"]
        chose = self.clusters if choice is None else choice
        return Extras(counts={count.name: int(chose == c) for c, count in enumerate(self.counts)})
