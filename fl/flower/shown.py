"""What a strategy's training messages show to the nodes: one model, one configuration, and nothing else.

What belongs here: reading them, and refusing what a protected round would not carry. What does not: rounds (`server`).
"""

from collections.abc import Sequence

from flwr.app import ArrayRecord, ConfigRecord, Message

from fl.flower.sender import Shape
from protocols.errors import Misuse

TRAIN = "train"


def shown(messages: Sequence[Message], keys: Shape) -> tuple[ArrayRecord, ConfigRecord | None]:
    """Return the model and the configuration that all nodes of a round are sent.

    Raises Misuse for messages of another type than "train", for a record besides the model and the configuration, and
    where nodes are sent different ones or one node two of them.
    """
    for message in messages:
        _check(message, keys)
    nodes = [m.metadata.dst_node_id for m in messages]
    if twice := sorted({node for node in nodes if nodes.count(node) > 1}):
        raise Misuse(
            f"the strategy sends two messages to node {twice[0]} in one round: expected one per node"
        )
    models = [m.content.array_records[keys.arrays] for m in messages]
    configs = [m.content.config_records.get(keys.config) for m in messages]
    if any(model != models[0] for model in models) or any(config != configs[0] for config in configs):
        raise Misuse("the strategy must send every node of a round the same model and configuration")
    return models[0], configs[0]


def _check(message: Message, keys: Shape) -> None:
    if (kind := message.metadata.message_type) != TRAIN:
        raise Misuse(
            f"the strategy sends a message of type {kind!r} in a training round: a protected round runs the apps' "
            f"{TRAIN!r} function alone, so send it as {TRAIN!r}"
        )
    expected = {keys.arrays: ArrayRecord, keys.config: ConfigRecord}
    for name, record in message.content.items():
        if not isinstance(record, expected.get(name, ())):
            raise Misuse(
                f"the strategy sends {name!r}, of type {type(record).__name__}: a protected round carries the "
                f"ArrayRecord {keys.arrays!r} and the ConfigRecord {keys.config!r} alone, so put it into one of these"
            )
    if keys.arrays not in message.content:
        raise Misuse(f"the strategy sends no model: expected the ArrayRecord {keys.arrays!r}")
