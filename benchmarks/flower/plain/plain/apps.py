"""A model that does not train, averaged without privacy, written as the framework's template is: torch is imported.

Seconds per round go to `times`.
"""

import itertools
import json
import time
from pathlib import Path

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

client = ClientApp()
server = ServerApp()


@client.train()
def train(message: Message, context: Context) -> Message:
    state = message.content.array_records["arrays"].to_torch_state_dict()
    moved = {name: tensor + 0.01 * torch.randn_like(tensor) for name, tensor in state.items()}
    content = RecordDict({"arrays": ArrayRecord(moved), "metrics": MetricRecord({"num-examples": 10})})
    return Message(content, reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    nodes, path = int(context.run_config["nodes"]), Path(str(context.run_config["times"]))
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes)
    moments: list[float] = []

    def after(number: int, arrays: ArrayRecord) -> None:
        moments.append(time.perf_counter())

    start = ArrayRecord({"w": torch.zeros(int(context.run_config["size"]))})
    strategy.start(grid, start, num_rounds=int(context.run_config["rounds"]), evaluate_fn=after)
    rounds = [{"seconds": b - a, "trips": 1} for a, b in itertools.pairwise(moments)]
    path.write_text(json.dumps(rounds))
