"""What every strategy is. What does not belong here: any particular one.

A client's contribution is the difference between its model after the local computation and the broadcast one, and
whatever else the strategy declares: counts, further blocks. The server moves the model by what the strategy makes of
their sums. A strategy needs sums only, so every secure sum fits. A round has one sum unless the strategy says more:
groups of clients, or several models, each of which moves by a mean of its own; one sum without a total abandons all.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fl.round import Count, Mean
from fl.round.buffers import Buffers
from protocols.errors import Misuse
from protocols.layers import Block, Compute, LocalTask, RoundFacts, RunFacts, Value

Floats = NDArray[np.float64]
Reported = Mapping[str, float]
"""What a client's training said of itself, by metric."""


@dataclass(frozen=True, eq=False)
class Extras:
    """What a client adds to its update. weight: what it counts with, from 0 to the strategy's `weight_cap` (None: its
    examples). counts, blocks: by name, as the strategy declares them. vector: what is sent in place of the difference
    (float64, as long; None: the difference). source: names the update behind a vector that leaves in several rounds,
    each time another one (None: the vector names itself); a client's policy says whether it may leave again. Private.
    """

    weight: int | None = field(default=None, repr=False)
    counts: Mapping[str, int] = field(default_factory=dict, repr=False)
    blocks: Mapping[str, Floats] = field(default_factory=dict, repr=False)
    vector: Floats | None = field(default=None, repr=False)
    source: bytes | None = field(default=None, repr=False)


class Strategy:
    """Base: override what the strategy changes.

    owns: of {"optimizer", "criterion"}, what the strategy replaces, and the user's train function must take as an
    argument. steers: it adds a term to each step's gradient that follows no example (`fl.strategies.steering`), so a
    layer may own the optimizer beside it. weighted: clients count by their examples or by `Extras.weight` (capped),
    else equally. averages: the model moves by a mean of what clients sent; where it does not, running statistics still
    move by their plain mean. keeps_state: clients keep arrays from round to round (`protocols.party_state.PartyState`).
    counts: integers that every client reports. weight_cap: the largest `Extras.weight`, >= 1; None where clients count
    by their examples. range: a public bound on every coordinate of what clients send, for the quantiser (None: it
    follows layers or the model). resends: one update leaves a client in several rounds, which its policy must allow.
    undelayed: what a client sends must be in the sum of the round in which it is sent, so that no layer beside it
    sends later what it leaves out. beyond_examples: why a layer that protects examples cannot stand beside it (a
    state or a choice that follows a client's data without noise); "" where it can, for what clients keep is made from
    protected values alone; None: "" unless they keep state. crowd: the fewest clients of a total
    where a secure sum alone hides updates, on which all insist. needs_noise: why it cannot stand without a layer that
    noises what clients send. buffers: who is done goes into a sum, in place of rounds that wait (None: they wait).
    remembers: attributes that hold the server's arrays across rounds, or None, by their names in a checkpoint.
    """

    name: ClassVar[str] = ""
    owns: frozenset[str] = frozenset()
    weighted: bool = True
    averages: bool = True
    keeps_state: bool = False
    steers: ClassVar[bool] = False
    counts: tuple[Count, ...] = ()
    weight_cap: int | None = None
    range: float | None = None
    resends: ClassVar[bool] = False
    undelayed: bool = False
    crowd: int = 1
    beyond_examples: str | None = None
    needs_noise: str = ""
    buffers: Buffers | None = None
    remembers: ClassVar[Mapping[str, str]] = {}

    def require(self, optimizer: Any) -> None:
        """Raises Misuse, before round 1, for a client's optimizer that the strategy's equations do not describe."""
        if self.steers:
            self.require_descent(optimizer)

    def require_descent(self, optimizer: Any) -> None:
        """Raises Misuse for an optimizer that goes uphill, where a term would point away."""
        if any(group.get("maximize") for group in getattr(optimizer, "param_groups", ())):
            raise Misuse(
                f"{self.name} adds a term to the gradient of a loss that is minimised, and the optimizer has "
                "maximize=True: minimise the negative"
            )

    def require_names(self, names: Sequence[str]) -> None:
        """Raises Misuse for entries of the module with which the strategy cannot work: names, of those that clients
        move, in order.
        """

    def plan(self, run: RunFacts) -> None:
        """Hear of the planned run, before its first round (after `require`, before `restore`), with how many clients
        may work with the server (`RunFacts.corrupt`).
        """

    def blocks(self, dimension: int) -> tuple[Block, ...]:
        """Further real vectors of every contribution to a model of `dimension` parameters (a control variate)."""
        return ()

    def module(self, make: Callable[[], Any]) -> Any:
        """Return the module that server and clients hold, of models that the user's factory makes (default: one)."""
        return make()

    def sends_update(self, public: Mapping[str, Value]) -> bool:
        """Whether clients send an update in a round for which this is broadcast, or counts alone about the model that
        they are shown; `move` then returns an empty movement.
        """
        return True

    def notes(self) -> tuple[str, ...]:
        """Sentences for the run's statement: what the server sees, what stays outside epsilon."""
        return ()

    def least(self, number: int, clients: tuple[str, ...], public: Mapping[str, Value]) -> int:
        """Return the fewest of a sum's clients that its total of round `number` may hold; every client insists on it.
        public: what this strategy broadcast for the round.
        """
        return 1

    def drawn_in(self, number: int) -> int:
        """Return the round whose draw says who is asked in round `number`: an earlier one where it goes on with that
        one's clients.
        """
        return number

    def sums(self, clients: tuple[str, ...], number: int) -> Mapping[str, tuple[str, ...]]:
        """Return the secure sums of round `number`: name -> its clients, of those asked (default: one, of all)."""
        return {"": clients}

    def model(self, name: str, server: Floats) -> Floats:
        """Return the model (float64 [d]) that the clients of the sum `name` start from (default: the server's,
        from which the only sum, "", always starts).
        """
        return server

    def public(self) -> Mapping[str, Value]:
        """What the server broadcasts for this round; arrives as `facts.public[self.name]`."""
        return {}

    def begin(self, task: LocalTask, facts: RoundFacts) -> None:
        """Change a client's task before any layer sees it (its optimizer's hooks, say). What `extras` needs of this
        lies in `task.noted`.
        """

    def local(self, compute: Compute, facts: RoundFacts) -> Compute:
        """Wrap the local computation of the client `facts.client` (inside every privacy layer's wrapping)."""
        return compute

    def extras(self, task: LocalTask, difference: Floats, reported: Reported, facts: RoundFacts) -> Extras:
        """Return what a client adds to its update: after training, from its difference and its training metrics."""
        return Extras()

    def opened(self, survivors: Sequence[int]) -> None:
        """Hear how many clients were in each sum of a round that opened; of an abandoned round too."""

    def moves(self, means: Mapping[str, Mean]) -> Floats:
        """Return the movement of the server's model (float64 [d]) for the means of all sums, by their names."""
        (mean,) = means.values()
        return self.move(mean)

    def move(self, mean: Mean) -> Floats:
        """Return the movement of the model (float64 [d]) for everything that was summed."""
        return self.step(mean.vector)

    def settled(self, model: Floats) -> Floats:
        """Return the server's model after a round (float64 [d]), from where the movement brought it."""
        return model

    def step(self, mean: Floats) -> Floats:
        """Return the movement of the model for a mean difference (float64 [d])."""
        return mean

    def state(self) -> dict[str, NDArray[Any]]:
        """The server's arrays across rounds, by name, those of `remembers` that are there; `restore` takes them back on
        resume.
        """
        found = {name: getattr(self, attribute) for name, attribute in self.remembers.items()}
        return {name: array for name, array in found.items() if array is not None}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take back what `state` returned."""
        for name, attribute in self.remembers.items():
            setattr(self, attribute, np.array(state[name]) if state else None)
