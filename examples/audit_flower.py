"""Auditing somebody else's protocol, unchanged: a black-box adapter around Flower's SecAgg+.

cd examples; secagg audit audit_flower:factory

An adapter is a function (inputs, drop) -> (total or None, what the server saw). This one plays Flower's own
workflow against Flower's own client mod, in this process. Needs the extras flower and audit. What you find
is yours to judge: an adapter can be wrong. Report findings to the maintainers first, privately, and give
them time.
"""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.common import Code, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.compat.common import recorddict_compat
from flwr.server.client_manager import SimpleClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.strategy import FedAvg
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD, Key
from flwr.server.workflow.secure_aggregation.secaggplus_workflow import SecAggPlusWorkflow
from flwr.serverapp.grid import Grid
from flwr.supercore.task_identity import TaskIdentity

from protocols.audit import BlackBox

STAGES = ("setup", "share-keys", "collect-masked-vectors", "unmask")
BOUND = 127
"""Inputs are integers within +-BOUND: the mod's quantiser is set so that it represents them exactly."""


class Proxy(ClientProxy):
    """What the workflow wants of a client: an identity."""

    def __init__(self, node_id: int) -> None:
        super().__init__(str(node_id))
        self.node_id = node_id

    def _unused(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("the workflow talks to clients through the grid")

    get_properties = get_parameters = fit = evaluate = reconnect = _unused


class Passive(FedAvg):
    """Takes the workflow's average as it is."""

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        return results[0][1].parameters, {}


class RecordingGrid(Grid):
    """Hands every message to the client mod, through its wire format, and keeps what the server saw."""

    def __init__(self, inputs: Sequence[np.ndarray], drop: Mapping[str, Collection[int]]) -> None:
        self.inputs, self.stage = inputs, -1
        self.leaves = {i: STAGES.index(stage) for stage, who in drop.items() for i in who}
        self.contexts = [Context(0, i + 1, {}, RecordDict(), {}) for i in range(len(inputs))]
        self.transcript: list[tuple[str, str, bytes]] = []

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        self.stage += 1
        return [self._deliver(message) for message in messages]

    def _deliver(self, message: Message) -> Message:
        client = message.metadata.dst_node_id - 1
        if self.stage >= self.leaves.get(client, len(STAGES)):
            return Message(Error(code=0, reason="left"), reply_to=message)
        message.content = self._seen("server", f"client {client}", message.content)
        answer = secaggplus_mod(message, self.contexts[client], self._train)
        answer.content = self._seen(f"client {client}", "server", answer.content)
        return answer

    def _seen(self, sender: str, recipient: str, content: RecordDict) -> RecordDict:
        given, wire = received(content)
        self.transcript.append((sender, recipient, wire))
        return given

    def _train(self, message: Message, context: Context) -> Message:
        update = ndarrays_to_parameters([self.inputs[context.node_id - 1].astype(np.float64)])
        result = FitRes(Status(Code.OK, ""), update, num_examples=1, metrics={})
        return Message(recorddict_compat.fitres_to_recorddict(result, keep_input=True), reply_to=message)

    def get_node_ids(self) -> Iterable[int]:
        return [context.node_id for context in self.contexts]

    def _unused(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("the workflow uses send_and_receive only")

    create_message = push_messages = pull_messages = get_nodes = set_run = _unused
    run = property(_unused)


def received(content: RecordDict) -> tuple[RecordDict, bytes]:
    """The content as a receiver gets it, and what is on the wire."""
    wire = recorddict_to_proto(content)
    return recorddict_from_proto(wire), wire.SerializeToString()


def run(
    inputs: Sequence[np.ndarray], drop: Mapping[str, Collection[int]]
) -> tuple[np.ndarray | None, list[tuple[str, str, bytes]]]:
    """One round: the total that came out (None if none did), and everything the server sent and received."""
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 0, 0, 0
    n, dimension = len(inputs), len(inputs[0])
    grid = RecordingGrid(inputs, drop)
    workflow = SecAggPlusWorkflow(
        n,
        n // 2 + 1,
        max_weight=1.0,
        clipping_range=float(BOUND),
        quantization_range=2 * BOUND,
        modulus_range=1 << 32,
    )
    context = new_context(n, dimension)
    workflow(grid, context)
    average = average_in(context)
    counting = STAGES.index("collect-masked-vectors")
    survivors = [i for i in range(n) if grid.leaves.get(i, len(STAGES)) > counting]
    if not np.isfinite(average).all() or grid.stage < len(STAGES) - 1 or not survivors:
        return None, grid.transcript
    return np.rint(average * len(survivors)).astype(np.int64), grid.transcript


def new_context(clients: int, dimension: int) -> LegacyContext:
    """The workflow's surroundings: a strategy, the clients' identities, a model that is not finite until a
    round ends.
    """
    manager = SimpleClientManager()
    for node in range(1, clients + 1):
        manager.register(Proxy(node))
    strategy = Passive(fraction_fit=1.0, min_fit_clients=clients, min_available_clients=clients)
    context = LegacyContext(Context(0, 0, {}, RecordDict(), {}), strategy=strategy, client_manager=manager)
    model = ndarrays_to_parameters([np.full(dimension, np.nan)])
    context.state.array_records[MAIN_PARAMS_RECORD] = recorddict_compat.parameters_to_arrayrecord(model, True)
    context.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({Key.CURRENT_ROUND: 1})
    return context


def average_in(context: LegacyContext) -> np.ndarray:
    """The model after the workflow, which is the clients' average."""
    [average] = parameters_to_ndarrays(
        recorddict_compat.arrayrecord_to_parameters(context.state.array_records[MAIN_PARAMS_RECORD], True)
    )
    return average


def tolerated(clients: int, drop: Mapping[str, Collection[int]]) -> bool:
    """What the workflow is asked for: a majority that answers every stage."""
    return clients - sum(len(who) for who in drop.values()) >= clients // 2 + 1


def factory() -> BlackBox:
    """What `secagg audit` asks for."""
    return BlackBox(
        run,
        name="Flower's SecAgg+",
        threat="semi-honest",
        stages=STAGES,
        counting="collect-masked-vectors",
        bound=BOUND,
        clients=(3, 5),
        tolerated=tolerated,
    )
