"""A strategy that does all it may do besides stepping: it broadcasts, weighs, counts, sends blocks and keeps state."""

from collections.abc import Mapping

import numpy as np

from fl.round import Count, Mean
from fl.strategies import Strategy
from fl.strategies.base import Extras
from protocols.layers import Block, Compute, LocalTask, RoundFacts, Value
from protocols.party_state import PartyState


class Controlled(Strategy):
    """Toy: every client counts its rounds in its own store, sends a control vector, and weighs what it likes."""

    name = "controlled"
    keeps_state = True
    counts = (Count("steps", 100),)
    weight_cap = 10

    def __init__(self) -> None:
        self.control: np.ndarray | None = None
        self.seen: dict[str, list[float]] = {}
        self.means: list[Mean] = []

    def blocks(self, dimension: int) -> tuple[Block, ...]:
        return (Block("control", dimension, weighted=False, range=16.0),)

    def public(self) -> Mapping[str, Value]:
        return {} if self.control is None else {"control": self.control}

    def local(self, compute: Compute, facts: RoundFacts) -> Compute:
        shown = facts.public.get(self.name, {}).get("control", 0.0)
        self.seen.setdefault(facts.client, []).append(float(np.asarray(shown).reshape(-1)[0]))
        return compute

    def extras(
        self, task: LocalTask, difference: np.ndarray, reported: Mapping[str, float], facts: RoundFacts
    ) -> Extras:
        state = PartyState.of(facts, self.name)
        rounds = float(state.arrays().get("rounds", np.zeros(1))[0]) + 1
        state.keep({"rounds": np.array([rounds])})
        place = facts.clients.index(facts.client)
        control = np.full(difference.size, rounds)
        return Extras(weight=place + 1, counts={"steps": place}, blocks={"control": control})

    def move(self, mean: Mean) -> np.ndarray:
        self.means.append(mean)
        self.control = mean.blocks["control"]
        return super().move(mean)
