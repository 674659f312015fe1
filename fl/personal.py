"""Models that are a client's own: the shared one with what stayed at the client, or what a strategy trained there.

What does not belong here: how they come about (`fl.computation`, `fl.strategies.ditto`). They are read where the client
lives; in memory that is here. No epsilon covers them, and what is told of them, an evaluation say, is another release.
"""

from dataclasses import replace
from typing import Any

import torch

from fl.computation import STAYED
from fl.engines.memory import CLIENTS, MemoryEngine
from fl.federation import Federation
from fl.tensors.clone import clone
from protocols.errors import Misuse, require
from protocols.party_state import CLOSED, PartyState
from protocols.party_state import erase as erase_kept


def model_of(federation: Federation, client: str) -> torch.nn.Module:
    """Return a client's own model after the last round that closed with it: a module like the federation's.

    Raises Misuse for a federation whose clients keep none, one that has not begun or is not played in memory (there its
    nodes hold the models), and a name that is no client's.
    """
    setup, engine, coordinator = federation.setup, federation.engine, federation.coordinator
    require(client in setup.names, f"one of the clients {list(setup.names)}", f"{client!r}")
    owner = STAYED if setup.options.stay_local else setup.strategy.name
    if not (setup.options.stay_local or setup.strategy.name == "ditto"):
        raise Misuse("no client has a model of its own: take stay_local=(...), or strategy=Ditto()")
    if not isinstance(engine, MemoryEngine) or coordinator.run is None:
        raise Misuse(
            "a client's own model is where the client lives: play the rounds in memory, or ask its node"
        )
    closed = coordinator.closed.get(client, 0)
    own = replace(
        coordinator.sample().own(client, engine.stores[client]),
        number=closed + 1,
        public={CLOSED: {client: float(closed)}},
    )
    kept: dict[str, Any] = {
        name: torch.from_numpy(array.copy()) for name, array in PartyState.of(own, owner).arrays().items()
    }
    return clone(coordinator.model, {**coordinator.model.state_dict(), **kept}, setup.options.device)


def erase(federation: Federation) -> None:
    """Erase what the clients of a run that was played in memory kept from round to round, here and in its folder: the
    run is over, and cannot go on. Models of their own are gone with it. On Flower: `server_app(erase=True)`.

    Raises Misuse for a federation that is not played in memory.
    """
    engine, scope = federation.engine, federation.coordinator.origin.scope
    if not isinstance(engine, MemoryEngine):
        raise Misuse("what clients keep lies at their nodes: give server_app erase=True")
    for store in engine.stores.values():
        erase_kept(store, scope)
    if (folder := federation.setup.output) is not None:
        (folder / CLIENTS).unlink(missing_ok=True)
