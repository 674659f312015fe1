"""Flower's SecAgg+, its workflow and client mod as they are: cd examples; secagg audit audit_flower:factory.

Messages go through its wire format and are answered once; a mod that raises answers with an error.
"""

import logging
from types import SimpleNamespace as Namespace
from typing import Any

import numpy as np
from flwr import common
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.common.secure_aggregation import secaggplus_constants, secaggplus_utils
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.compat.common import recorddict_compat as compat
from flwr.proto.recorddict_pb2 import RecordDict as Wired
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD
from flwr.server.workflow.secure_aggregation.secaggplus_workflow import SecAggPlusWorkflow
from flwr.supercore.task_identity import TaskIdentity

from protocols.audit import BlackBox, Wire

STAGES = ("setup", "share-keys", "collect-masked-vectors", "unmask")
LEFT = Error(code=0, reason="no answer")
BOUND, MODULUS = 127, 1 << 32  # the mod's quantiser represents every integer within +-BOUND exactly


def to_wire(content: RecordDict) -> bytes:
    return bytes(recorddict_to_proto(content).SerializeToString())


def from_wire(body: bytes) -> RecordDict:
    return recorddict_from_proto(Wired.FromString(body))


def trained(message: Message, vector: np.ndarray) -> Message:
    update = common.ndarrays_to_parameters([vector.astype(np.float64)])
    fit = common.FitRes(common.Status(common.Code.OK, ""), update, 1, {})
    return Message(compat.fitres_to_recorddict(fit, keep_input=True), reply_to=message)


def new_context(clients: int, dimension: int) -> LegacyContext:
    """The workflow's surroundings: who trains, and a model that is not finite until a round ends."""
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 0
    model = common.ndarrays_to_parameters([np.full(dimension, np.nan)])
    nodes = [(Namespace(node_id=i + 1), common.FitIns(model, {})) for i in range(clients)]
    ours: Any = Namespace(num_available=lambda: clients, configure_fit=lambda *_: nodes)
    ours.aggregate_fit = lambda number, results, _: (results[0][1].parameters, {})
    context = LegacyContext(Context(0, 0, {}, RecordDict(), {}), strategy=ours, client_manager=ours)
    context.state.array_records[MAIN_PARAMS_RECORD] = compat.parameters_to_arrayrecord(model, True)
    context.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({"current_round": 1})
    return context


def run(inputs: Any, drop: Any, tamper: Any = None) -> tuple[Any, Any]:
    """One round: the total that came out (None if none did), and everything the server sent and received."""
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    wire, stages, counted = Wire(drop, tamper, once=True), iter(STAGES), list[int]()
    states = [Context(0, i + 1, {}, RecordDict(), {}) for i in range(len(inputs))]

    def send_and_receive(messages: Any, **_: Any) -> list[Message]:
        stage, asked = next(stages), {m.metadata.dst_node_id - 1: m for m in messages}

        def answer(i: int, body: bytes) -> bytes:
            asked[i].content = from_wire(body)
            return to_wire(secaggplus_mod(asked[i], states[i], lambda m, _: trained(m, inputs[i])).content)

        came = dict(wire.trip(stage, {i: to_wire(m.content) for i, m in asked.items()}, answer))
        counted.append(len(came))
        return [Message(from_wire(came[i]) if i in came else LEFT, reply_to=m) for i, m in asked.items()]

    context, n = new_context(len(inputs), len(inputs[0])), len(inputs)
    options: Any = {"clipping_range": float(BOUND), "quantization_range": 2 * BOUND, "modulus_range": MODULUS}
    grid: Any = Namespace(send_and_receive=send_and_receive)
    SecAggPlusWorkflow(n, n // 2 + 1, max_weight=1.0, **options)(grid, context)
    model = compat.arrayrecord_to_parameters(context.state.array_records[MAIN_PARAMS_RECORD], True)
    total = np.rint(common.parameters_to_ndarrays(model)[0] * [*counted, 0, 0, 0][2])
    return total.astype(np.int64) if np.isfinite(total).all() else None, wire.transcript


def elements(message: tuple[str, str, bytes]) -> Any:
    configs: Any = from_wire(message[2]).config_records.get(secaggplus_constants.RECORD_KEY_CONFIGS, {})
    parts = configs.get(secaggplus_constants.Key.MASKED_PARAMETERS, [])[1:]
    return np.concatenate([common.bytes_to_ndarray(p).ravel() for p in parts]) if parts else None


def tolerated(clients: int, drop: Any) -> bool:
    stayed = clients - sum(map(len, drop.values()))
    return not (drop.get(STAGES[0]) or drop.get(STAGES[1])) and stayed >= clients // 2 + 1


def factory() -> BlackBox:
    """What `secagg audit` asks for."""
    expand: Any = secaggplus_utils.pseudo_rand_gen
    pieces: Any = {"elements": elements, "modulus": MODULUS, "seed_bytes": 32, "stages": STAGES}
    pieces |= {"stream": lambda seed, count: expand(seed, MODULUS, [(count,)])[0], "tolerated": tolerated}
    pieces |= {"watch": f"{secaggplus_mod.__module__}:pseudo_rand_gen", "counting": STAGES[2]}
    return BlackBox(run, name="Flower's SecAgg+", bound=BOUND, clients=(3, 5), **pieces)
