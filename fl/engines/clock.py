"""Simulated time: who is done when, where one process plays all clients of a run without waiting rounds.

What does not belong here: training, which happens when a client's input is due; what is summed.
"""

from collections import Counter
from collections.abc import Collection

from fl.dropouts import Dropouts, delay
from fl.engines.memory import Waited
from fl.round.run_files import Json
from fl.sampling import Participants


class Clock:
    """Delays that follow the user's seed (`fl.round.buffers.Arrivals`): lognormal of `sigma`, median 1."""

    goes_on = True

    def __init__(self, seed: int, sigma: float) -> None:
        self.seed, self.sigma = seed, sigma
        self.now, self._told = 0.0, 0.0
        self.done: dict[str, float] = {}
        self.started: Counter[str] = Counter()

    def start(self, client: str, version: int) -> None:
        self.started[client] += 1
        self.done[client] = self.now + delay(self.seed, self.started[client], client, self.sigma)

    def wait(self) -> str:
        client = min(self.done, key=lambda name: (self.done[name], name))
        self.now = max(self.now, self.done.pop(client))
        return client

    def waited(self, number: int, clients: Collection[str]) -> float:
        """Return the simulated time since it was asked last (`fl.engines.memory.Waited`)."""
        passed, self._told = self.now - self._told, self.now
        return passed

    def state(self) -> Json:
        return {"now": self.now, "told": self._told, "done": self.done, "started": dict(self.started)}

    def restore(self, state: Json) -> None:
        self.now, self._told, self.done = state["now"], state["told"], dict(state["done"])
        self.started = Counter(state["started"])


def simulated(participants: Participants, secret: bool = False) -> tuple[Dropouts, Waited]:
    """Return who leaves simulated rounds, and how long they take; buffers get a clock. secret: how clients are chosen
    (`Dropouts.apart`).
    """
    options, buffers = participants.options, participants.buffers
    drops = Dropouts(options.seed, options.dropout, participants.spared, options.delays, secret)
    if buffers is None:
        return drops, drops.waited
    buffers.arrivals = clock = Clock(options.seed, options.delays)
    return drops, clock.waited
