"""The app of `client` under the default SecAggPlus(), averaged; seconds per round go to `times`."""

import json
import time
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fl.flower.arrays import arrays_of
from fl.flower.mod import private_app
from fl.flower.strategy import PrivateStrategy
from secagg import SecAggPlus


def layers() -> list[SecAggPlus]:
    return [SecAggPlus()]


client = private_app("ours.client:app", layers())
server = ServerApp()


@server.main()
def main(grid: Grid, context: Context) -> None:
    nodes, path = int(context.run_config["nodes"]), Path(str(context.run_config["times"]))
    plain = FedAvg(fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes)
    private = PrivateStrategy(plain, layers(), stage_timeout=300.0)
    moments: list[float] = []

    def after(number: int, arrays: ArrayRecord) -> None:
        moments.append(time.perf_counter())

    start = {"w": np.zeros(int(context.run_config["size"]), np.float32)}
    private.start(grid, arrays_of(start), num_rounds=int(context.run_config["rounds"]), evaluate_fn=after)
    rounds = [
        {
            "seconds": b - a,
            "abandoned": r.abandoned,
            "trips": len(r.trips),
            **{part: sum(getattr(t, part) for t in r.trips) for part in ("node", "server", "waiting")},
        }
        for a, b, r in zip(moments, moments[1:], private.history, strict=False)
    ]
    path.write_text(json.dumps(rounds))
