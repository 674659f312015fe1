"""A model that does not train, averaged under SecAggPlus(setup="reuse"); seconds per round go to `times`."""

import json
import time
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fl.flower.arrays import arrays_of, tree_of
from fl.flower.mod import privacy_mod
from fl.flower.strategy import PrivateStrategy
from secagg import SecAggPlus


def layers() -> list[SecAggPlus]:
    return [SecAggPlus(setup="reuse", threat="semi-honest", dropout=0.3, collusion=0.0)]


client = ClientApp(mods=[privacy_mod(layers())])


@client.train()
def train(message: Message, context: Context) -> Message:
    tree = tree_of(message.content.array_records["arrays"])
    generator = np.random.default_rng()
    moved = {name: (a + generator.normal(0, 0.01, a.shape)).astype(a.dtype) for name, a in tree.items()}
    content = RecordDict({"arrays": arrays_of(moved), "metrics": MetricRecord({"num-examples": 10})})
    return Message(content, reply_to=message)


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
