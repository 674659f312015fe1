"""The server's side: a wrapper that runs an existing Flower strategy on secure sums.

What belongs here: the wrapper, the Grid it hands to the wrapped strategy, the run's files. What does not: a
round (`server`). The strategy's own loop runs unchanged: it sends its messages through our Grid and gets
back one reply, whose arrays are the average and whose weight is the sum of the weights; a weighted mean of
one reply is that reply.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from logging import INFO, WARNING
from pathlib import Path
from typing import Any, Literal

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.logger import log
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy
from flwr.supercore.run import Run

from fl.account import Account
from fl.flower.compat import inner_names, require_mean_only
from fl.flower.files import RunFiles, load_model
from fl.flower.rounds import arrays_of, like, tree_of
from fl.flower.sender import Shape
from fl.flower.server import ProtectedRounds, Report, ServerOptions
from fl.flower.trips import POLL_SECONDS
from protocols.errors import Aborted, Misuse
from protocols.identity import Identity, SignedRoster
from protocols.stack import Numbers, Stack
from protocols.statement import Statement
from protocols.store import FileStore, MemoryStore, Store
from protocols.updates import schema_of

Evaluate = Literal["skip", "clear"]
NODE_SECONDS = 600.0
EVALUATION_NOTE = "each client's evaluation metrics leave it unprotected, by explicit choice"
EvaluateFn = Callable[[int, ArrayRecord], MetricRecord | None]


class PrivateGrid(Grid):
    """A Grid whose training messages become protected rounds. Everything else goes to the grid it wraps."""

    def __init__(
        self,
        grid: Grid,
        rounds: ProtectedRounds,
        evaluate: Evaluate,
        offset: int,
        stage_timeout: float | None,
        node_timeout: float = NODE_SECONDS,
    ) -> None:
        self.inner = grid
        self.rounds = rounds
        self.evaluate = evaluate
        self.offset = offset
        self.stage_timeout = stage_timeout
        self.node_timeout = node_timeout
        self._asked_since: float | None = None

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Training: one averaged reply, or none if the round was abandoned. Evaluation: nothing, unless it
        was allowed.
        """
        self._asked_since = None
        listed = list(messages)
        kind = listed[0].metadata.message_type.partition(".")[0] if listed else ""
        if kind == "train":
            self._count_on(listed)
            limit = min(x for x in (self.stage_timeout, timeout, 3600.0) if x is not None)
            reply = self.rounds.play(self.inner, listed, limit)
            return [] if reply is None else [reply]
        if kind == "evaluate" and self.evaluate == "skip":
            return []
        return self.inner.send_and_receive(listed, timeout=timeout)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Raises Misuse for training messages: their replies would not be protected."""
        listed = list(messages)
        if any(m.metadata.message_type.startswith("train") for m in listed):
            raise Misuse("training messages go through send_and_receive, which protects their replies")
        return self.inner.push_messages(listed)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self.inner.pull_messages(message_ids)

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes that may train: on the roster, and no helper.

        A strategy asks again and again until enough are connected: raises Aborted when that takes too long.
        """
        self._asked_since = self._asked_since or time.monotonic()
        if time.monotonic() - self._asked_since > self.node_timeout:
            raise Aborted(f"waited {self.node_timeout:g} s for enough nodes to connect")
        return list(self.rounds.directory(self.inner).clients.values())

    def get_nodes(self) -> Iterable[NodeInfo]:
        known = set(self.get_node_ids())
        return [node for node in self.inner.get_nodes() if node.node_id in known]

    def set_run(self, run: Run) -> None:
        self.inner.set_run(run)

    @property
    def run(self) -> Run:
        return self.inner.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def _count_on(self, messages: Sequence[Message]) -> None:
        """A continued run goes on counting where it stopped."""
        key = self.rounds.options.shape.config
        for config in {
            id(c): c for m in messages if (c := m.content.config_records.get(key)) is not None
        }.values():
            if self.offset and isinstance(own := config.get("server-round"), int):
                config["server-round"] = own + self.offset


class PrivateStrategy(Strategy):
    """`PrivateStrategy(FedAvg(...), privacy=[SecAggPlus()])` in place of `FedAvg(...)`.

    privacy, numbers: as in `privacy_mod` on the clients. folder: where the run's files and the server's
    state lie; a run that finds them goes on from the last complete round; without one nothing outlives the
    process. roster, authority, identity: the signed roster, the pinned key that signed it, and the server's
    own signing key. metrics: names of training metrics that are summed inside the vector; all others are
    stripped. evaluate: "clear" lets the strategy collect evaluation metrics unprotected, and the statement
    says so. stage_timeout: seconds per message trip. node_timeout: seconds to wait for enough nodes.
    min_survivors: a round with fewer clients is abandoned whole. ledger: a `dp.Ledger`. dropout, delta,
    local_epochs: facts for layers.

    Raises Misuse for a strategy that needs more than the weighted mean, StackError for layers that do not
    compose.
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
        min_survivors: int = 2,
        poll: float = POLL_SECONDS,
        node_timeout: float = NODE_SECONDS,
        ledger: Any = None,
        dropout: float = 0.0,
        delta: float | None = None,
        local_epochs: int = 1,
    ) -> None:
        require_mean_only(strategy)
        if (roster is None) != (authority is None) or (roster is None) != (identity is None):
            raise Misuse(
                "a roster comes with the authority's public key and the server's identity, all three or none"
            )
        if roster is not None and folder is None:
            raise Misuse("with a roster rounds are counted across runs: name a folder for the server's state")
        if evaluate not in ("skip", "clear"):
            raise Misuse(f'expected evaluate to be "skip" or "clear", got {evaluate!r}')
        self.strategy = strategy
        self.folder = None if folder is None else Path(folder)
        self.evaluate = evaluate
        self.stage_timeout = stage_timeout
        self.node_timeout = node_timeout
        self.account = Account(tuple(privacy), delta, ledger)
        self.options = ServerOptions(
            stack=Stack(tuple(privacy), numbers or Numbers()),
            store=self._store(),
            shape=Shape(*inner_names(strategy), metrics=tuple(metrics), integers=integers),
            roster=None if roster is None or authority is None else roster.verified(authority),
            identity=identity,
            min_survivors=min_survivors,
            poll=poll,
            dropout=dropout,
            delta=delta,
            local_epochs=local_epochs,
            notes=(EVALUATION_NOTE,) if evaluate == "clear" else (),
        )
        self.rounds: ProtectedRounds | None = None

    @property
    def history(self) -> list[Report]:
        """What each round of this process did."""
        return [] if self.rounds is None else self.rounds.reports

    def statement(self) -> Statement:
        """Return what is protected, from whom, under which assumption. Raises Misuse before the first
        round.
        """
        if self.rounds is None:
            raise Misuse("no round was begun yet")
        return self.rounds.statement()

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: EvaluateFn | None = None,
    ) -> Result:
        """Run the wrapped strategy's own loop; with a folder that holds a run, only the rounds that are
        left.
        """
        schema = schema_of(tree_of(initial_arrays), self.options.shape.integers)
        arrays, done = self._resume(initial_arrays)
        self.rounds = rounds = ProtectedRounds(self.options, self.account, num_rounds)
        rounds.schema = schema
        private = PrivateGrid(grid, rounds, self.evaluate, done, self.stage_timeout, self.node_timeout)
        files = None if self.folder is None else RunFiles(self.folder, self.options.identity)
        if files is not None and done:
            rounds.sender.head = files.record.head
        hook = self._hook(files, evaluate_fn, done, num_rounds)
        left = max(0, num_rounds - done)
        try:
            result = self.strategy.start(private, arrays, left, timeout, train_config, evaluate_config, hook)
            self._farewell(grid, files, min(timeout, self.stage_timeout or 60.0))
        finally:
            if files is not None:
                files.close()
        if result.arrays:
            result.arrays = arrays_of(like(tree_of(result.arrays), schema))
        return result

    def _hook(
        self, files: RunFiles | None, evaluate_fn: EvaluateFn | None, done: int, planned: int
    ) -> EvaluateFn:
        """Return what the strategy's loop calls after every round: save first, then the user's evaluation."""

        def after(own_round: int, arrays: ArrayRecord) -> MetricRecord | None:
            number = own_round + done
            rounds = self.rounds
            if files is not None and rounds is not None and (own_round > 0 or not done):
                report = rounds.reports[-1] if own_round and rounds.reports else None
                tree = tree_of(arrays) if rounds.schema is None else like(tree_of(arrays), rounds.schema)
                rounds.sender.head = files.save(number, planned, tree, rounds, report)
            return evaluate_fn(number, arrays) if evaluate_fn and (own_round > 0 or not done) else None

        return after

    def _farewell(self, grid: Grid, files: RunFiles | None, timeout: float) -> None:
        """Hand the clients the last head; who kept it is noted, for people: a later entry changes the head."""
        if files is None or self.rounds is None:
            return
        kept = self.rounds.farewell(grid, timeout)
        log(INFO, "%d clients keep the head %s of the run record", len(kept), self.rounds.sender.head)

    def _store(self) -> Store:
        return MemoryStore() if self.folder is None else FileStore(self.folder / "state" / "store", "server")

    def _resume(self, initial: ArrayRecord) -> tuple[ArrayRecord, int]:
        """Return the model to start from and how many rounds are done."""
        found = None if self.folder is None else load_model(self.folder)
        if found is None or found[1] == 0:
            return initial, 0
        tree, done = found
        log(WARNING, "going on after round %d of the run in %s", done, self.folder)
        return arrays_of({name: tree[name] for name in initial}), done

    # -- the wrapped strategy's interface --

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        return self.strategy.configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        return self.strategy.aggregate_train(server_round, replies)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        return self.strategy.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        return self.strategy.aggregate_evaluate(server_round, replies)

    def summary(self) -> None:
        self.strategy.summary()
