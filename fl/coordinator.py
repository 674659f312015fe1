"""The server's side of a federation: the torch module, the strategy, who is asked.

What does not belong here: how a round goes (`fl.round`), who carries its messages, any client's data.
"""

from collections.abc import Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.nn.parameter import is_lazy

from fl import arguments
from fl.composed import require_apart
from fl.federation_setup import FederationSetup, shared
from fl.loaders import check_device, check_workers
from fl.made_with import of_optimizer
from fl.round import (
    Broadcast,
    Manifest,
    Mean,
    Origin,
    Reference,
    RoundResult,
    moved,
    new_session,
    open_round,
    reference_of,
)
from fl.round.broadcast import require_metrics
from fl.round.buffers import require_manifest
from fl.round.hidden import is_hidden
from fl.round.manifest import LEAST_ALIKE
from fl.round.reference import Tree, exact_sum
from fl.run_options import RunOptions
from fl.sampling import COINS, Participants, carried
from fl.seeds import derive, seeded
from fl.tensors import schema_of_state, to_state, to_tree
from fl.tensors.trained import buffers_of, rules_of, unsent
from fl.training import evaluate, pair_of
from protocols.errors import Misuse, SecAggError, StackError, TooFewSurvivors
from protocols.layers import Public, RunFacts
from protocols.party_state import CLOSED


class Coordinator:
    """The server's side of a federation: the model, the strategy, who is asked. config: shown besides the model."""

    def __init__(self, setup: FederationSetup) -> None:
        self.setup = setup
        self.participants = Participants(setup.options, setup.names, setup.strategy.buffers)
        with seeded(derive(setup.options.seed, "model")):
            self.model = setup.strategy.module(setup.model)
        if not hasattr(self.model, "state_dict"):
            raise Misuse(
                f"model: expected a factory of a torch module, it returned {type(self.model).__name__}"
            )
        if lazy := [n for n, p in self.model.named_parameters() if is_lazy(p)]:
            raise Misuse(
                f"model: {lazy[0]} has no shape yet: give lazy modules their sizes, or call them once first"
            )
        check_device(setup.options.device)
        check_workers(setup.options.workers, setup.options.device, setup.stack.layers)
        if setup.options.buffers == "local":
            setup.options = replace(
                setup.options, stay_local=(*setup.options.stay_local, *buffers_of(self.model))
            )
        state = shared(self.model.state_dict(), setup.options)
        rules = rules_of(self.model, state, setup.options.parameters, private=setup.stack.noisy)
        self.schema = schema_of_state(state, setup.options.integers, rules)
        if setup.strategy.buffers is not None:
            setup.strategy.buffers.require_model(self.schema)
        if self.schema.dimension == 0:
            raise Misuse("the model has no floating-point parameter: nothing to train")
        self.fixed = frozenset(leaf.name for leaf in self.schema.leaves if leaf.rule == "keep")
        self._made = {name: array.copy() for name, array in to_tree(state)[0].items() if name in self.fixed}
        self.optimizer = of_optimizer(made := setup.optimizer_for(self.model)) | setup.schedule.facts(made)
        setup.strategy.require(made)
        setup.strategy.require_names([leaf.name for leaf in self.schema.protected])
        self.run: RunFacts | None = None
        self.tested: tuple[str, ...] = ()
        self.origin, self.config = Origin(), b""
        self.closed: dict[str, int] = {}
        self._been: dict[str, set[int]] = {}
        self._sizes: dict[str, int] = {}

    # -- planning --

    def cohort(self) -> int:
        """Expected clients asked per round."""
        return self.participants.asked

    def prepare(self, rounds: int) -> RunFacts:
        """Plan the whole run: layers calibrate, composition and capacity are proved. Raises Misuse before round 1."""
        run = self.planned(arguments.checked("rounds", rounds))
        self._require_survivors(self.setup.options.min_survivors, run)
        self.participants.require_anybody(run.rounds)
        self.setup.require_recipients(run.sampling == "all")
        if is_hidden(self.setup.stack, run):
            self.setup.require_secrecy()
        require_apart(self.setup, run, self.participants.spared)
        if run.cohort < (crowd := self._crowd()):
            raise StackError(
                f"{self.setup.strategy.name}: a round asks {run.cohort} clients, and what the server sees of a step "
                f"would tell single updates among fewer than {crowd}: ask more, take fewer iterations, or add noise"
            )
        self._try_evaluation()
        self.setup.schedule.check(
            self.setup.optimizer_for(self.model), rounds, self.setup.options.local_epochs
        )
        self.run = run
        self.setup.stack.plan(run)
        corrupt = self.setup.stack.secure_sum.withstands(run.cohort)
        self.setup.strategy.plan(replace(run, corrupt=corrupt))
        sample = self.sample()
        self.setup.require_weights(sample.plan.summed.weight_cap)
        # the default's are left out where noise forbids them
        if self.setup.options.metrics != RunOptions.metrics:
            require_metrics(sample)
        demanded = sample.plan.min_survivors
        self._require_survivors(demanded, run)
        self.participants.require_opened(self.setup.stack.secure_sum, sample)
        if self.hidden and demanded > max(1, self.setup.options.min_survivors):
            raise Misuse(
                f"a layer demands {demanded} survivors, and another one's price counts on a secret choice of clients: "
                f"say min_survivors={demanded}, so that rounds with fewer are part of that price"
            )
        # as many as can be chosen must fit; too many is never in the price
        if self.hidden and run.sampling == "poisson":
            with suppress(TooFewSurvivors):
                new_session(self.setup.stack.secure_sum, self.open(1, self.setup.names))
        self._check_sums(self.setup.options.min_survivors, run)
        return run

    def _try_evaluation(self) -> None:
        """Note the names of the test metrics. Raises Misuse for test data that the default evaluation cannot read, and
        for one of the user's own that fails on the model as it begins.
        """
        setup = self.setup
        if not setup.measures:
            self.tested = ()
        elif setup.evaluate is evaluate:
            self.tested = ("accuracy", "loss")
            # looking takes no random number of the run's
            with seeded(derive(setup.options.seed, "evaluate")):
                for batch in setup.test:
                    pair_of("evaluate", batch)
                    break
        else:
            self.tested = tuple(self._measured(deepcopy(self.model)))

    def _check_sums(self, least: int, run: RunFacts) -> None:
        """Raises Misuse for one of several sums that cannot end."""
        sums = self.setup.strategy.sums(self.setup.names[: run.cohort], 1)
        for name, clients in sums.items() if len(sums) > 1 else ():
            shown = self.open(1, clients, name=name) if clients else None
            demanded = max(least, 1 if shown is None else shown.plan.min_survivors)
            if shown is None or len(clients) < demanded:
                raise Misuse(
                    f"min_survivors={demanded}, but the sum {name!r} has {len(clients)} clients: no round could end"
                )
            new_session(self.setup.stack.secure_sum, shown, least=demanded)

    @property
    def hidden(self) -> bool:
        """Whether who and how many take part is withheld, because a price counts on their secret choice."""
        return self.run is not None and is_hidden(self.setup.stack, self.run)

    def _require_survivors(self, least: int, run: RunFacts) -> None:
        """Raises Misuse where no round awaits as many clients as must survive."""
        if least > (self.participants.spared or run.cohort):
            doing = f"awaits {spared}" if (spared := self.participants.spared) else f"asks {self.cohort()}"
            raise Misuse(
                f"min_survivors={least}, but a round {doing} of {run.population} clients: no round could end"
            )

    def planned(self, rounds: int) -> RunFacts:
        """Return the facts of a run of `rounds` rounds as this federation plans it; nothing is calibrated."""
        options, setup = self.setup.options, self.setup
        sampling, left_out = self.participants.described, self.participants.left_out
        run = RunFacts(
            rounds=rounds,
            population=len(setup.names),
            cohort=len(setup.names) if options.sampling in COINS else self.cohort(),
            sampling=sampling,
            rate=1.0 if sampling == "all" else options.fraction,
            dropout=max(options.dropout, left_out),
            dimension=self.schema.dimension,
            local_epochs=options.local_epochs,
            sizes=setup.sizes,
            weight_cap=setup.strategy.weight_cap or self._largest(),
            delta=options.delta,
            blocks=setup.strategy.blocks(self.schema.dimension),
        )
        if not is_hidden(setup.stack, run) or run.sampling != "poisson":
            return run
        least, failing = carried(options, setup.stack.secure_sum, setup.policy, len(setup.names))
        return replace(run, least_chosen=least, failing=failing)

    def _largest(self) -> int | None:
        """Return the public cap on weights: at least 2, for 1 would count empty clients as much as others."""
        sizes = {} if self.setup.stack.hides_sizes else self.setup.sizes
        return max(2, *sizes.values()) if sizes else None

    def choose(self, number: int) -> tuple[str, ...]:
        """Return who is asked in a round: by the seed, or secretly where a layer claims amplification for it; nobody
        whom a layer forbids to ask after the totals that it was in.
        """
        drawn = self.setup.strategy.drawn_in(number)
        if self.hidden and drawn != number:
            raise StackError(
                f"{self.setup.strategy.name} asks the clients of round {drawn} again, and a layer's price counts on a "
                "secret choice in every round: take amplify=False"
            )
        chosen = self.participants.choose(drawn, secret=self.setup.stack.secret_sampling)
        layers, been = self.setup.stack.layers, self._been
        return tuple(
            name
            for name in chosen
            if all(layer.may_ask(sorted(been.get(name, ())), number) for layer in layers)
        )

    # -- a round --

    def open_all(self, number: int, asked: tuple[str, ...]) -> tuple[Broadcast, ...]:
        """Return what the clients of each of the round's sums are shown. Raises as `open` does."""
        sums = self.setup.strategy.sums(asked, number)
        if not sums or not all(set(clients) <= set(asked) for clients in sums.values()):
            raise Misuse(
                f"{self.setup.strategy.name}.sums: expected sums over the clients asked, {asked}, got {sums}"
            )
        return tuple(self.open(number, clients, name=name) for name, clients in sums.items())

    def open(
        self,
        number: int,
        clients: tuple[str, ...],
        public: Public | None = None,
        model: Tree | None = None,
        name: str = "",
        manifest: Manifest | None = None,
    ) -> Broadcast:
        """Return what the clients of one sum are shown. public, model: what a client was told (default: this server's).
        name: the sum's; layers see one with a name as a cohort by itself, as large as planned. manifest: where clients
        started from different models.

        Raises Misuse before `prepare`, TooFewSurvivors for a round that asks too few clients.
        """
        if self.run is None:
            raise Misuse("expected prepare(rounds) before the first round")
        setup, schema, buffers = self.setup, self.schema, self.setup.strategy.buffers
        reference = self._start(name) if model is None else reference_of(model, schema=schema)
        bases: dict[str, Reference] = {}
        if buffers is not None and manifest is None:
            manifest, bases = buffers.started(clients, self.reference(), self.origin.scope)
        elif manifest is not None:
            require_manifest(manifest, buffers)
        shown = self._public(clients) if public is None else public
        own = shown.get(setup.strategy.name, {})
        run = replace(self.run, cohort=self._cohort_of(name, len(clients))) if name else self.run
        if not setup.strategy.sends_update(own):
            run = replace(run, dimension=0, blocks=())
            reference = reference_of(reference.tree, schema=unsent(schema))
        reference = replace(reference, fixed=self.fixed)
        return open_round(
            setup.stack,
            run,
            number,
            clients,
            reference,
            metrics=setup.options.metrics,
            counts=setup.strategy.counts,
            public=shown,
            config=self.config,
            name=name,
            manifest=manifest,
            bases=bases,
            origin=self.origin,
            least=max(setup.strategy.least(number, clients, own), self._crowd()),
            alike=LEAST_ALIKE if buffers is None else buffers.alike,
        )

    def _crowd(self) -> int:
        """Return the fewest clients of a total by the strategy, where a secure sum alone hides their updates."""
        stack = self.setup.stack
        return 1 if stack.noisy or stack.secure_sum.server_sees_vectors else self.setup.strategy.crowd

    def _cohort_of(self, name: str, clients: int) -> int:
        """Return how many clients a round asks in the sum `name`, as planned: at least as many as it asks now."""
        if not self._sizes and self.run is not None:
            planned = self.setup.strategy.sums(self.setup.names[: self.run.cohort], 1)
            self._sizes = {name: len(its) for name, its in planned.items()}
        return max(clients, self._sizes.get(name, 0))

    def _start(self, name: str) -> Reference:
        """Return the model that the clients of a sum start from."""
        own = self.reference()
        chosen = self.setup.strategy.model(name, own.flat.vector) if name else own.flat.vector
        if chosen is own.flat.vector:
            return own
        return reference_of(moved(own, chosen - own.flat.vector), schema=self.schema)

    def _public(self, clients: tuple[str, ...]) -> Public:
        """Return what layers and the strategy broadcast, and for owners of state which round closed last with whom."""
        setup, public = self.setup, self.setup.stack.public()
        if values := setup.strategy.public():
            public[setup.strategy.name] = values
        if setup.keeps_state:
            public[CLOSED] = {name: float(self.closed.get(name, 0)) for name in clients}
        return public

    def close(self, result: RoundResult) -> None:
        """Note with whom a round closed: an abandoned one has no survivors, and moved nothing."""
        if (buffers := self.setup.strategy.buffers) is not None:
            buffers.closed(result.asked, None if result.abandoned else self.reference())
        self.closed |= dict.fromkeys(result.survivors, result.number)
        for name in result.survivors:
            self._been.setdefault(name, set()).add(result.number)

    def sample(self) -> Broadcast:
        """Return what round 1 would show its clients, as a sample for plans and statements. It asks as many clients as
        a round does, or, where that number is secret, the fewest with which a round is played.
        """
        run = self.run or self.prepare(1)
        hidden = run.sampling == "poisson" and self.hidden
        return self.open(1, self.setup.names[: max(1, run.least_chosen) if hidden else run.cohort])

    def reference(self) -> Reference:
        """Return a copy of the present model as a round's reference."""
        tree, _ = to_tree(shared(self.model.state_dict(), self.setup.options))
        # what is fixed is as it was made, whatever an evaluation did to the module
        whole = {n: self._made[n] if n in self.fixed else array.copy() for n, array in tree.items()}
        return replace(reference_of(whole, schema=self.schema), fixed=self.fixed)

    def move(self, means: Mapping[str, Mean]) -> None:
        """Move the model by what the strategy makes of the means of a round's sums.

        Raises what the strategy raises, and Aborted for a sum that fits no model; then model and strategy stay.
        """
        strategy = self.setup.strategy
        before = {name: np.array(array) for name, array in strategy.state().items()}
        counted = [mean.counters for mean in means.values() if mean.counters is not None]
        try:
            counters = reduce(exact_sum, counted) if counted else None
            movement, before_it = strategy.moves(means), self.reference()
            if not movement.size:  # counts alone were summed
                movement = np.zeros_like(before_it.flat.vector)
            movement = self._averaged(movement, means)
            there = before_it.flat.vector + movement
            if (settled := strategy.settled(there)) is not there:
                movement = settled - before_it.flat.vector
            tree = moved(before_it, movement, counters)
        except BaseException:
            strategy.restore(before)
            raise
        self.take(tree)

    def _averaged(self, movement: NDArray[np.float64], means: Mapping[str, Mean]) -> NDArray[np.float64]:
        """Return a round's movement with running statistics moved by their plain mean where the strategy's steps are
        none: a variance that is stepped can end below zero.
        """
        if self.setup.strategy.averages or not self.schema.statistics:
            return movement
        (mean,) = means.values()
        kept = [np.full(leaf.floats, leaf.name in self.schema.statistics) for leaf in self.schema.protected]
        return np.where(np.concatenate(kept), mean.vector, movement)

    def take(self, tree: Tree) -> None:
        """Take over a model. Raises RuntimeError, as torch does, for another architecture's."""
        kept = self.model.state_dict() if self.setup.options.stay_local else {}
        self.model.load_state_dict(kept | self.state_of(tree))
        self._made = {name: np.array(tree[name]) for name in self.fixed}

    def state_of(self, tree: Tree) -> dict[str, Any]:
        """Return a model as a state dict, in the dtypes and on the devices of this module's."""
        return to_state(tree, self.schema, self.model.state_dict())

    def evaluate(self) -> dict[str, float]:
        """Return the test metrics of the present model; empty without a test loader. Raises Misuse, from what the
        user's own function raised.
        """
        return {} if not self.setup.measures else self._measured(self.model)

    def _measured(self, model: Any) -> dict[str, float]:
        setup = self.setup
        try:
            with seeded(derive(setup.options.seed, "evaluate")):
                measured = setup.evaluate(model, setup.test, setup.criterion(), setup.options.device)
        except SecAggError:
            raise
        except Exception as error:
            raise Misuse(f"evaluate: it raised {type(error).__name__}: {error}") from error
        try:
            return {str(name): float(value) for name, value in measured.items()}
        except (AttributeError, TypeError, ValueError):
            raise Misuse(f"evaluate: expected a dict of floats, got {measured!r}") from None
