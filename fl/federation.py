"""Federation: the user's model, data and loop, wrapped with privacy layers. `fit` runs it in memory;
`fl.flower` over a network.

What does not belong here: how a round goes and what is kept of it (`fl.round`), the model (`coordinator`).
"""

import secrets
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from copy import copy, deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

from fl import arguments, checkpoint, made_with
from fl.account import Account
from fl.callbacks import Callback, Run
from fl.callbacks.base import Listeners, OnRound
from fl.callbacks.base import checked as callbacks_of
from fl.computation import LocalComputation
from fl.coordinator import Coordinator
from fl.engines.clock import simulated
from fl.engines.memory import MemoryEngine
from fl.federation_setup import (
    ClientEvaluates,
    FederationSetup,
    Loaders,
    check_client_evaluation,
    criterion_of,
    evaluation_of,
    loaders_by_name,
    maker,
    optimizer_of,
    strategy_of,
)
from fl.registry import layers_of
from fl.round import Broadcast, Engine, Mean, RoundResult, play, statement_of
from fl.round.hidden import told, withheld
from fl.round.keeper import Keeper
from fl.round.remarks import Speaker
from fl.round.run_files import KeptRun, RunFiles
from fl.round.session import protected
from fl.run_options import RunOptions
from fl.run_result import Result
from fl.schedules import Schedule
from fl.strategies import Strategy
from fl.train_function import TrainFunction
from fl.training import train_one_epoch
from protocols.errors import Aborted, Misuse
from protocols.identity import Identity
from protocols.policy import Policy
from protocols.stack import Stack
from protocols.statement import Protection, Statement, weakest


class Federation:
    """One model trained by federated learning on data that stays with its owners. `fit` trains it in this process.

    Model and data:

    - model: a function of no argument that returns a new `torch.nn.Module`.
    - clients: a DataLoader per client, by name or in a list (then named "0", "1", ...); or a function
      `loader_for(client, config)`, which is called only where that client lives.
    - names: the clients' names, or how many there are, where `clients` is a function (default: None).

    Training at a client:

    - train: your loop `train(model, loader, optimizer)`, which moves the model in place and returns a dict of
      floats or None. It is called once per local epoch and may also name criterion, device, epoch, round, rounds
      and scheduler (default: an epoch of classification on batches of inputs and labels).
    - optimizer: a function from parameters to an optimizer (default: `torch.optim.SGD` at `learning_rate`).
    - learning_rate: of the default optimizer, > 0 (default: 0.1).
    - criterion: a function of no argument that returns a loss module (default: `torch.nn.CrossEntropyLoss`).
    - loss: `loss(model, batch)`, a scalar, for layers that clip single examples (default: criterion of model and
      batch).
    - scheduler: a function from an optimizer to a torch scheduler (default: None).
    - scheduler_per: what steps the scheduler: each local "epoch" of the run (default), "round" or optimizer "step".

    Rounds:

    - strategy: how clients' updates move the model, such as `FedProx()` (default: `FedAvg()`).
    - privacy: layers in the order in which a client applies them; at most one secure sum, last (default: none).
    - policy: a `protocols.Policy`, what every client insists on (default: the secure sum's).
    - ledger: a `dp.Ledger`, charged in each round before anything leaves a client (default: None, an account in
      memory).
    - options: of `fl.run_options.RunOptions`: bits, fraction, sampling, dropout, metrics, seed, workers and more.

    Evaluation and results:

    - test: a loader of test data at the server (default: None).
    - evaluate: `evaluate(model, loader, criterion, device)`, called on `test`; returns a dict of floats (default:
      loss and accuracy of a classifier).
    - evaluation: an `fl.ClientEvaluation`, on test data of the clients (default: None).
    - output: folder of the run's files; `fit(rounds, resume=True)` goes on from it (default: None, no files).
    - callbacks: `fl.callbacks.Callback`s, called in this order (default: none).

    Raises Misuse for an argument of another type or range, StackError for layers, strategy and loop that do not fit
    each other, CapacityError for a sum that no modulus carries: all of them here or in `fit` before round 1.

        def make():
            return torch.nn.Linear(2, 2)

        federation = Federation(make, loaders, strategy=FedAvg(), privacy=[SecAggPlus()])
        result = federation.fit(rounds=2)
        result.model, result.survivors, result.statement
    """

    def __init__(
        self,
        model: Callable[[], Any],
        clients: Loaders,
        train: Callable[..., Any] | None = None,
        strategy: Strategy | None = None,
        privacy: Sequence[Any] = (),
        *,
        names: Sequence[str] | int | None = None,
        test: Any = None,
        evaluate: Callable[..., dict[str, float]] | None = None,
        evaluation: ClientEvaluates | None = None,
        optimizer: Callable[[Any], Any] | None = None,
        criterion: Callable[[], Any] | None = None,
        learning_rate: float | None = None,
        loss: Callable[..., Any] | None = None,
        policy: Policy | None = None,
        ledger: Any = None,
        output: Path | str | None = None,
        callbacks: Sequence[Callback] = (),
        scheduler: Callable[[Any], Any] | None = None,
        scheduler_per: str = "epoch",
        **options: Any,
    ) -> None:
        if unknown := sorted(options.keys() - (known := RunOptions.__dataclass_fields__.keys())):
            raise Misuse(f"Federation has no option {unknown[0]!r}; besides its arguments: {sorted(known)}")
        plain, strategy = RunOptions(**options), strategy_of(strategy)
        unsaid = ("criterion",) if criterion is None else ()
        listed, loader_for, sizes = loaders_by_name(clients, names)
        cap = plain.weight_cap if strategy.weighted else 1  # where all count alike, no weight is public
        numbers = replace(plain.numbers, weight_cap=cap, range=plain.range or strategy.range)
        self.setup = FederationSetup(
            model=maker("model", model, "returns a new module"),
            loader_for=loader_for,
            names=listed,
            train=(loop := TrainFunction(train or train_one_epoch, unsaid)),
            strategy=strategy,
            stack=Stack(layers_of(privacy), numbers),
            options=plain,
            optimizer=optimizer_of(optimizer, learning_rate),
            criterion=criterion_of(criterion),
            loss=loss,
            test=test,
            evaluate=evaluation_of(evaluate, test, unsaid),
            evaluation=evaluation,
            policy=arguments.checked("policy", policy),
            ledger=arguments.ledger(ledger),
            output=arguments.folder(output),
            sizes=sizes,
            callbacks=callbacks_of(callbacks),
            schedule=Schedule(scheduler, scheduler_per, loop.steps_schedule),
        )
        self._assemble()

    def _assemble(self) -> None:
        check_client_evaluation(self.setup.evaluation, self.setup.stack)
        self._made_with = made_with.of(self.setup)
        self.coordinator = Coordinator(self.setup)
        options = self.setup.options
        drops, waited = simulated(self.coordinator.participants, self.setup.stack.secret_sampling)
        self.engine: Engine = MemoryEngine(
            self.setup.stack.secure_sum,
            LocalComputation(self.setup, self.coordinator.model),
            departures=drops,
            waited=waited,
            policy=self.setup.policy,
            workers=options.workers,
            timeout=options.client_timeout,
        )
        self._history: list[RoundResult] = []
        self.protection: Protection | None = None
        self.signer: Identity | None = None
        self.account = Account(
            self.setup.stack.layers, self.setup.options.delta, self.setup.ledger, run=secrets.token_hex(8)
        )
        self.account.check(self.setup.stack.kinds(self.coordinator.planned(1)))

    def with_privacy(self, privacy: Sequence[Any]) -> Self:
        """Return the same federation with other layers. Raises as the constructor does, and Misuse once begun."""
        if self.coordinator.run is not None:
            raise Misuse("other layers are for a federation that has not begun: make another one")
        stack, strategy = Stack(layers_of(privacy), self.setup.stack.numbers), deepcopy(self.setup.strategy)
        other = copy(self)
        other.setup = replace(self.setup, stack=stack, strategy=strategy)
        other._assemble()
        return other

    def fit(
        self, rounds: int, *, resume: bool = False, on_round: Callable[[RoundResult], Any] | None = None
    ) -> Result:
        """Run `rounds` rounds (with `resume`, those that are left) and return the result.

        on_round: called after the callbacks with every round's result, once it is saved; False ends the run there. The
        result's price is of the rounds that were charged; `result` holds it too, also of a run that an error or Ctrl-C
        ended.

        Raises Misuse before round 1 for whatever can be known then, BudgetExceeded before a step that the ledger does
        not allow. A round with too few survivors is abandoned whole: the model stays, and `history` says why.
        """
        rounds = arguments.checked("rounds", rounds)
        if on_round is not None:
            arguments.takes("on_round", on_round, "a function of a round's result", 1)
        kept = self._start(rounds, resume)
        self.coordinator.origin = self.engine.origin(self.account.run)
        history = self._history = [] if kept is None else kept.history
        if rounds < len(history):
            raise Misuse(f"rounds: the run holds {len(history)} already; name so many or more, got {rounds}")
        callbacks = [*self.setup.callbacks, *([] if on_round is None else [OnRound(on_round)])]
        speaker = Speaker()
        with Listeners(callbacks, self._run(rounds)) as listeners, self._keeper(rounds) as keeper:
            if keeper is not None and kept is not None:
                keeper.files.catch_up(kept)
            else:
                self._save(keeper, history)
            for number in range(len(history) + 1, rounds + 1):
                if listeners.stop("on_round_begin", number):
                    break
                history.append(self._round(number))
                try:
                    self._measure(history[-1], partial(self._save, keeper, history, hold=True))
                finally:
                    self._save(keeper, history)
                speaker.hear(history[-1])
                if listeners.stop("on_round_end", history[-1]):
                    break
        return self.result

    def _run(self, rounds: int) -> Run:
        """Return what callbacks see of the run."""
        setup = self.setup
        settings = {
            "rounds": rounds,
            "strategy": setup.strategy.name,
            "layers": ", ".join(layer.name for layer in setup.stack.layers),
            "secure_sum": setup.stack.secure_sum.tag,
        }
        metrics = (
            setup.options.metrics,
            self.coordinator.tested,
            () if setup.evaluation is None else setup.evaluation.names,
        )
        facts = settings, *metrics, setup.stack.noisy, self.coordinator.evaluate
        return Run(rounds, self.model, self._history, *facts)

    @property
    def _in_memory(self) -> MemoryEngine | None:
        """The engine where this process plays the clients, and so has and keeps what is theirs; else their nodes do."""
        return self.engine if isinstance(self.engine, MemoryEngine) else None

    @property
    def model(self) -> Any:
        """The server's torch module as it is now: after the last round, or as it was made."""
        return self.coordinator.model

    @property
    def result(self) -> Result:
        """The run so far: what the last `fit` returned, or would have, had nothing ended it early."""
        history = self._history
        survivors = [result.survivors for result in history]
        return Result(self.model, history, self.statement(history), survivors, self.setup.ledger)

    def client_app(self, site: Path | str | None = None, **options: Any) -> Any:
        """Return this federation's clients as a Flower ClientApp; options as in `fl.flower.apps.client_app`."""
        from fl.flower.apps import client_app

        return client_app(self, site, **options)

    def server_app(self, rounds: int = 3, **options: Any) -> Any:
        """Return this federation's server as a Flower ServerApp. options: as in `fl.flower.apps.server_app`."""
        from fl.flower.apps import server_app

        return server_app(self, rounds, **options)

    def _start(self, rounds: int, resume: bool) -> KeptRun | None:
        folder = self.setup.output
        if self.account.calibrated and self.account.events and not resume:
            raise Misuse(
                "this federation has spent what its noise was calibrated for: plan all rounds in one fit, go on with "
                "fit(the same rounds, resume=True) from an output folder, or make another federation"
            )
        if self._in_memory:
            self._in_memory.check(self.setup.strategy.name if self.setup.strategy.resends else "")
        self.coordinator.participants.require_new(resume)
        run = self.coordinator.prepare(rounds)
        empty = [
            f"client {name!r} holds no example and contributes nothing: leave it out"
            for name in self.setup.empty
        ]
        for said in (*self.setup.stack.outlook(run), *empty):
            warnings.warn(said, stacklevel=3)
        if self.setup.ledger is not None and not self._in_memory:
            sample = self.coordinator.sample()  # what nodes spend may be known to them alone
            self.account.check(sample.plan.events(sample.clients[:1]))
        if resume:
            return self._resumed(folder)
        if folder is not None and checkpoint.rounds_in(folder):
            raise Misuse(f"{folder} holds a run already: resume it, or name another folder")
        return None

    def _resumed(self, folder: Path | None) -> KeptRun:
        """Take back model, strategy, layers and account of the run in `folder`. Raises Misuse where it was another."""
        if folder is None:
            raise Misuse("nothing to resume: the federation was made without an output folder")
        kept = checkpoint.load_run(folder)
        made_with.same(kept.made_with, self._facts(), str(folder))
        if kept.history and self.setup.keeps_state and self._in_memory:
            self._in_memory.restore_clients(folder)
        try:
            self.coordinator.take(kept.model)
        except (RuntimeError, KeyError) as error:
            raise Misuse(f"the run in {folder} trained another model than this one: {error}") from None
        for result in kept.history:
            self.coordinator.close(result)
        self.setup.strategy.restore(kept.strategy)
        for layer in self.setup.stack.layers:
            layer.restore(kept.layers.get(layer.name, {}))
        if kept.statement is not None:
            self.protection = weakest(Statement.from_json(kept.statement).protection, self.protection)
        if self.account.run != kept.run:  # else this process played it, and knows of every charge
            self.account.restore(kept.events, kept.run, max((r.number for r in kept.history), default=0))
        return kept

    def _facts(self) -> dict[str, Any]:
        """What a checkpoint says the run was made with."""
        run = self.coordinator.run
        counted = self.account.calibrated or self.setup.stack.counted
        planned = {"rounds": run.rounds} if counted and run else {}  # another length is another C', too
        return {**planned, **self._made_with, **self.coordinator.optimizer}

    def _round(self, number: int) -> RoundResult:
        """Play one round: choose, show, sum, and move the model, or abandon it whole."""
        lost = self.engine.lost(number)
        asked = self._asked(number) if lost is None else lost.asked
        try:
            parts = self.coordinator.open_all(number, asked)
        except Aborted as error:
            result = RoundResult(number, asked, abandoned=error.reason)
            # that too few were chosen is priced: the round is paid for like any other
            if self.coordinator.hidden:
                self.account.charge(self.coordinator.sample().plan.events(()), number)
        else:
            result = self._play(parts) if lost is None else self._count(lost, parts)
        self.coordinator.close(result)
        run = self.coordinator.run
        if run is not None and number == run.rounds and self._in_memory:
            self._in_memory.over(self.coordinator.origin.scope, self.setup.stack.counted)
        return withheld(result) if self.coordinator.hidden else result

    def _asked(self, number: int) -> tuple[str, ...]:
        """Return the clients that a round asks. In memory, with sampling="arrivals", these are the chosen clients
        whose own stores allow them to come. On Flower the server asks every chosen node, and one that may not come
        refuses.
        """
        chosen = self.coordinator.choose(number)
        if self.setup.options.sampling != "arrivals" or not self._in_memory:
            return chosen
        return self._in_memory.coming(chosen, self.setup.stack.layers, self.coordinator.origin.scope, number)

    def _measure(self, result: RoundResult, hold: Callable[[], None]) -> None:
        """Evaluate the model after a round, which `hold` keeps before that, whatever an evaluation raises."""
        evaluation = self.setup.evaluation if result.abandoned is None else None
        try:
            try:
                due = evaluation is not None and evaluation.charge(result.number, self.account)
            finally:
                hold()
                result.metrics = self.coordinator.evaluate()
            if evaluation is not None and due:
                result.metrics |= evaluation.after(result.number, self)
        except Misuse as error:
            further = "mend it, and go on with fit(rounds, resume=True) or secagg run --resume"
            kept = "Federation.result holds it" if self.setup.output is None else further
            raise Misuse(f"{error} (round {result.number} is kept without it: {kept})") from error.__cause__
        finally:
            result.guarantees = self.account.guarantees()

    def _play(self, parts: Sequence[Broadcast]) -> RoundResult:
        def take(means: tuple[Mean, ...]) -> None:
            self.coordinator.move({part.name: mean for part, mean in zip(parts, means, strict=True)})

        setup = self.setup
        played = play(parts, self.engine, setup.stack, self.account, setup.options.min_survivors, take)
        if not self.coordinator.hidden:  # what it says follows how many took part
            self.setup.strategy.opened([len(total.survivors) for total in played.totals])
            if played.protection is not None:
                self.protection = weakest(played.protection, self.protection)
        return played.result

    def _count(self, lost: RoundResult, parts: Sequence[Broadcast]) -> RoundResult:
        """Count a round that a kill interrupted, and that may have been opened; a ledger was charged for it before."""
        for part in parts if not self.coordinator.hidden else ():
            with suppress(Aborted):  # of several sums, one that was not begun
                found = protected(self.setup.stack.secure_sum, part, self.setup.options.min_survivors)
                self.protection = weakest(found, self.protection)
        for part in () if self.setup.ledger is not None else parts:
            self.account.charge(part.plan.events(part.clients), lost.number)
        return lost

    # -- what is kept --

    @contextmanager
    def _keeper(self, rounds: int) -> Iterator[Keeper | None]:
        if self.setup.output is None:
            yield None
            return
        with closing(RunFiles(self.setup.output, self.signer, checkpoint.MODEL, self._model_bytes)) as files:
            yield Keeper(files, self.setup.stack, self.account, rounds, self.setup.strategy.name)

    def _save(self, keeper: Keeper | None, history: Sequence[RoundResult], *, hold: bool = False) -> None:
        """Save a round: what simulated clients keep first, for a round that is played again rolls it back. hold: it is
        closed and not measured; over a network, its updates do not come again.
        """
        if keeper is None or (hold and self._in_memory):
            return
        if history and self.setup.keeps_state and self._in_memory:
            self._in_memory.save_clients(keeper.files.folder)
        model, strategy = self.coordinator.reference().tree, self.setup.strategy.state()
        said = (self.statement(history), history[-1]) if history else ()
        keeper.keep(history, model, strategy, self._facts(), *said, hold=hold)

    def _model_bytes(self, kept: KeptRun) -> bytes:
        return checkpoint.model_bytes(self.coordinator.state_of(kept.model))

    def statement(self, history: Sequence[RoundResult] = ()) -> Statement:
        """Return what this federation protects, from whom, under which assumption, at what price so far."""
        setup = self.setup
        protection = self.protection or protected(setup.stack.secure_sum, self.coordinator.sample())
        run, notes = self.coordinator.run, (*self.engine.notes, *setup.notes(self.coordinator.planned(1)))
        said = told(notes) if self.coordinator.hidden else notes
        return statement_of(setup.stack, protection, self.account, said, history, run)
