"""Who leaves a simulated round, who is late, and when: follows the user's seed, so that every layer loses the same
clients. What does not belong here: who is asked (`fl.sampling`).
"""

from collections.abc import Collection
from dataclasses import dataclass

from fl.seeds import generator
from protocols.session import Session
from protocols.summation import SecureSum


@dataclass(frozen=True)
class Dropouts:
    """Draws who leaves each session (`fl.engines.memory.Departures`). rate: share of the clients asked, rounded to the
    nearest count; at least one stays. awaited: of those who stay, so many that answer first are taken, by `delay`
    (None: all). sigma: of the delays. apart: each client leaves with chance `rate` by itself instead. That is for a
    choice of clients whose secrecy is in a price: one that leaves among a count of them does so by who else was chosen.
    """

    seed: int
    rate: float
    awaited: int | None = None
    sigma: float = 0.0
    apart: bool = False

    def __call__(
        self, protocol: SecureSum, session: Session
    ) -> tuple[Collection[str], dict[str, Collection[str]]]:
        """Return who leaves before its input does, and stage -> who vanishes before answering it."""
        gone = (leaving_apart if self.apart else leaving)(self.seed, session.round, session.roster, self.rate)
        early = {name for name, late in gone.items() if not late}
        drop = by_stage(protocol, session, self.seed, gone)
        staying = [name for name in session.roster if name not in early]
        times = {name: delay(self.seed, session.round, name, self.sigma or 1.0) for name in staying}
        if late := sorted(staying, key=times.__getitem__)[self.awaited :] if self.awaited else ():
            first = next(stage.name for stage in protocol.stages(session) if stage.role == "client")
            drop[first] = {*drop.get(first, ()), *late}
        return {*early, *late}, drop

    def waited(self, number: int, clients: Collection[str]) -> float:
        """Return the simulated time that session `number` took, for all of these to answer: 0 without delays."""
        times = (delay(self.seed, number, name, self.sigma) for name in clients)
        return max(times, default=0.0) if self.sigma else 0.0


def delay(seed: int, number: int, client: str, sigma: float) -> float:
    """Return how long a client takes to answer in session `number`: lognormal, median 1."""
    return float(generator(seed, "delay", number, client).lognormal(0.0, sigma))


def departing(clients: int, rate: float) -> int:
    """Return how many of so many clients leave; at least one stays."""
    return max(0, min(round(rate * clients), clients - 1))


def leaving(seed: int, number: int, clients: tuple[str, ...], rate: float) -> dict[str, bool]:
    """Return the clients that leave in round `number` -> True if after their input has left (they still count)."""
    count = departing(len(clients), rate)
    if count == 0:
        return {}
    draw = generator(seed, "leave", number)
    gone = draw.choice(len(clients), size=count, replace=False)
    after = draw.random(count) < 0.5
    return {clients[i]: bool(late) for i, late in zip(gone, after, strict=True)}


def leaving_apart(seed: int, number: int, clients: tuple[str, ...], rate: float) -> dict[str, bool]:
    """Return the same, where each client leaves with chance `rate`, whoever else is there."""
    draws = {name: generator(seed, "leave", number, name).random(2) for name in clients if rate > 0}
    return {name: bool(late < 0.5) for name, (leaves, late) in draws.items() if leaves < rate}


def by_stage(
    protocol: SecureSum, session: Session, seed: int, gone: dict[str, bool]
) -> dict[str, Collection[str]]:
    """Return stage -> clients that vanish before answering it: a random stage up to the input's, or after it."""
    stages = [stage for stage in protocol.stages(session) if stage.role == "client"]
    counting = next(i for i, stage in enumerate(stages) if stage.counts)
    drop: dict[str, set[str]] = {}
    for name in sorted(gone):
        early, late = stages[: counting + 1], stages[counting + 1 :]
        place = generator(seed, "stage", session.round, name).random()
        choices = late if gone[name] else early
        if choices:  # a protocol that asks nothing after the input does not notice who leaves then
            drop.setdefault(choices[int(place * len(choices))].name, set()).add(name)
    return dict(drop)
