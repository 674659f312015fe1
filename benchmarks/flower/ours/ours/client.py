"""The app of `plain` as a Flower app has it: it imports torch, and knows nothing of privacy."""

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    state = message.content.array_records["arrays"].to_torch_state_dict()
    moved = {name: tensor + 0.01 * torch.randn_like(tensor) for name, tensor in state.items()}
    content = RecordDict({"arrays": ArrayRecord(moved), "metrics": MetricRecord({"num-examples": 10})})
    return Message(content, reply_to=message)
