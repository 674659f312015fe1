"""One masked sum as a piece of work, and how ours does it. What does not belong here: peers, printing."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from protocols import simulate
from protocols.kernel import Message, Party
from protocols.simulate import Outcome
from secagg import SecAgg, SecAggPlus
from secagg.ring import Ring


@dataclass(frozen=True)
class Work:
    """A round to run. neighbours None: planned; complete: on the complete graph. dropout: share that leaves before
    sending its masked vector (and the tolerance planned for). threat None: as planned by default.
    """

    clients: int
    dim: int
    neighbours: int | None
    threshold: int | None
    dropout: float
    bits: int = 16
    threat: str | None = "semi-honest"
    collusion: float = 0.0
    seed: int = 1
    clock: str = "wall"

    @property
    def read_clock(self) -> Callable[[], float]:
        """Seconds of wall-clock time, or of this process's processors: what other load does not stretch."""
        return time.process_time if self.clock == "cpu" else time.perf_counter

    @property
    def bound(self) -> int:
        return (1 << (self.bits - 1)) - 1

    @property
    def complete(self) -> bool:
        return self.neighbours is not None and self.neighbours >= self.clients - 1

    def protocol(self) -> SecAgg | SecAggPlus:
        if self.complete:
            return SecAgg(self.dropout, self.collusion, self.threat, threshold=self.threshold)
        return SecAggPlus(self.dropout, self.collusion, self.threat, self.neighbours, self.threshold)

    def vectors(self) -> list[NDArray[np.int64]]:
        """The clients' inputs: windows of one random array, so that n distinct vectors take the room of one."""
        draw = np.random.default_rng(self.seed)
        whole = draw.integers(-self.bound, self.bound + 1, self.dim + self.clients, dtype=np.int64)
        return [whole[i : i + self.dim] for i in range(self.clients)]

    def leaving(self) -> list[int]:
        """The clients that leave: round(dropout x clients) of them, drawn from the seed."""
        draw = np.random.default_rng(self.seed + 1)
        return sorted(draw.choice(self.clients, round(self.dropout * self.clients), replace=False).tolist())


@dataclass
class Round:
    """What a round took. Seconds by stage and role are of all parties of the role together; bytes are of a survivor."""

    client_mean_s: float
    server_s: float
    stages: dict[str, dict[str, float]]
    bytes_up_per_client: float
    bytes_down_per_client: float
    max_abs_error: float
    wall_s: float
    survivors: int
    facts: dict[str, object] = field(default_factory=dict)


def run(work: Work) -> Round:
    """Run the round once, with every party's real state machine, and check the sum."""
    vectors, leaving = work.vectors(), work.leaving()
    up: defaultdict[Party, int] = defaultdict(int)
    down: defaultdict[Party, int] = defaultdict(int)

    def count(sent: Message) -> None:
        (up if sent.recipient.role == "server" else down)[
            sent.sender if sent.recipient.role == "server" else sent.recipient
        ] += sent.size

    began = time.perf_counter()
    outcome = simulate(
        work.protocol(),
        vectors,
        drop={"masked-input": leaving},
        bound=work.bound,
        observe=count,
        updates={i: i.to_bytes(32, "big") for i in range(work.clients)},
        clock=work.read_clock,
    )
    wall = time.perf_counter() - began
    survivors = [Party("client", i) for i in outcome.survivors]
    if sorted(outcome.survivors) != sorted(set(range(work.clients)) - set(leaving)):
        raise RuntimeError(f"expected every client that stayed in the total, got {len(survivors)}")
    return Round(
        client_mean_s=outcome.seconds_of("client") / work.clients,
        server_s=outcome.seconds_of("server"),
        stages=outcome.seconds,
        bytes_up_per_client=sum(up[p] for p in survivors) / len(survivors),
        bytes_down_per_client=sum(down[p] for p in survivors) / len(survivors),
        max_abs_error=float(_error(outcome, vectors)),
        wall_s=wall,
        survivors=len(survivors),
        facts=_facts(work, outcome),
    )


def _error(outcome: Outcome, vectors: list[NDArray[np.int64]]) -> int:
    expected = np.zeros_like(outcome.total)
    for i in outcome.survivors:
        expected += vectors[i]
    return int(np.abs(outcome.total - expected).max())


def _facts(work: Work, outcome: Outcome) -> dict[str, object]:
    """What the session settled on, and the size of what it carried."""
    demands = work.protocol().demands(outcome.session)
    ring = Ring(demands.ring_bits)
    return {
        "threat": demands.threat,
        "degree": demands.degree,
        "threshold": demands.threshold,
        "ring_bits": ring.bits,
        "packed_vector_bytes": ring.packed_bytes(work.dim),
    }
