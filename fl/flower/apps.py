"""A Federation as Flower apps: the same model, layers, train function and policies, on a network.

What belongs here: the ClientApp, the ServerApp and what they read from the run configuration. What does not: rounds
(`grid_engine`), checks of a node (`node_party`), the federation itself.
"""

import functools
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from logging import INFO
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from numpy.typing import NDArray

from fl import checkpoint
from fl.arguments import positive, whole
from fl.callbacks.base import of_clients
from fl.computation import LocalComputation
from fl.coordinator import Coordinator
from fl.credentials import read_public
from fl.federation_setup import FederationSetup
from fl.flower.arrays import tree_of
from fl.flower.arrivals import GridArrivals
from fl.flower.compat import log
from fl.flower.grid_engine import FlowerEngine
from fl.flower.messages import EVALUATED, Header
from fl.flower.mod import find_site, refusing, require_protected
from fl.flower.node_party import NodeParty, Part
from fl.flower.prepared import Prepared, require_prepared
from fl.flower.server_party import POLL_SECONDS, ServerParty, server_files
from fl.flower.site import Site
from fl.flower.work import shown_arrays
from fl.registry import layers_of
from fl.round import Broadcast, Engine, RoundResult, RunHeader
from fl.round.buffers import require_manifest
from fl.round.kept import last_entry
from fl.round.reference import with_values
from fl.run_result import Result
from fl.strategies.stepped import Stepped
from protocols.errors import Misuse, PolicyRefusal, ProtocolViolation, WireError
from protocols.identity import Identity, SignedRoster
from protocols.layers import Contribution, RoundFacts
from protocols.record import GENESIS
from protocols.session import Session
from protocols.stack import Stack
from protocols.store import Store
from protocols.updates import flatten

ROUNDS, OUTPUT, PARTITION = "num-server-rounds", "output", "partition-id"
ROSTER, AUTHORITY, IDENTITY = "secagg-roster", "secagg-authority", "secagg-identity"
TIMEOUT = "secagg-timeout"
AMPLIFIED = (
    "the price counts on a secret choice of clients, which no client can check: each node's own ledger, and its "
    "max_epsilon, count every round that it was asked for without it"
)
TRIP_SECONDS = 600.0
OnRound = Callable[[RoundResult], Any]
OwnLayers = Callable[[Site], Sequence[Any]]


class Federated(Protocol):
    """What the apps use of a `fl.Federation`."""

    setup: FederationSetup
    coordinator: Coordinator
    engine: Engine
    signer: Identity | None

    def with_privacy(self, privacy: Sequence[Any]) -> Self: ...

    def fit(self, rounds: int, *, resume: bool = False, on_round: OnRound | None = None) -> Result: ...


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
            mine = replace(setup, stack=stack.over_network())
            return NodeParty(own, lambda arrays: _part(mine, arrays == EVALUATED)).answer(message)

        return refusing(answer, message)

    return app


def _name(setup: FederationSetup, context: Context) -> str:
    """Return what the federation calls a node, "" where its configuration does not say. Raises Misuse."""
    if PARTITION not in context.node_config:
        return ""
    place, names = whole(PARTITION, context.node_config[PARTITION], 0), setup.names
    return names[place] if place < len(names) else f"helper-{place}"


def require_own_evaluation(setup: FederationSetup) -> None:
    """Raises Misuse for an evaluation by others than the federation's clients: no node answers for them."""
    own = () if setup.evaluation is None else setup.evaluation.federation(torch.nn.Identity()).setup.names
    if strangers := [name for name in own if name not in setup.names]:
        raise Misuse(
            f"evaluation: {strangers[0]!r} is no client of this federation, and on Flower its nodes evaluate: name "
            f"the loaders like its clients, {list(setup.names)}"
        )


def _part(setup: FederationSetup, evaluates: bool) -> Part:
    """Return a node's part in a round: training, or the evaluation that its federation was given.

    Raises PolicyRefusal for an evaluation in a federation that has none.
    """
    if not evaluates:
        return Part(setup.stack, FederatedWork(setup), setup.policy)
    if setup.evaluation is None:
        raise PolicyRefusal("evaluation: this node's federation was given none; give both sides the same one")
    held = torch.nn.Sequential()  # where the model goes, once it has come
    own = setup.evaluation.federation(held).setup
    own.stack = own.stack.over_network()
    return Part(own.stack, EvaluatingWork(own, setup, held), own.policy or setup.policy)


class FederatedWork:
    """A client's part in a federation's round: the federation's own broadcast and training, on this node's data."""

    def __init__(self, setup: FederationSetup) -> None:
        self.setup = setup

    @functools.cached_property
    def coordinator(self) -> Coordinator:
        """Made when it is needed: most messages need no model."""
        return Coordinator(self.setup)

    def shown(self, header: Header, content: RecordDict) -> dict[str, NDArray[Any]]:
        """Return the model, from what was sent of it. What no round changes is as this node made it; the session's
        digest is over all of it. Raises WireError for another federation's.
        """
        sent, own = (
            tree_of(shown_arrays(content, header.terms.origin.layout.arrays)),
            self.coordinator.reference(),
        )
        if sent.keys() != own.shown.keys() or any(sent[k].shape != own.tree[k].shape for k in sent):
            raise WireError("the model that was sent is not this federation's")
        return {**own.tree, **sent}

    def open(self, header: Header, session: Session, content: RecordDict) -> Broadcast:
        """Open the round for oneself."""
        coordinator, terms, shown = self.coordinator, header.terms, self.shown(header, content)
        # its own: another one is refused with the terms
        run = RunHeader.of(coordinator.planned(terms.run.rounds))
        coordinator.run, coordinator.origin = run.facts(), terms.origin
        if not isinstance(self.setup.strategy, Stepped):  # which goes on with the clients of an earlier round
            coordinator.participants.require_chosen(terms.number, session.roster)
        self.setup.stack.plan(coordinator.run)
        told = terms.public.public(), shown, terms.name, terms.manifest
        return coordinator.open(terms.number, session.roster, *told)

    def prepare(self, header: Header, name: str, store: Store, content: RecordDict) -> None:
        """Train on a model that a buffer will ask for: a link of the run's chain, and the one that is named for us."""
        terms, coordinator, shown = header.terms, self.coordinator, self.shown(header, content)
        run, manifest = coordinator.planned(terms.run.rounds), terms.manifest
        if manifest is None or RunHeader.of(run) != terms.run:
            raise ProtocolViolation(
                "expected a model of the run that this node plans, with its chain", "server"
            )
        require_manifest(manifest, self.setup.strategy.buffers)
        reference = with_values(flatten(shown, coordinator.schema), coordinator.reference())
        manifest.require_base(name, reference.digest)
        # or a server has the same training done, and summed, in every later buffer
        if manifest.version(name).age:
            raise ProtocolViolation(
                "expected work on the newest model of the run's chain, got an older one", "server"
            )
        manifest.chain.remember(scope := terms.origin.scope, store)
        own = RoundFacts(run, terms.number, (name,), manifest.digest(), client=name, scope=scope)
        Prepared(self.setup, coordinator.model).prepare(reference, own, store)

    def __call__(self, broadcast: Broadcast, own: RoundFacts) -> Contribution:
        """Train on this node's loader, or take what it made of the model before."""
        kind = LocalComputation if broadcast.manifest is None else Prepared
        return kind(self.setup, self.coordinator.model)(broadcast, own)


class EvaluatingWork(FederatedWork):
    """A client's part in an evaluation: the federation's model, which was sent, on the evaluation's data of this node.

    setup: of the round that evaluates. trained: the federation's own. held: takes the model.
    """

    def __init__(self, setup: FederationSetup, trained: FederationSetup, held: torch.nn.Sequential) -> None:
        super().__init__(setup)
        self.trained, self.held = trained, held

    def shown(self, header: Header, content: RecordDict) -> dict[str, NDArray[Any]]:
        """Return where the round's own vector starts, which no one sends; the session binds the model."""
        own = FederatedWork(self.trained)
        own.coordinator.take(own.shown(header, content))
        self.coordinator.config = own.coordinator.reference().digest
        self.held.append(own.coordinator.model)
        return dict(self.coordinator.reference().tree)


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
    `secagg-timeout`. on_round: False ends the run (`Federation.fit`). on_result: gets what `fit` returns.
    erase: once the last round is over, clients erase what they kept from round to round; the run then cannot go on with
    more rounds.

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
        playing.setup.stack = playing.setup.stack.over_network()
        known = site.store, site.roster, site.identity, poll
        server = ServerParty(grid, playing.setup.stack.secure_sum, *known, names=playing.setup.names)
        said = lambda: (AMPLIFIED,) if playing.coordinator.hidden else ()  # noqa: E731  # known once it is planned
        playing.engine, playing.signer = (
            FlowerEngine(server, limit, said, playing.coordinator.participants.spared),
            site.identity,
        )
        if (buffers := playing.setup.strategy.buffers) is not None:
            buffers.arrivals = GridArrivals(server, playing.coordinator, limit)
            buffers.signer = site.identity
        folder = playing.setup.output
        server.head = last_head(folder)

        def after(result: RoundResult) -> Any:
            server.head = last_head(folder)
            _say(result)
            return on_round(result) if on_round else None

        resume = folder is not None and checkpoint.begun(folder)
        server.wait(playing.coordinator.cohort(), limit)
        result = playing.fit(planned, resume=resume, on_round=after)
        over = playing.coordinator.origin.run if erase and len(result.history) == planned else ""
        kept = server.farewell(playing.coordinator.run, min(limit, 60.0), over)
        if folder is not None:
            log(INFO, "%d clients keep the head %s of the run record", len(kept), server.head)
        if on_result:
            on_result(result)

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


def last_head(folder: Path | None) -> str:
    """Return the head of the record in `folder`, or that of an empty one."""
    last = None if folder is None else last_entry(folder)
    return GENESIS if last is None else str(last["head"])


def _say(result: RoundResult) -> None:
    if result.abandoned:
        log(INFO, "round %d is abandoned: %s; the model stays", result.number, result.abandoned)
        return
    facts = {**result.train_metrics, **{f"test {k}": v for k, v in result.metrics.items()}}
    shown = [f"{k} {v:.4f}" for k, v in facts.items()] + [f"{k} {v:.1f} s" for k, v in result.seconds.items()]
    counts = f"{len(result.survivors)} of {len(result.asked)}"
    took_part = "who took part is withheld" if result.withheld else counts
    log(INFO, "round %d: %s, %s", result.number, took_part, ", ".join(shown))
