"""A Federation's client as a node's work: its own broadcast and training, on the data that live here.

What does not belong here: a framework's messages, checks of a node (`node_party`), training (`fl.computation`).
"""

import functools
from collections.abc import Callable
from typing import Any, Generic

import torch
from numpy.typing import NDArray

from fl.computation import LocalComputation
from fl.coordinator import Coordinator
from fl.federation_setup import FederationSetup
from fl.network.messages import Header, Shown
from fl.network.node_party import Part
from fl.network.prepared import Prepared
from fl.round import Broadcast, RunHeader, Tree
from fl.round.buffers import require_manifest
from fl.round.reference import with_values
from fl.strategies.stepped import Stepped
from protocols.errors import Misuse, PolicyRefusal, WireError, refuse
from protocols.layers import Contribution, RoundFacts
from protocols.session import Session
from protocols.store import Store
from protocols.updates import flatten

Read = Callable[[Shown, str], Tree]
"""How a framework reads the arrays that travelled under a name. Raises PeerError for what came besides them."""


def part_of(setup: FederationSetup, read: Read[Shown], evaluates: bool) -> Part[Shown]:
    """Return a node's part in a round: training, or the evaluation that its federation was given.

    Raises PolicyRefusal for an evaluation in a federation that has none.
    """
    if not evaluates:
        return Part(setup.stack, FederatedWork(setup, read), setup.policy)
    if setup.evaluation is None:
        raise PolicyRefusal("evaluation: this node's federation was given none; give both sides the same one")
    held = torch.nn.Sequential()  # where the model goes, once it has come
    own = setup.evaluation.federation(held).setup
    own.stack = own.stack.over_network()
    return Part(own.stack, EvaluatingWork(own, setup, held, read), own.policy or setup.policy)


class FederatedWork(Generic[Shown]):
    """A client's part in a federation's round: the federation's own broadcast and training, on this node's data."""

    def __init__(self, setup: FederationSetup, read: Read[Shown]) -> None:
        self.setup, self.read = setup, read

    @functools.cached_property
    def coordinator(self) -> Coordinator:
        """Made when it is needed: most messages need no model."""
        return Coordinator(self.setup)

    def shown(self, header: Header, content: Shown) -> dict[str, NDArray[Any]]:
        """Return the model: the arrays that were sent, and this node's own of those that no round changes. The
        session's digest covers both. Raises WireError for another federation's model.
        """
        sent, own = self.read(content, header.terms.origin.layout.arrays), self.coordinator.reference()
        if sent.keys() != own.shown.keys() or any(sent[k].shape != own.tree[k].shape for k in sent):
            raise WireError("the model that was sent is not this federation's")
        return {**own.tree, **sent}

    def open(self, header: Header, session: Session, content: Shown) -> Broadcast:
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

    def prepare(self, header: Header, name: str, store: Store, content: Shown) -> None:
        """Train on a model that a buffer will ask for: a link of the run's chain, and the one that is named for us."""
        terms, coordinator, shown = header.terms, self.coordinator, self.shown(header, content)
        run, manifest = coordinator.planned(terms.run.rounds), terms.manifest
        if manifest is None or RunHeader.of(run) != terms.run:
            raise refuse("expected a model of the run that this node plans, with its chain")
        require_manifest(manifest, self.setup.strategy.buffers)
        reference = with_values(flatten(shown, coordinator.schema), coordinator.reference())
        manifest.require_base(name, reference.digest)
        # or a server has the same training done, and summed, in every later buffer
        if manifest.version(name).age:
            raise refuse("expected work on the newest model of the run's chain, got an older one")
        manifest.chain.remember(scope := terms.origin.scope, store)
        own = RoundFacts(run, terms.number, (name,), manifest.digest(), client=name, scope=scope)
        Prepared(self.setup, coordinator.model).prepare(reference, own, store)

    def __call__(self, broadcast: Broadcast, own: RoundFacts) -> Contribution:
        """Train on this node's loader, or take what it made of the model before."""
        kind = LocalComputation if broadcast.manifest is None else Prepared
        return kind(self.setup, self.coordinator.model)(broadcast, own)


class EvaluatingWork(FederatedWork[Shown]):
    """A client's part in an evaluation: the federation's model, which was sent, on the evaluation's data of this node.

    setup: of the round that evaluates. trained: the federation's own. held: takes the model.
    """

    def __init__(
        self, setup: FederationSetup, trained: FederationSetup, held: torch.nn.Sequential, read: Read[Shown]
    ) -> None:
        super().__init__(setup, read)
        self.trained, self.held = trained, held

    def shown(self, header: Header, content: Shown) -> dict[str, NDArray[Any]]:
        """Return the values that an evaluation's own vector starts from. Nobody sends them; the session binds the
        model instead.
        """
        own = FederatedWork(self.trained, self.read)
        own.coordinator.take(own.shown(header, content))
        self.coordinator.config = own.coordinator.reference().digest
        self.held.append(own.coordinator.model)
        return dict(self.coordinator.reference().tree)


def require_own_evaluation(setup: FederationSetup) -> None:
    """Raises Misuse for an evaluation on clients that are not the federation's: no node plays them."""
    own = () if setup.evaluation is None else setup.evaluation.federation(torch.nn.Identity()).setup.names
    if strangers := [name for name in own if name not in setup.names]:
        raise Misuse(
            f"evaluation: {strangers[0]!r} is no client of this federation, and on Flower its nodes evaluate: name "
            f"the loaders like its clients, {list(setup.names)}"
        )
