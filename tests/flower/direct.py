"""A Grid that calls the ClientApp in this process: the real mod, strategy and stores, without Flower's transport.

Real processes are in test_flower_deployment*.py; here every order of events can be forced.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives import serialization
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.task_identity import TaskIdentity

from examples.flower.keys import make_deployment, write_site
from fl.flower.arrays import arrays_of, tree_of
from fl.flower.strategy import PrivateStrategy
from protocols.errors import NoResult
from protocols.identity import Identity, Roster, SignedRoster

Before = Callable[[int, Message], Message | None]


class DirectGrid(Grid):
    """Delivers messages when they are pushed and keeps the replies until they are pulled.

    apps: node id -> (ClientApp, node_config). before(node, message): what is delivered instead, None for nothing.
    after(node, reply): what comes back instead, None for nothing.
    """

    def __init__(
        self,
        apps: Mapping[int, tuple[ClientApp, dict[str, Any]]],
        *,
        keys: Mapping[int, bytes] | None = None,
        before: Before | None = None,
        after: Before | None = None,
    ) -> None:
        self.apps = dict(apps)
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
        self.keys = dict(keys or {})
        self.before, self.after = before, after
        self.replies: dict[str, Message] = {}
        self.trips = 0
        self.log: list[tuple[int, Message]] = []

    def get_node_ids(self) -> Iterable[int]:
        return list(self.apps)

    def get_nodes(self) -> Iterable[NodeInfo]:
        return [NodeInfo(node_id=n, public_key=self.keys.get(n, b"")) for n in self.apps]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        self.trips += 1
        ids = []
        for i, message in enumerate(messages):
            node = message.metadata.dst_node_id
            message_id = f"{self.trips}/{i}"
            message.metadata.__dict__["_message_id"] = message_id
            ids.append(message_id)
            self.log.append((node, message))
            reply = self.deliver(node, message)
            if reply is not None:
                self.replies[message_id] = reply
        return ids

    def deliver(self, node: int, message: Message) -> Message | None:
        delivered = message if self.before is None else self.before(node, message)
        if delivered is None:
            return None
        app, node_config = self.apps[node]
        context = Context(
            run_id=1, node_id=node, node_config=node_config, state=RecordDict(), run_config={}, series_id=1
        )
        copy = Message(
            RecordDict(dict(delivered.content)),
            dst_node_id=node,
            message_type=delivered.metadata.message_type,
        )
        kind = copy.metadata.message_type
        copy.metadata.__dict__.update({**message.metadata.__dict__, "_message_type": kind})
        reply = app(copy, context)
        return reply if self.after is None else self.after(node, reply)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self.replies.pop(i) for i in list(message_ids) if i in self.replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        return list(self.pull_messages(self.push_messages(messages)))

    def set_run(self, run: Any) -> None: ...

    @property
    def run(self) -> Any:
        return None

    def create_message(self, *arguments: Any, **named: Any) -> Message:
        raise AssertionError("deprecated")


def model() -> dict[str, np.ndarray]:
    return {
        "layer.weight": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4),
        "layer.bias": np.zeros(3, np.float64),
        "scale": np.array(0.5, np.float32),
        "batches": np.array(7, np.int64),
    }


def trained(node: int, start: Mapping[str, np.ndarray], round_number: int) -> dict[str, np.ndarray]:
    """A stand-in for training: a step that differs per node and round, and is the same every time."""
    generator = np.random.default_rng([node, round_number])
    moved = {}
    for name, array in start.items():
        if array.dtype.kind == "f":
            moved[name] = (array + generator.normal(0, 0.1, array.shape)).astype(array.dtype)
        else:
            moved[name] = array + 1
    return moved


def client_app(mod: Any, calls: list[int] | None = None) -> ClientApp:
    """Return an app that trains by `trained` on 10 x node examples, with `mod` before everything."""
    app = ClientApp(mods=[mod])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        if calls is not None:
            calls.append(context.node_id)
        config = message.content.config_records["config"]
        tree = trained(
            context.node_id, tree_of(message.content.array_records["arrays"]), int(config["server-round"])
        )
        metrics = {"num-examples": 10 * context.node_id, "loss": 0.25 * context.node_id}
        content = RecordDict({"arrays": arrays_of(tree), "metrics": MetricRecord(metrics)})
        return Message(content, reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        content = RecordDict({"metrics": MetricRecord({"num-examples": 5, "accuracy": 0.5})})
        return Message(content, reply_to=message)

    @app.query()
    def query(message: Message, context: Context) -> Message:
        return Message(RecordDict({"arrays": arrays_of(model())}), reply_to=message)

    return app


def rostered(
    folder: Path,
    count: int,
    mod: Any,
    *,
    policy: Mapping[str, Any] | None = None,
    strangers: int = 0,
    **hooks: Any,
) -> tuple[DirectGrid, dict[str, Any]]:
    """Return a grid of `count` nodes on a signed roster (and some that are not), and PrivateStrategy's arguments."""
    files = make_deployment(folder / "keys", count + strangers)
    for node in files.nodes:
        write_site(files, node, policy or {})
    known = files.nodes[:count]
    signed = SignedRoster.load(files.roster)
    members = [m for m in signed.roster.members if m.role == "server" or m.name in {n.name for n in known}]
    SignedRoster.sign(Roster.of("demo", 1, members), Identity.load(files.authority)).save(files.roster)
    apps, keys = {}, {}
    for node_id, node in enumerate(files.nodes, start=1):
        apps[node_id] = (client_app(mod), {"secagg-site": str(node.identity.parent)})
        keys[node_id] = pem(node.auth_public)
    arguments = {
        "folder": folder / "run",
        "roster": SignedRoster.load(files.roster),
        "authority": files.authority_key,
        "identity": Identity.load(files.server_identity),
    }
    return DirectGrid(apps, keys=keys, **hooks), arguments


def pem(openssh: Path) -> bytes:
    key = serialization.load_ssh_public_key(openssh.read_bytes())
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def play_out(strategy: PrivateStrategy, grid: Grid, *given: Any, **named: Any) -> None:
    """Run a strategy that may end without a single total: its history says why."""
    with suppress(NoResult):
        strategy.start(grid, *given, **named)


def fedavg(nodes: int, **named: Any) -> FedAvg:
    return FedAvg(fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes, **named)
