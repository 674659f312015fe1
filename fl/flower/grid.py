"""The Grid that a wrapped strategy is handed: its training messages become protected rounds.

What belongs here: Flower's Grid interface, and reading the strategy's messages: one model, one configuration and
nothing else. What does not: a round (`server`), the strategy (`strategy`).
"""

import time
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid

from fl.flower.compat import NodeInfo, Run
from fl.flower.rounds import ProtectedRounds
from fl.round import ModelLayout
from protocols.errors import Aborted, Misuse

Evaluate = Literal["skip", "clear"]
TRAIN = "train"
NODE_SECONDS = 600.0
TRIP_SECONDS = 3600.0
"""The longest that a trip waits, whatever a strategy allows."""


class PrivateGrid(Grid):
    """A Grid whose training messages become protected rounds. Everything else goes to the grid it wraps."""

    def __init__(
        self,
        rounds: ProtectedRounds,
        evaluate: Evaluate,
        stage_timeout: float | None,
        node_timeout: float = NODE_SECONDS,
    ) -> None:
        self.inner, self.rounds = rounds.grid, rounds
        self.evaluate = evaluate
        self.stage_timeout = stage_timeout
        self.node_timeout = node_timeout
        self._asked_since: float | None = None

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Training: one averaged reply, or none if the round was abandoned. Evaluation: nothing, unless it
        was allowed. Raises Misuse for training messages that hold more than a protected round carries.
        """
        self._asked_since = None
        listed = list(messages)
        kinds = {m.metadata.message_type.partition(".")[0] for m in listed}
        if "train" in kinds:
            limit = min(x for x in (self.stage_timeout, timeout, TRIP_SECONDS) if x is not None)
            model, config = broadcast_of(listed, self.rounds.options.layout)
            nodes = {m.metadata.dst_node_id: m for m in listed}
            reply = self.rounds.play(nodes, model, config, limit)
            return [] if reply is None else [reply]
        if not listed or (kinds == {"evaluate"} and self.evaluate == "skip"):
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
        return [int(node) for node in self.rounds.server.connected().clients.values()]

    def get_nodes(self) -> Iterable[NodeInfo]:
        known = set(self.get_node_ids())
        return [node for node in self.inner.get_nodes() if node.node_id in known]

    def set_run(self, run: Run) -> None:
        self.inner.set_run(run)

    @property
    def run(self) -> Run:
        return self.inner.run

    def create_message(self, *given: Any, **named: Any) -> Message:
        return self.inner.create_message(*given, **named)


def broadcast_of(messages: Sequence[Message], keys: ModelLayout) -> tuple[ArrayRecord, ConfigRecord | None]:
    """Return the model and the configuration that all nodes of a round are sent.

    Raises Misuse for messages of another type than "train", for a record besides the model and the configuration, and
    where nodes are sent different ones or one node two of them.
    """
    for message in messages:
        _check(message, keys)
    nodes = [m.metadata.dst_node_id for m in messages]
    if twice := sorted({node for node in nodes if nodes.count(node) > 1}):
        raise Misuse(f"the strategy sends two messages to node {twice[0]} in one round: expected one each")
    models = [m.content.array_records[keys.arrays] for m in messages]
    configs = [m.content.config_records.get(keys.config) for m in messages]
    if any(model != models[0] for model in models) or any(config != configs[0] for config in configs):
        raise Misuse("the strategy must send every node of a round the same model and configuration")
    return models[0], configs[0]


def _check(message: Message, keys: ModelLayout) -> None:
    if (kind := message.metadata.message_type) != TRAIN:
        raise Misuse(
            f"the strategy sends a message of type {kind!r} in a training round: a protected round runs the apps' "
            f"{TRAIN!r} function alone, so send it as {TRAIN!r}"
        )
    expected = {keys.arrays: ArrayRecord, keys.config: ConfigRecord}
    for name, record in message.content.items():
        if not isinstance(record, expected.get(name, ())):
            raise Misuse(
                f"the strategy sends {name!r}, of type {type(record).__name__}: a protected round carries the "
                f"ArrayRecord {keys.arrays!r} and the ConfigRecord {keys.config!r} alone, so put it into one of these"
            )
    if keys.arrays not in message.content:
        raise Misuse(f"the strategy sends no model: expected the ArrayRecord {keys.arrays!r}")
