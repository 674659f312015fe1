"""NVFlare's homomorphic aggregation (CKKS), its filters and aggregator as they are, under audit.

pip install "nvflare>=2.9,<2.10" "protobuf<7" "tenseal<0.4"; cd examples; secagg audit audit_nvflare:factory

Keys are made by its own provisioning, updates go through its serialiser (FOBS). What the server sums is decrypted by
a client, as in its workflow; who does not answer is not in the sum.
"""

import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReservedKey
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_opt.he.intime_accumulate_model_aggregator import HEInTimeAccumulateWeightedAggregator
from nvflare.app_opt.he.model_decryptor import HEModelDecryptor
from nvflare.app_opt.he.model_encryptor import HEModelEncryptor
from nvflare.fuel.sec.security_content_service import SecurityContentService
from nvflare.fuel.utils import fobs
from nvflare.lighter.impl.he import HEBuilder

from protocols.audit import BlackBox, Wire

STAGE, BOUND = "update", 127


def provision() -> None:
    """The keys of a project, as its provisioning makes them, where its components look for them."""
    builder, folder = HEBuilder(), Path(tempfile.mkdtemp())
    builder.initialize(None, None)
    for name, client in (("client_context.tenseal", True), ("server_context.tenseal", False)):
        (folder / name).write_bytes(builder.get_serialized_context(is_client=client))
    SecurityContentService.initialize(str(folder))


def context(name: str) -> FLContext:
    """What a component is told about the party that it works for: its name, and that this is round 0."""
    found, peer = FLContext(), FLContext()
    peer.set_prop(ReservedKey.IDENTITY_NAME, name)
    found.set_peer_context(peer)
    found.set_prop(FLContextKey.SECURE_MODE, False)
    found.set_prop(AppConstants.CURRENT_ROUND, 0, private=True, sticky=False)
    return found


def update(vector: np.ndarray, name: str) -> bytes:
    """A client's encrypted update."""
    dxo = DXO(DataKind.WEIGHT_DIFF, {"w": vector.astype(np.float64)})
    dxo.set_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND, 1)
    encryptor, here = HEModelEncryptor(), context(name)
    encryptor.handle_event(EventType.START_RUN, here)
    made: bytes = fobs.dumps(encryptor.process(dxo.to_shareable(), here))
    return made


def run(inputs: Any, drop: Any, tamper: Any = None) -> tuple[Any, Any]:
    """One round: the total that came out (None if none did), and everything the server sent and received."""
    logging.disable(logging.CRITICAL)
    wire, n = Wire(drop, tamper, once=True), len(inputs)
    aggregator, server = HEInTimeAccumulateWeightedAggregator(), context("server")
    aggregator.handle_event(EventType.START_RUN, server)
    came = wire.trip(STAGE, dict.fromkeys(range(n), b""), lambda i, _: update(inputs[i], f"site-{i}"))
    for i, body in came:
        shareable = fobs.loads(body)
        shareable.set_peer_props({ReservedKey.IDENTITY_NAME: f"site-{i}"})
        shareable.add_cookie(AppConstants.CONTRIBUTION_ROUND, 0)
        aggregator.accept(shareable, server)
    if not came:
        return None, wire.transcript
    summed = fobs.dumps(aggregator.aggregate(server))
    stayed = [f"client {i}" for i in range(n) if i not in wire.gone]
    arrived = [body for name in stayed for _, _, body in wire.carry("total", ("server", name, summed))]
    if not arrived:
        return None, wire.transcript
    average = from_shareable(HEModelDecryptor().process(fobs.loads(arrived[0]), context("site-0"))).data["w"]
    return np.rint(np.array(average) * len(came)).astype(np.int64), wire.transcript


def tolerated(clients: int, drop: Any) -> bool:
    """Whoever answers is summed."""
    return sum(len(who) for who in drop.values()) < clients


def factory() -> BlackBox:
    """What `secagg audit` asks for."""
    provision()
    return BlackBox(
        run, name="NVFlare's homomorphic aggregation", stages=(STAGE,), counting=STAGE, bound=BOUND,
        clients=(3, 5), tolerated=tolerated,
    )  # fmt: skip
