"""An existing Flower app made private by two lines: the mod in the ClientApp, the wrapper around the strategy.

Run it in Flower's simulation: python examples/flower/wrapped.py
"""

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from fl.flower.mod import privacy_mod
from fl.flower.strategy import PrivateStrategy
from secagg import SecAggPlus

NODES, ROUNDS = 4, 2

client = ClientApp(mods=[privacy_mod([SecAggPlus()])])  # the first line


@client.train()
def train(message: Message, context: Context) -> Message:
    """One step towards this node's own target; the app neither knows nor cares that it runs privately."""
    node = int(context.node_config["partition-id"])
    weights = message.content.array_records["arrays"]["weights"].numpy()
    moved = weights + 0.5 * (np.full(8, float(node), np.float32) - weights)
    arrays, metrics = ArrayRecord({"weights": Array(moved)}), MetricRecord({"num-examples": 10 * (node + 1)})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


server = ServerApp()


@server.main()
def main(grid: Grid, context: Context) -> None:
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=NODES, min_available_nodes=NODES)
    private = PrivateStrategy(strategy, privacy=[SecAggPlus()])  # the second line
    start = ArrayRecord({"weights": Array(np.zeros(8, np.float32))})
    result = private.start(grid, start, num_rounds=ROUNDS)
    print(private.statement().describe())
    print("average", result.arrays["weights"].numpy())


if __name__ == "__main__":
    resources = {"init_args": {"num_cpus": 2}, "client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    run_simulation(server, client, num_supernodes=NODES, backend_config=resources)
