"""A client's own part in a federation: the user's loop on a copy of the broadcast model, where the client lives.

What does not belong here: arithmetic of a round (`fl.round`), sending.
"""

import copy
import logging
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dp.sample.draws import insist_unseeded
from dp.sample.errors import UnaccountedStep
from dp.sample.guard import difference, snapshot
from fl import metrics
from fl.federation_setup import FederationSetup, shared
from fl.loaders import examples_in
from fl.round import Broadcast, contribution_of
from fl.run_options import RunOptions
from fl.seeds import derive, seeded
from fl.strategies.base import Extras
from fl.tensors import flatten_state, to_state, to_tree
from fl.tensors.trained import require_kept
from fl.train_function import fresh_model, run_epochs
from protocols.errors import REFUSALS, ClientFailed, Misuse, SecAggError, StackError
from protocols.layers import Compute, Contribution, LocalTask, RoundFacts
from protocols.party_state import PartyState
from protocols.updates import Flat

LOG = logging.getLogger("fl.client")
STAYED = "stay-local"
"""Owner of the entries of a model that never leave their client."""


class LocalComputation:
    """Trains the clients of a federation (`fl.round.Work`). template: a module of the federation's architecture."""

    def __init__(self, setup: FederationSetup, template: Any) -> None:
        self.setup = setup
        self.template = template
        self._names = frozenset(template.state_dict())
        self._said = set[str]()
        self._shown: tuple[Broadcast, dict[str, Any]] | None = None

    def __call__(self, broadcast: Broadcast, own: RoundFacts) -> Contribution:
        """Train and return the client's contribution.

        Raises ClientFailed for whatever goes wrong on the way: for our own errors with what they say (a tensor that
        holds NaN or infinity, unless a layer counts such an update as zero), for all others, whose text can quote the
        data, and for all beside noise, with their type alone: the text goes to this client's own log. What a client
        refuses is passed on, and so is every kind of Misuse that says that the loop is unsound for all (NotPerExample,
        UnaccountedStep).
        """
        try:
            return self._contribution(broadcast, own)
        except REFUSALS:
            raise
        except Exception as error:
            if isinstance(error, Misuse) and type(error) is not Misuse:
                raise  # a layer or the stack finds the loop itself unsound: that ends the run, by its name
            told = failed(error, own.whose, self.setup.stack.noisy)
            raise told from told.__cause__

    def _contribution(self, broadcast: Broadcast, own: RoundFacts) -> Contribution:
        task = self.task(broadcast, own)
        self.setup.strategy.begin(task, own)
        compute: Compute = self.setup.strategy.local(lambda t: t.run(t), own)
        for layer in reversed(self.setup.stack.layers):
            compute = layer.local(compute, own)
        reported = self.trained(task, own, compute)
        trained = self._trained(task, broadcast, own)
        difference = trained.vector - broadcast.reference.flat.vector
        if (
            own.number == 1
            and task.result is None
            and task.examples
            and difference.size
            and not difference.any()
        ):
            self._warn(
                f"{own.whose}: training changed nothing: a loop trains the model that it is given, in place, with "
                "the optimizer that it is given"
            )
        extras = self._extras(task, difference, reported, own)
        weight = self._weight(broadcast, self._chosen(extras, task.examples))
        return contribution_of(
            broadcast,
            trained,
            weight,
            reported,
            client=own.client,
            empty=task.examples == 0,
            counts=extras.counts,
            blocks=extras.blocks,
            vector=extras.vector,
            source=extras.source,
        )

    def trained(
        self, task: LocalTask, own: RoundFacts, compute: Compute = lambda task: task.run(task)
    ) -> dict[str, float]:
        """Train a task, between the callbacks' hooks, and return what training said of itself."""
        self._call("on_client_begin", task, own.number)
        with seeded(self._draws(own)):
            before = torch.initial_seed()
            reported = compute(task)
            if self._by_example:
                insist_unseeded(before)
        self._hear(reported, own)
        self._call("on_client_end", task, own.number, reported)
        return reported

    def _extras(
        self, task: LocalTask, difference: NDArray[np.float64], reported: Mapping[str, float], own: RoundFacts
    ) -> Extras:
        """Return what the strategy adds. A layer that protects examples covers the trained model and what follows from
        it, no metric: the strategy hears none. Raises StackError, before anything is sent, for a vector of one that
        does not say that it follows from protected values alone.
        """
        strategy = self.setup.strategy
        if not self._by_example:
            return strategy.extras(task, difference, reported, own)
        extras = strategy.extras(task, difference, {}, own)
        if extras.vector is not None and strategy.beyond_examples is None:
            raise StackError(
                f"{strategy.name} sends a vector of its own, and does not say that it is made from what a layer that "
                'protects examples left of them alone (beyond_examples = "")'
            )
        return extras

    @property
    def _by_example(self) -> bool:
        return any(layer.needs_local() for layer in self.setup.stack.layers)

    def _draws(self, own: RoundFacts) -> int | None:
        """Return what seeds the loop's own random numbers (dropout, augmentation): the run's public seed; None, for
        secret states, where a layer clips the rows of single examples (`dp.sample.draws`).
        """
        return None if self._by_example else derive(self.setup.options.seed, "train", own.number, own.client)

    def _call(self, hook: str, task: LocalTask, *given: Any) -> None:
        """Call a client's hook. Where a layer sums rows of single examples the model moves in its steps alone: a hook
        gets copies of model, criterion and loss and an optimizer of the copy. Raises UnaccountedStep, before anything
        is sent, for one that moved the copied model, which would have no effect.
        """
        for callback in self.setup.callbacks:
            if not self._by_example:
                getattr(callback, hook)(task, *given)
                continue
            model = copy.deepcopy(task.model)
            before = snapshot(model)
            getattr(callback, hook)(
                replace(
                    task,
                    model=model,
                    optimizer=self.setup.optimizer(model.parameters()),
                    criterion=copy.deepcopy(task.criterion),
                    loss=copy.deepcopy(task.loss),
                    noted=copy.deepcopy(task.noted),
                ),
                *given,
            )
            if (name := difference(model, before)) is not None:
                raise UnaccountedStep(
                    f"{type(callback).__name__}.{hook} moved {name}: beside a layer that clips the rows of single "
                    "examples a model moves in clipped and noised steps alone; leave the model as it is"
                )

    def _hear(self, reported: Mapping[str, float], own: RoundFacts) -> None:
        """Say, where the client lives, that its loop returned no metric of a name that is summed, or one too large."""
        names, stack = self.setup.options.metrics, self.setup.stack
        missing = [name for name in names if name not in reported]
        large = [name for name in names if abs(reported.get(name, 0.0)) >= metrics.MOST]
        if large and not stack.noisy:
            self._warn(
                f"{own.whose}: {', '.join(map(repr, large))} is beyond +-{metrics.MOST}, more than is summed: the "
                "mean is of the other clients alone; let train return it divided by a public number"
            )
        asked = names != RunOptions.metrics or (reported and len(missing) == len(names))
        if missing and asked and not stack.noisy:
            self._warn(
                f"{own.whose}: {', '.join(map(repr, missing))} of metrics={list(names)} never comes: train returned "
                f"{sorted(reported) or 'no numbers'}; let it return a dict of floats by these names, or name others"
            )

    def _warn(self, said: str) -> None:
        """Say it where the client lives, once for all clients here."""
        what = said.partition(": ")[2]
        if what not in self._said:
            self._said.add(what)
            warnings.warn(said, stacklevel=3)

    def task(self, broadcast: Broadcast, own: RoundFacts) -> LocalTask:
        """Return what the client's computation starts from: the broadcast model, a new optimizer and criterion."""
        setup, options = self.setup, self.setup.options
        loader = setup.loader_for(own.client)
        for drawing in (loader, getattr(loader, "sampler", None)):
            order = getattr(drawing, "generator", None)
            if isinstance(order, torch.Generator):  # its state would depend on how often it was asked before
                order.manual_seed(derive(options.seed, "order", own.number, own.client))
        model = fresh_model(self.template, self._state(broadcast) | self._stayed(own), options.device)
        optimizer = setup.optimizer(model.parameters())
        steps = (own.run.rounds, len(loader)) if setup.schedule.per == "step" else ()
        schedule = setup.schedule.at(optimizer, own.number, options.local_epochs, *steps)
        schedule.watch(optimizer, steps=not setup.train.steps_schedule)
        return LocalTask(
            client=own.client,
            model=model,
            loader=loader,
            optimizer=optimizer,
            criterion=setup.criterion(),
            run=run_epochs(setup.train, own.number, own.run.rounds, schedule, optimizer),
            epochs=options.local_epochs,
            loss=setup.loss,
            examples=examples_in(loader, own.whose),
            device=options.device,
            broken_is_zero=setup.stack.counts_broken_as_zero,
            sent=tuple(leaf.name for leaf in broadcast.reference.schema.leaves if leaf.rule == "protect"),
        )

    def _stayed(self, own: RoundFacts) -> dict[str, Any]:
        """Return this client's own entries of the model: as it kept them, at first as the federation began."""
        if not self.setup.options.stay_local:
            return {}
        kept, state = PartyState.of(own, STAYED).arrays(), self.template.state_dict()
        for name, array in kept.items():
            state[name] = torch.from_numpy(np.array(array)).to(state[name])
        return {name: state[name] for name in state.keys() - shared(state, self.setup.options).keys()}

    def _trained(self, task: LocalTask, broadcast: Broadcast, own: RoundFacts) -> Flat:
        """Return the trained model, flat; what stays at the client is kept there."""
        if task.result is not None:
            if self.setup.options.stay_local:
                mine = PartyState.of(own, STAYED)
                mine.keep(mine.arrays())  # the layer moves what it sums, and nothing else
            return _with_result(task.result, broadcast)
        state, names = task.model.state_dict(), self._names
        if state.keys() != names:
            extra, missing = sorted(state.keys() - names), sorted(names - state.keys())
            raise Misuse(f"training changed the model's names: {extra} appeared, {missing} are gone")
        leaving = shared(state, self.setup.options)
        if self.setup.options.stay_local:
            tree, _ = to_tree({name: value for name, value in state.items() if name not in leaving})
            PartyState.of(own, STAYED).keep(tree)
        flat = flatten_state(leaving, broadcast.reference.schema, not self.setup.stack.counts_broken_as_zero)
        require_kept(flat, broadcast.reference)
        return flat

    def _state(self, broadcast: Broadcast) -> dict[str, Any]:
        """Return the broadcast model as a state dict, made once per broadcast."""
        if self._shown is None or self._shown[0] is not broadcast:
            reference = broadcast.reference
            state = to_state(reference.tree, reference.schema, self.template.state_dict())
            self._shown = broadcast, state
        return self._shown[1]

    def _chosen(self, extras: Extras, examples: int) -> int:
        most = self.setup.strategy.weight_cap
        if (extras.weight is None) != (most is None):
            raise Misuse(
                f"{self.setup.strategy.name}: expected a strategy that chooses weights to say the largest, weight_cap, "
                f"and one that says it to choose; weight_cap is {most}"
            )
        return examples if extras.weight is None else extras.weight

    def _weight(self, broadcast: Broadcast, examples: int) -> int:
        plan = broadcast.plan
        equal = plan.signals[0].weight_cap == 1 or plan.summed.weight_cap == 1
        return 1 if equal or not self.setup.strategy.weighted else examples


def failed(error: Exception, whose: str, noisy: bool) -> ClientFailed:
    """Return what may be told of a client's failure; the rest goes to its own log, `fl.client`. noisy: beside noise,
    which covers no word of ours either.
    """
    quoted = isinstance(error, SecAggError) and not noisy
    said = str(error) if quoted else f"its loop failed: {type(error).__name__}; its own log says why"
    told = ClientFailed(said if said.startswith(whose) else f"{whose}: {said}")
    LOG.error("%s", told, exc_info=None if quoted else error)
    whole = str(error) if str(error).startswith(whose) else f"{whose}: {error}"
    told.__cause__ = Misuse(whole) if type(error) is Misuse else error  # for the process that it happened in
    return told


def _with_result(result: Mapping[str, NDArray[Any]], broadcast: Broadcast) -> Flat:
    """Return the reference plus what a layer computed by itself."""
    reference = broadcast.reference
    vector = reference.flat.vector.copy()
    at = 0
    for leaf in reference.schema.leaves:
        if leaf.rule == "protect":
            if leaf.name in result:
                vector[at : at + leaf.floats] += np.asarray(result[leaf.name], np.float64).reshape(-1)
            at += leaf.floats
    if not np.isfinite(vector).all():
        name = reference.schema.name_at(int(np.flatnonzero(~np.isfinite(vector))[0]))
        raise Misuse(f"{name}: holds NaN or infinity; the update is refused")
    return Flat(vector, reference.flat.counters, reference.flat.kept)
