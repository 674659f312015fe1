"""A Federation as Flower apps: the same model, layers, train function and policies, on a network.

What belongs here: the ClientApp, the ServerApp and what they read from the run configuration. What does not: rounds
and checks of a node (`fl.network`), the federation itself.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fl.callbacks.base import of_clients
from fl.credentials import read_public
from fl.federation_setup import FederationSetup
from fl.flower.arrays import tree_of
from fl.flower.arrivals import GridArrivals
from fl.flower.grid_party import POLL_SECONDS, GridParty
from fl.flower.mod import answered, find_site, refusing, require_protected
from fl.flower.work import shown_arrays
from fl.network.federated import part_of, require_own_evaluation
from fl.network.messages import EVALUATED
from fl.network.prepared import require_prepared
from fl.network.run_rounds import Federated, OnRound, run_rounds
from fl.network.server_party import server_files
from fl.network.site import Site
from fl.registry import layers_of
from fl.round import Tree
from fl.round.result import require_total
from fl.run_result import Result
from protocols.errors import Misuse
from protocols.identity import Identity, SignedRoster
from protocols.numbers import positive, whole
from protocols.stack import Stack

ROUNDS, OUTPUT, PARTITION = "num-server-rounds", "output", "partition-id"
ROSTER, AUTHORITY, IDENTITY = "secagg-roster", "secagg-authority", "secagg-identity"
TIMEOUT = "secagg-timeout"
TRIP_SECONDS = 600.0
OwnLayers = Callable[[Site], Sequence[Any]]


def client_app(
    federation: Federated, site: Path | str | None = None, privacy: OwnLayers | None = None
) -> ClientApp:
    """Return the clients. Only the loader of the client that lives on a node is ever asked for there.

    privacy: the federation's layers as this node runs them, where they need its own keys or credentials; the same
    function may make the server's (`server_app`).

    A node is called what its site.toml says, else the federation's client of its `partition-id` (a whole number from
    0; the node refuses any other value).
    """
    require_own_evaluation(federation.setup)
    app = ClientApp()
    require_prepared(federation.setup)
    hooks, strategy = of_clients(federation.setup.callbacks), deepcopy(federation.setup.strategy)
    kept = replace(federation.setup, ledger=None, output=None)  # an app may be pickled
    setup = replace(kept, callbacks=hooks, strategy=strategy)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        def answer() -> Message:
            require_protected(message)
            own = find_site(site, context, _name(setup, context))
            stack = Stack(layers_of(privacy(own)), setup.stack.numbers) if privacy else setup.stack
            mine = replace(setup, stack=stack)
            mine.over_network()
            return answered(message, own, lambda arrays: part_of(mine, _read, arrays == EVALUATED))

        return refusing(answer, message)

    return app


def _read(content: RecordDict, name: str) -> Tree:
    return tree_of(shown_arrays(content, name))


def _name(setup: FederationSetup, context: Context) -> str:
    """Return what the federation calls a node, "" where its configuration does not say. Raises Misuse."""
    if PARTITION not in context.node_config:
        return ""
    place, names = whole(PARTITION, context.node_config[PARTITION], 0), setup.names
    return names[place] if place < len(names) else f"helper-{place}"


def server_app(
    federation: Federated,
    rounds: int = 3,
    *,
    roster: SignedRoster | None = None,
    authority: bytes | None = None,
    identity: Identity | None = None,
    privacy: OwnLayers | None = None,
    timeout: float | None = None,
    poll: float = POLL_SECONDS,
    on_round: OnRound | None = None,
    on_result: Callable[[Result], None] | None = None,
    erase: bool = False,
) -> ServerApp:
    """Return the server: it runs `rounds` rounds, or those that are left in the federation's output folder.

    roster, authority, identity: the signed roster, the pinned key that signed it, the server's signing key:
    all three or none. privacy: makes the federation's layers from the server's own `Site`, where they need the
    signed roster (`Site.signed`, None without one). timeout: seconds per message trip
    (default: the federation's `client_timeout`, else 600). The run configuration
    overrides: `num-server-rounds`, `output`, and paths `secagg-roster`, `secagg-authority`, `secagg-identity`, and
    `secagg-timeout`. on_round: False ends the run (`Federation.fit`). on_result: gets what `fit` returns; without it
    the app raises NoResult for a run whose rounds were all abandoned.
    erase: once the last round is over, clients erase what they kept from round to round; the run then cannot go on with
    more rounds. Of layers that count their rows (correlated noise) they erase it in any case.

    The app raises Misuse, before anything is sent, for fewer than one round or a timeout that is not > 0.
    """
    require_own_evaluation(federation.setup)
    require_prepared(federation.setup)
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        config = context.run_config
        planned = whole(ROUNDS, config.get(ROUNDS, rounds), 1)
        usual = federation.setup.options.client_timeout if timeout is None else timeout
        limit = positive(TIMEOUT, config.get(TIMEOUT, TRIP_SECONDS if usual is None else usual))
        site = _server_site(federation, config, roster, authority, identity)
        playing = federation.with_privacy(privacy(site)) if privacy else federation
        playing.setup.over_network()
        known = site.store, site.roster, site.identity, poll
        server = GridParty(grid, playing.setup.stack.secure_sum, *known, names=playing.setup.names)
        if (buffers := playing.setup.strategy.buffers) is not None:
            buffers.arrivals = GridArrivals(server, playing.coordinator, limit)
            buffers.signer = site.identity
        result = run_rounds(playing, server, planned, limit, on_round, erase)
        if on_result:
            on_result(result)
        else:
            require_total(result.history)

    return app


def _server_site(
    federation: Federated,
    config: Any,
    roster: SignedRoster | None,
    authority: bytes | None,
    identity: Identity | None,
) -> Site:
    """Return the server's own files, by arguments and the run configuration. Raises Misuse for what does not fit."""
    if config.get(OUTPUT):
        federation.setup.output = Path(str(config[OUTPUT]))
    output = federation.setup.output
    signed = SignedRoster.load(Path(str(config[ROSTER]))) if config.get(ROSTER) else roster
    pinned = read_public(str(config[AUTHORITY])) if config.get(AUTHORITY) else authority
    own = Identity.load(Path(str(config[IDENTITY])), "server") if config.get(IDENTITY) else identity
    store, verified = server_files(output, signed, pinned, own)
    if verified is not None:
        names = {m.name for m in verified.with_role("client")}
        if missing := sorted(set(federation.setup.names) - names):
            raise Misuse(f"{missing[0]!r} is a client of the federation and not on the roster")
    return Site("server", store, {}, verified, own, output, signed)
