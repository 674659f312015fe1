"""FedBuff (Nguyen, Malik, Zhan, Yousefpour, Rabbat, Malek and Huba, AISTATS 2022, Algorithm 1): nobody waits for the
slowest.

A client begins with the newest model x_v and sends D = x_local - x_v when it is done. The server sums K of them, who
may have begun with different versions, and moves its newest model:

    x_{t+1} = x_t + server_lr (1/K) sum over the buffer of s(t - v) D,        s(a) = 1 / sqrt(1 + a)

The sum is a secure one among the buffer's clients. All of them agree on who began with which version; every version has
`alike` clients in any total, whoever leaves, and is a link of the run's chain of models, which each client remembers.
Who is in which buffer follows how long clients take: that amplifies nothing, and every buffer is charged for.
"""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from fl.round.buffers import Buffers
from fl.strategies.fedavg import FedAvg
from protocols.errors import refuse
from protocols.layers import LocalTask, RoundFacts, RunFacts
from protocols.store import AlreadyDone


class FedBuff(FedAvg):
    """Asynchronous rounds: the server sums whoever is done, a buffer of clients at a time, and nobody waits for the
    slowest (Nguyen et al., AISTATS 2022, Algorithm 1). Clients count equally. Coordinates need a public range, from
    a layer or from `Federation(range=...)`.

    - size: clients of a buffer, the paper's K, >= alike + leaving (default: 10).
    - alike: the fewest clients of each model version in any total, >= 1. With 1, nothing is claimed against a
      server that shows one client a model made for that client (default: 2).
    - leaving: clients of a buffer that may leave before the server abandons it, >= 0 (default: 1).
    - oldest: a client whose model is more versions old than this begins anew, >= 1 (default: 20).
    - server_lr: factor on a buffer's mean difference, > 0 (default: 1).
    - at_once: clients that work or wait for a buffer at a time, >= size, or 0 for everybody (default: 0).

    Raises Misuse for a value out of range.

        strategy = FedBuff(size=4)
        Federation(make, loaders, strategy=strategy, range=0.5, delays=1.5, privacy=[SecAggPlus()]).fit(rounds=2)
    """

    name = "fedbuff"
    buffers: Buffers

    def __init__(
        self,
        size: int = 10,
        alike: int = 2,
        leaving: int = 1,
        oldest: int = 20,
        server_lr: float = 1.0,
        at_once: int = 0,
    ) -> None:
        super().__init__(server_lr, weighted=False)
        self.size, self.alike, self.leaving, self.oldest, self.at_once = size, alike, leaving, oldest, at_once
        self.buffers = Buffers(size, alike, leaving, oldest, at_once)
        self._corrupt = 0

    def plan(self, run: RunFacts) -> None:
        self._corrupt = run.corrupt

    def notes(self) -> tuple[str, ...]:
        shown = (
            "nothing is claimed against a server that shows a client a model made for it (alike=1)"
            if self.alike == 1
            else f"at least {self.alike} clients of every version that somebody began with are in any total, of whom "
            f"up to {self._corrupt} may work with the server: a client hides among the honest ones of its version, at "
            f"least {max(1, self.alike - self._corrupt)} with it, against a server that makes a model for them; the "
            "chain of the run's models, which every client remembers, keeps the past from being rewritten and does not "
            "show who made a link"
        )
        return (
            f"fedbuff: {shown}",
            "fedbuff: who is in which buffer, and how old its model was, follows how long clients take; all of that is "
            "seen and outside any epsilon, which counts on that it does not follow the data",
        )

    def begin(self, task: LocalTask, facts: RoundFacts) -> None:
        """Raises ProtocolViolation for a buffer that this client contributed to, or one before it."""
        if facts.store is None:
            return
        try:
            facts.store.advance(f"buffer/{facts.scope}", facts.number)
        except AlreadyDone:
            raise refuse(
                f"{facts.whose}: expected a buffer after the last one that this client contributed to: it contributes "
                "once to each"
            ) from None

    def state(self) -> dict[str, NDArray[Any]]:
        return self.buffers.state()

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        self.buffers.restore(state)
