"""The same round through Flower's SecAgg+ (its own workflow and client mod), in this process, for comparison only.

The grid below hands each message to the client mod at once. Seconds inside the mod, less the training stub that it
calls, are the client's; the rest of the workflow, less the grid, is the server's: neither pays for transport or
serialising. Messages are copied through their own wire format outside both clocks, because the mod changes what it is
given; the copies give the bytes. A client leaves by answering with an error.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from flwr.app import Context, Error, Message, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.common import parameters_to_ndarrays
from flwr.compat.common import recorddict_compat
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.workflow.constant import MAIN_PARAMS_RECORD
from flwr.server.workflow.secure_aggregation.secaggplus_workflow import SecAggPlusWorkflow

from benchmarks.secagg.work import Round, Work
from examples.audit_flower import from_wire, new_context, to_wire, trained

RANGE = 1.0
"""Updates lie in [-RANGE, RANGE]; the mod quantises them to the work's bits."""

_STAGES = ("advertise-keys", "share-keys", "masked-input", "unmask")
_INPUT = 2


class InProcessGrid:
    """Delivers messages to the mod, and keeps the clocks and the byte counts in place of the messages."""

    def __init__(
        self, updates: Sequence[np.ndarray], leaving: Iterable[int], clock: Callable[[], float]
    ) -> None:
        self.updates, self.stage = updates, -1
        self.contexts = [Context(0, i + 1, {}, RecordDict(), {}) for i in range(len(updates))]
        self.clock, self.leaving = clock, set(leaving)
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
        message.content = self._copied(message.content, self.down, node)
        began, self._training_s = self.clock(), 0.0
        answer = secaggplus_mod(message, self.contexts[node - 1], self._train)
        self.client_s[self.stage] += self.clock() - began - self._training_s
        answer.content = self._copied(answer.content, self.up, node)
        return answer

    @staticmethod
    def _copied(content: RecordDict, count: defaultdict[int, int], node: int) -> RecordDict:
        wire = to_wire(content)
        count[node] += len(wire)
        return from_wire(wire)

    def _train(self, message: Message, context: Context) -> Message:
        """The training stub: the update is there already."""
        began = self.clock()
        answer = trained(message, self.updates[context.node_id - 1])
        self._training_s = self.clock() - began
        return answer


def average_in(context: LegacyContext) -> np.ndarray:
    """The model after the workflow, which is the clients' average."""
    model = context.state.array_records[MAIN_PARAMS_RECORD]
    return parameters_to_ndarrays(recorddict_compat.arrayrecord_to_parameters(model, True))[0]


def run_flower(work: Work) -> Round:
    """Run the round once. Shares: the neighbours and the client itself, as that protocol counts them."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    vectors = work.vectors()
    scale = RANGE / work.bound
    nodes = list(range(1, work.clients + 1))
    leaving = [nodes[i] for i in work.leaving()]
    grid = InProcessGrid([vector * scale for vector in vectors], leaving, work.read_clock)
    shares = min((work.neighbours or work.clients - 1) + 1, work.clients)
    workflow = SecAggPlusWorkflow(
        shares,
        work.threshold or shares // 2 + 1,
        max_weight=1.0,
        clipping_range=RANGE,
        quantization_range=1 << work.bits,
        modulus_range=1 << 32,
    )
    context = new_context(work.clients, work.dim)
    began = work.read_clock()
    workflow(grid, context)  # type: ignore[arg-type]  # of a grid it uses send_and_receive
    ended = work.read_clock()
    survivors = [node for node in nodes if node not in set(leaving)]
    expected = np.mean([vectors[node - 1] for node in survivors], axis=0) * scale
    stages = _stages(grid, began, ended)
    return Round(
        client_mean_s=sum(grid.client_s) / work.clients,
        server_s=sum(seconds["server"] for seconds in stages.values()),
        stages=stages,
        bytes_up_per_client=sum(grid.up[node] for node in survivors) / len(survivors),
        bytes_down_per_client=sum(grid.down[node] for node in survivors) / len(survivors),
        max_abs_error=float(np.abs(average_in(context) - expected).max()),
        wall_s=ended - began,
        survivors=len(survivors),
    )


def _stages(grid: InProcessGrid, began: float, ended: float) -> dict[str, dict[str, float]]:
    """Seconds by stage: the server works from the answers of one stage to the requests of the next."""
    starts = [*grid.starts, ended]
    seconds = {}
    for place, stage in enumerate(_STAGES):
        server = starts[place + 1] - starts[place] - grid.grid_s[place]
        before = starts[0] - began if place == 0 else 0.0
        seconds[stage] = {"client": grid.client_s[place], "server": server + before}
    return seconds
