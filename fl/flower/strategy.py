"""The server's side: a wrapper that runs an existing Flower strategy on secure sums.

What belongs here: the wrapper, and where a stopped run goes on. What does not: a round (`server`), the Grid it hands to
the strategy's loop (`grid`). The loop runs unchanged: it sends its messages through our Grid and gets back one reply,
whose arrays are the average and whose weight is the sum of the weights; a weighted mean of one reply is that reply.
"""

from collections.abc import Callable, Iterable, Sequence
from logging import INFO, WARNING
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from fl import arguments
from fl.account import Account
from fl.flower.arrays import arrays_of, tree_of
from fl.flower.compat import has_own_loop, inner_names, log, require_mean_only, restore_strategy
from fl.flower.files import RunKeeper, run_to_resume
from fl.flower.grid import NODE_SECONDS, TRIP_SECONDS, Evaluate, PrivateGrid
from fl.flower.grid_party import POLL_SECONDS
from fl.flower.rounds import ProtectedRounds, ServerOptions
from fl.made_with import Settings, of_stack
from fl.network.server_party import server_files
from fl.network.server_state import OVER
from fl.registry import layers_of
from fl.round import ModelLayout, RoundResult
from fl.round.reference import like
from fl.round.result import require_total
from fl.round.run_files import KeptRun
from protocols.errors import Misuse, SecAggError, require
from protocols.identity import Identity, SignedRoster
from protocols.layers import RunFacts
from protocols.numbers import positive, whole
from protocols.stack import Numbers, Stack
from protocols.statement import Statement
from protocols.updates import schema_of

EVALUATION_NOTE = "each client's evaluation metrics leave it unprotected, by explicit choice"
_BY_ROUND = ("train_metrics_clientapp", "evaluate_metrics_clientapp", "evaluate_metrics_serverapp")
EvaluateFn = Callable[[int, ArrayRecord], MetricRecord | None]


class PrivateStrategy(Strategy):
    """`PrivateStrategy(FedAvg(...), privacy=[SecAggPlus()])` in place of `FedAvg(...)`.

    privacy, numbers: as in `privacy_mod` on the clients. folder: where the run's files and the server's state lie; a
    run that finds them goes on from the last complete round; without one nothing outlives the process. roster,
    authority, identity: the signed roster, the pinned key that signed it, and the server's own signing key. metrics:
    names of training metrics that are summed inside the vector; all others are stripped. evaluate: "clear" lets the
    strategy collect evaluation metrics unprotected, and the statement says so. stage_timeout: seconds per message trip.
    node_timeout: seconds to wait for enough nodes. min_survivors: a round with fewer clients is abandoned whole.
    ledger: a `dp.Ledger`. dropout, delta, local_epochs: facts for layers.

    Raises Misuse for a strategy that needs more than the weighted mean, StackError for layers that do not compose.
    """

    def __init__(
        self,
        strategy: Strategy,
        privacy: Sequence[Any] = (),
        *,
        numbers: Numbers | None = None,
        folder: Path | str | None = None,
        roster: SignedRoster | None = None,
        authority: bytes | None = None,
        identity: Identity | None = None,
        metrics: Sequence[str] = (),
        integers: str = "keep",
        evaluate: Evaluate = "skip",
        stage_timeout: float | None = None,
        min_survivors: int = ServerOptions.min_survivors,
        poll: float = POLL_SECONDS,
        node_timeout: float = NODE_SECONDS,
        ledger: Any = None,
        dropout: float = 0.0,
        delta: float | None = None,
        local_epochs: int = 1,
    ) -> None:
        require_mean_only(strategy)
        require(evaluate in ("skip", "clear"), 'evaluate to be "skip" or "clear"', f"{evaluate!r}")
        self.strategy = strategy
        self.folder = None if folder is None else Path(folder)
        store, verified = server_files(self.folder, roster, authority, identity)
        self.evaluate = evaluate
        self.stage_timeout = arguments.optional("stage_timeout", stage_timeout)
        self.node_timeout = positive("node_timeout", node_timeout)
        stack = Stack(layers_of(privacy), numbers or Numbers()).over_network()
        self.account = Account(stack.layers, delta, arguments.ledger(ledger))
        self.options = ServerOptions(
            stack=stack,
            store=store,
            layout=ModelLayout(
                *inner_names(strategy),
                metrics=arguments.checked("metrics", metrics),
                integers=arguments.checked("integers", integers),
            ),
            roster=verified,
            identity=identity,
            min_survivors=arguments.checked("min_survivors", min_survivors),
            poll=positive("poll", poll),
            dropout=arguments.checked("dropout", dropout),
            delta=arguments.optional("delta", delta),
            local_epochs=arguments.checked("local_epochs", local_epochs),
            notes=(EVALUATION_NOTE,) if evaluate == "clear" else (),
        )
        self.account.check(self.options.stack.kinds(RunFacts(1, 1, 1)))
        self.rounds: ProtectedRounds | None = None
        self._made_with = self._settings()
        self._done = 0
        self._keeper: RunKeeper | None = None

    @property
    def history(self) -> list[RoundResult]:
        """What each round of this process did."""
        return [] if self.rounds is None else self.rounds.history

    def statement(self) -> Statement:
        """Return what is protected, from whom, under which assumption. Raises Misuse before the first round."""
        if self.rounds is None:
            raise Misuse("no round was begun yet")
        return self.rounds.statement()

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float | None = TRIP_SECONDS,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: EvaluateFn | None = None,
    ) -> Result:
        """Run the strategy's own loop; with a folder that holds a run, only the rounds that are left.

        timeout: seconds that a round's replies may take, as in Flower; None is an hour per message trip, the most.
        Raises Misuse for a run of another model, strategy or stack, for one whose own state cannot be taken up, and for
        more rounds than its noise was calibrated for.
        SecAggError when clients can only repeat updates that have left them (`fl.network.network_engine.STUCK`),
        NoResult when every round was abandoned.
        """
        num_rounds = whole("num_rounds", num_rounds, 0)
        limit = TRIP_SECONDS if timeout is None else positive("timeout", timeout)
        schema = schema_of(tree_of(initial_arrays), self.options.layout.integers)
        kept = self._resume(initial_arrays)
        rounds = ProtectedRounds(self.options, self.account, grid, schema, num_rounds, self._made_with, kept)
        rounds.require(str(self.folder or "memory"), None if kept is None else kept.session)
        self.rounds = rounds
        private = PrivateGrid(rounds, self.evaluate, self.stage_timeout, self.node_timeout)
        given = self.strategy, rounds, num_rounds, kept
        keeper = self._keeper = None if self.folder is None else RunKeeper(self.folder, *given)
        try:
            if keeper is not None and kept is not None:
                keeper.catch_up(kept)
                done = len(keeper.history)
                self._take_up(kept, done, num_rounds - done)
            self._done = done = 0 if keeper is None else len(keeper.history)
            rounds.number = done + 1
            arrays = initial_arrays if kept is None else arrays_of(kept.model)
            hook = self._hook(rounds, keeper, evaluate_fn, goes_on=kept is not None)
            left = max(0, num_rounds - done)
            if done and not left:
                log(WARNING, OVER, self.folder, done)
            loop = self.strategy.start if has_own_loop(self.strategy) else super().start
            result = loop(private, arrays, left, limit, train_config, evaluate_config, hook)
            if keeper is not None:
                self._farewell(rounds, min(limit, self.stage_timeout or 60.0))
        finally:
            if keeper is not None:
                keeper.files.close()
        require_total((*rounds.before, *rounds.history))
        if not result.arrays:
            result.arrays = arrays
        for name in _BY_ROUND:
            setattr(result, name, {number + done: facts for number, facts in getattr(result, name).items()})
        result.arrays = arrays_of(like(tree_of(result.arrays), schema))
        return result

    def _hook(
        self,
        rounds: ProtectedRounds,
        keeper: RunKeeper | None,
        evaluate_fn: EvaluateFn | None,
        *,
        goes_on: bool,
    ) -> EvaluateFn:
        """Return what the strategy's loop calls after every round: the user's evaluation; a loop of its own is saved
        here, and the state before round 1.
        """

        def after(own_round: int, arrays: ArrayRecord) -> MetricRecord | None:
            if own_round == 0 and goes_on:
                return None  # a run that goes on was saved and measured at this point before
            number = own_round + self._done
            rounds.number = number + 1
            if keeper is not None and (own_round == 0 or has_own_loop(self.strategy)):
                keeper.save(number, tree_of(arrays))
            return evaluate_fn(number, arrays) if evaluate_fn else None

        return after

    def _farewell(self, rounds: ProtectedRounds, timeout: float) -> None:
        """Hand the clients the last head; who kept it is noted, for people: a later entry changes the head."""
        try:
            kept = rounds.farewell(timeout)
        except SecAggError as error:  # the rounds are done and kept: their result is not given up for this
            log(WARNING, "no client was handed the last head of the run record: %s", error)
            return
        log(INFO, "%d clients keep the head %s of the run record", len(kept), rounds.server.head)

    def _settings(self) -> Settings:
        """Return what a run that is resumed must have been made with: what its totals and its statement rest on."""
        options, layout = self.options, self.options.layout
        return {
            **of_stack(options.stack),
            "metrics": list(layout.metrics),
            "integers": layout.integers,
            "min_survivors": options.min_survivors,
            "dropout": options.dropout,
            "delta": self.account.delta,
            "local_epochs": options.local_epochs,
            "evaluate": self.evaluate,
            "federation": options.roster.federation if options.roster else None,
        }

    def _resume(self, initial: ArrayRecord) -> KeptRun | None:
        """Return the run to go on with; None if there is none. Raises Misuse for another strategy's or model's."""
        kept = None if self.folder is None else run_to_resume(self.folder)
        if kept is None:
            return None
        kind = type(self.strategy)
        if kept.kind != kind.__name__:
            differs = f"was made with {kept.kind}, this one is {kind.__name__}"
        elif list(kept.model) != list(initial):
            differs = "trained another model than this one"
        else:
            return kept
        raise Misuse(f"the run in {self.folder} {differs}: resume it as it was, or name another folder")

    def _take_up(self, kept: KeptRun, done: int, left: int) -> None:
        """Give the strategy back what it kept. Raises Misuse where that cannot be done."""
        if not done:
            return
        if has_own_loop(self.strategy):
            raise Misuse(
                f"{type(self.strategy).__name__} has a loop of its own, which starts from round 1: "
                "name another folder to start anew"
            )
        restore_strategy(self.strategy, dict(kept.strategy))
        if left:
            log(WARNING, "going on after round %d of the run in %s", done, self.folder)

    # -- the wrapped strategy's interface; a run that goes on counts on --

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        self._arrays = arrays
        return self.strategy.configure_train(server_round + self._done, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """A round is kept the moment it is closed: what follows it may wait for nodes, or be killed."""
        found = self.strategy.aggregate_train(number := server_round + self._done, replies)
        self._arrays = self._arrays if found[0] is None else found[0]
        if self._keeper is not None:
            self._keeper.save(number, tree_of(self._arrays))
        return found

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        if self.evaluate == "skip":
            return []  # a strategy would sample nodes, and wait for them
        return self.strategy.configure_evaluate(server_round + self._done, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        return self.strategy.aggregate_evaluate(server_round + self._done, replies)

    def summary(self) -> None:
        self.strategy.summary()
