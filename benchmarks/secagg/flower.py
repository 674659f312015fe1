"""The same round through Flower's SecAgg+ (its own workflow and client mod), in this process, for comparison only.

The grid below hands each message to the client mod at once. Seconds inside the mod, less the training stub that it
calls, are the client's; the rest of the workflow, less the grid, is the server's: neither pays for transport or
serialising. Messages are copied through their own wire format outside both clocks, because the mod changes what it is
given; the copies give the bytes. A client leaves by answering with an error.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.common import Code, FitRes, Parameters, Status, ndarrays_to_parameters, parameters_to_ndarrays
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

from benchmarks.secagg.work import Round, Work

RANGE = 1.0
"""Updates lie in [-RANGE, RANGE]; the mod quantises them to the work's bits."""

_STAGES = ("advertise-keys", "share-keys", "masked-input", "unmask")
_INPUT = 2


class _Proxy(ClientProxy):
    """What the workflow wants of a client: an identity."""

    def __init__(self, node_id: int) -> None:
        super().__init__(str(node_id))
        self.node_id = node_id

    def _unused(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("the workflow talks to clients through the grid")

    get_properties = get_parameters = fit = evaluate = reconnect = _unused


class _Passive(FedAvg):
    """Takes the workflow's average as it is: what a strategy does with it is no part of the sum."""

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        return results[0][1].parameters, {}


class InProcessGrid(Grid):
    """Delivers messages to the mod, and keeps the clocks and the byte counts."""

    def __init__(
        self, updates: dict[int, Parameters], leaving: Iterable[int], clock: Callable[[], float]
    ) -> None:
        self.clock = clock
        self.updates, self.leaving = updates, set(leaving)
        self.contexts = {node: Context(0, node, {}, RecordDict(), {}) for node in updates}
        self.stage = -1
        self.client_s = [0.0] * len(_STAGES)
        self.grid_s = [0.0] * len(_STAGES)
        self.starts: list[float] = []
        self.up: defaultdict[int, int] = defaultdict(int)
        self.down: defaultdict[int, int] = defaultdict(int)
        self._training_s = 0.0

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        began = self.clock()
        self.starts.append(began)
        self.stage += 1
        answers = [self._deliver(message) for message in messages]
        self.grid_s[self.stage] = self.clock() - began
        return answers

    def _deliver(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        if self.stage >= _INPUT and node in self.leaving:
            return Message(Error(code=0, reason="left"), reply_to=message)
        message.content, size = _copied(message.content)
        self.down[node] += size
        began, self._training_s = self.clock(), 0.0
        answer = secaggplus_mod(message, self.contexts[node], self._train)
        self.client_s[self.stage] += self.clock() - began - self._training_s
        answer.content, size = _copied(answer.content)
        self.up[node] += size
        return answer

    def _train(self, message: Message, context: Context) -> Message:
        """The training stub: the update is there already."""
        began = self.clock()
        result = FitRes(Status(Code.OK, ""), self.updates[context.node_id], num_examples=1, metrics={})
        content = recorddict_compat.fitres_to_recorddict(result, keep_input=True)
        answer = Message(content, reply_to=message)
        self._training_s = self.clock() - began
        return answer

    def get_node_ids(self) -> Iterable[int]:
        return self.updates

    def _unused(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("the workflow uses send_and_receive only")

    create_message = push_messages = pull_messages = get_nodes = set_run = _unused
    run = property(_unused)


def run_flower(work: Work) -> Round:
    """Run the round once. Shares: the neighbours and the client itself, as that protocol counts them."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 0, 0, 0
    vectors = work.vectors()
    scale = RANGE / work.bound
    nodes = list(range(1, work.clients + 1))
    leaving = [nodes[i] for i in work.leaving()]
    updates = {node: ndarrays_to_parameters([vectors[node - 1] * scale]) for node in nodes}
    grid = InProcessGrid(updates, leaving, work.read_clock)
    shares = min((work.neighbours or work.clients - 1) + 1, work.clients)
    workflow = SecAggPlusWorkflow(
        shares,
        work.threshold or shares // 2 + 1,
        max_weight=1.0,
        clipping_range=RANGE,
        quantization_range=1 << work.bits,
        modulus_range=1 << 32,
    )
    context = _context(nodes, work.dim)
    began = work.read_clock()
    workflow(grid, context)
    ended = work.read_clock()
    survivors = [node for node in nodes if node not in set(leaving)]
    [average] = parameters_to_ndarrays(
        recorddict_compat.arrayrecord_to_parameters(context.state.array_records[MAIN_PARAMS_RECORD], True)
    )
    expected = np.mean([vectors[node - 1] for node in survivors], axis=0) * scale
    stages = _stages(grid, began, ended)
    return Round(
        client_mean_s=sum(grid.client_s) / work.clients,
        server_s=sum(seconds["server"] for seconds in stages.values()),
        stages=stages,
        bytes_up_per_client=sum(grid.up[node] for node in survivors) / len(survivors),
        bytes_down_per_client=sum(grid.down[node] for node in survivors) / len(survivors),
        max_abs_error=float(np.abs(average - expected).max()),
        wall_s=ended - began,
        survivors=len(survivors),
    )


def _context(nodes: list[int], dim: int) -> LegacyContext:
    manager = SimpleClientManager()
    for node in nodes:
        manager.register(_Proxy(node))
    strategy = _Passive(fraction_fit=1.0, min_fit_clients=len(nodes), min_available_clients=len(nodes))
    context = LegacyContext(Context(0, 0, {}, RecordDict(), {}), strategy=strategy, client_manager=manager)
    model = ndarrays_to_parameters([np.zeros(dim)])
    context.state.array_records[MAIN_PARAMS_RECORD] = recorddict_compat.parameters_to_arrayrecord(model, True)
    context.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({Key.CURRENT_ROUND: 1})
    return context


def _stages(grid: InProcessGrid, began: float, ended: float) -> dict[str, dict[str, float]]:
    """Seconds by stage: the server works from the answers of one stage to the requests of the next."""
    starts = [*grid.starts, ended]
    seconds = {}
    for place, stage in enumerate(_STAGES):
        server = starts[place + 1] - starts[place] - grid.grid_s[place]
        before = starts[0] - began if place == 0 else 0.0
        seconds[stage] = {"client": grid.client_s[place], "server": server + before}
    return seconds


def _copied(content: RecordDict) -> tuple[RecordDict, int]:
    """The content as a receiver gets it, and its bytes on the wire."""
    wire = recorddict_to_proto(content)
    return recorddict_from_proto(wire), wire.ByteSize()
