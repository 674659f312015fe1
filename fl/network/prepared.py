"""What a node made of a model before it was asked for a sum: trained when the model came, kept sealed until then.

What belongs here: keeping it, and taking it out once. What does not: messages, what of it is sent (`fl.computation`).
"""

from dataclasses import dataclass
from typing import Any

from safetensors.torch import load

from fl.checkpoint import model_bytes
from fl.computation import LocalComputation
from fl.federation_setup import FederationSetup
from fl.round import Broadcast, Reference
from protocols.codec import Record
from protocols.errors import PolicyRefusal, StackError
from protocols.layers import LocalTask, RoundFacts
from protocols.party_state import KEPT
from protocols.store import Store

TAKEN = "taken"


@dataclass(frozen=True)
class Done(Record):
    """A node's work. base: the digest of the model that it began with. reported: what training said of itself. model:
    what it made of it, as safetensors. Private.
    """

    base: bytes
    reported: dict[str, float]
    model: bytes


@dataclass(frozen=True)
class Base:
    """What training begins with, in place of a whole round's broadcast."""

    reference: Reference


class Prepared(LocalComputation):
    """Trains as soon as a model has come, and contributes that when it is asked for a sum."""

    def prepare(self, reference: Reference, own: RoundFacts, store: Store) -> None:
        """Train and keep what comes of it, in place of what was kept before."""
        base: Any = Base(reference)
        task = super().task(base, own)
        reported = self.trained(task, own)
        kept = Done(reference.digest, reported, model_bytes(task.model.state_dict()))
        store.put(_place(own.scope), kept.encode())

    def task(self, broadcast: Broadcast, own: RoundFacts) -> LocalTask:
        """Return the client's task with what was kept in place of training. Raises PolicyRefusal for a model that this
        node has not worked on, or whose work it has sent.
        """
        task = super().task(broadcast, own)
        assert own.store is not None
        with own.store.transaction() as t:
            kept = t.get(place := _place(own.scope))
            done = None if kept is None else Done.decode(kept)
            if done is None or done.base != broadcast.reference.digest:
                raise PolicyRefusal(
                    f"{own.whose}: this node has no work on the model that the server names for it"
                )
            t.delete(place)

        def take(task: LocalTask) -> dict[str, float]:
            task.model.load_state_dict(load(done.model))
            return done.reported

        task.run, task.noted[TAKEN] = take, True
        return task

    def _call(self, hook: str, task: LocalTask, *given: Any) -> None:
        """Call a client's hook while it trains, and not again when it is asked for that."""
        if TAKEN not in task.noted:
            super()._call(hook, task, *given)


def require_prepared(setup: FederationSetup) -> None:
    """Raises StackError for a layer or an option that must know the round while a client trains, in a run whose nodes
    train before they are asked for one.
    """
    if setup.strategy.buffers is None:
        return
    owned = [layer.name for layer in setup.stack.layers if layer.needs_local()]
    if found := [*owned, *setup.options.stay_local]:
        raise StackError(
            f"{found[0]} needs to know its round while a client trains, and under {setup.strategy.name} nodes train "
            "before there is one: leave it out, or play the run in memory"
        )


def _place(scope: str) -> str:
    return f"{KEPT}{scope}/done/prepared"  # `protocols.party_state.erase` takes it away with the run
