"""The same through Flower's SecAgg+ workflow and client mod; seconds per round go to `times`."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context
from flwr.client import NumPyClient
from flwr.client.mod import secaggplus_mod
from flwr.clientapp import ClientApp
from flwr.common import ndarrays_to_parameters
from flwr.server import ServerConfig
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.strategy import FedAvg
from flwr.server.workflow import DefaultWorkflow, SecAggPlusWorkflow
from flwr.serverapp import Grid, ServerApp


class Client(NumPyClient):
    def fit(self, parameters: Any, config: Any) -> tuple[list[Any], int, dict[str, Any]]:
        generator = np.random.default_rng()
        return [(a + generator.normal(0, 0.01, a.shape)).astype(a.dtype) for a in parameters], 10, {}


client = ClientApp(client_fn=lambda context: Client().to_client(), mods=[secaggplus_mod])
server = ServerApp()


@server.main()
def main(grid: Grid, context: Context) -> None:
    nodes, rounds = int(context.run_config["nodes"]), int(context.run_config["rounds"])
    size, path = int(context.run_config["size"]), Path(str(context.run_config["times"]))
    start = ndarrays_to_parameters([np.zeros(size, np.float32)])
    strategy = FedAvg(
        fraction_evaluate=0.0,
        min_fit_clients=nodes,
        min_available_clients=nodes,
        min_evaluate_clients=0,
        initial_parameters=start,
    )
    legacy = LegacyContext(context=context, config=ServerConfig(num_rounds=rounds), strategy=strategy)
    secure = SecAggPlusWorkflow(num_shares=nodes, reconstruction_threshold=2, timeout=300.0)
    seconds: list[float] = []

    def timed(inner: Grid, given: Any) -> None:
        began = time.perf_counter()
        secure(inner, given)
        seconds.append(time.perf_counter() - began)

    DefaultWorkflow(fit_workflow=timed)(grid, legacy)
    path.write_text(json.dumps([{"seconds": s, "trips": 4} for s in seconds]))
