"""The client: a numpy 'model', and a hook outside the privacy mod that waits, answers twice or fails on demand.

What it is asked and what it answers is in `NODE/app.jsonl`, a line before and a line after.

`NODE/at-STAGE` (made by the test) says: stop there. Then `NODE/reached-STAGE` is made and the process waits to be
killed, paused, or let go on by removing the first file. "answered-STAGE" stops after the answer was computed and saved.
"""

import hashlib
import json
import time
from pathlib import Path

import numpy as np
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from fl.flower.arrays import arrays_of, tree_of
from fl.flower.messages import pack, unpack_answer, unpack_request
from fl.flower.mod import privacy_mod
from fl.network.messages import START, Request
from protocols.identity import Identity

from .layers import layers

UPDATE = [""]
"""The digest of what was trained for the message that is answered."""


def hold(folder: Path, moment: str) -> None:
    if (folder / f"at-{moment}").exists():
        (folder / f"reached-{moment}").touch()
        while (folder / f"at-{moment}").exists():
            time.sleep(0.05)


def note(folder: Path, request: Request, answered: bool | None) -> None:
    """answered: None before the request is handed on. round: of a session's first request, else 0."""
    number = request.header.terms.number if request.header and request.kind == START else 0
    facts = {"stage": request.stage, "context": request.context.hex(), "round": number, "answered": answered}
    with (folder / "app.jsonl").open("a") as log:
        log.write(json.dumps({**facts, "update": UPDATE[0], "processor": time.process_time()}) + "\n")


def faults(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    folder = Path(str(context.node_config["secagg-site"]))
    request = unpack_request(message.content, None)[0]
    stage, UPDATE[0] = request.stage, ""
    note(folder, request, None)
    with (folder / "stages.log").open("a") as log:
        log.write(f"{stage}\n")
    hold(folder, stage)
    if (folder / f"fail-{stage}").exists():
        raise RuntimeError("failing on demand")
    reply = call_next(message, context)
    note(folder, request, not reply.has_error())
    hold(folder, f"answered-{stage}")
    if (folder / f"twice-{stage}").exists():
        answer, frames = unpack_answer(reply.content, None)
        reply.content = pack(answer, [*frames, *frames], Identity.load(folder / f"{folder.name}.key"))
    return reply


def watched(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Behind the privacy mod: what is trained, before it is protected."""
    reply = call_next(message, context)
    tree = tree_of(reply.content.array_records["arrays"])
    UPDATE[0] = hashlib.sha256(b"".join(tree[name].tobytes() for name in sorted(tree))).hexdigest()
    return reply


def chosen(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    return privacy_mod(layers(str(context.run_config["privacy"])))(message, context, call_next)


app = ClientApp()


@app.train(mods=[faults, chosen, watched])
def train(message: Message, context: Context) -> Message:
    node = int(context.node_config["partition-id"])
    tree = tree_of(message.content.array_records["arrays"])
    # the same update for the same model and round, as a careful user seeds it: a second request for it is refused
    number = int(message.content.config_records["config"]["server-round"])
    generator = np.random.default_rng([node, number])
    moved = {name: (a + generator.normal(0, 0.1, a.shape)).astype(a.dtype) for name, a in tree.items()}
    metrics = MetricRecord({"num-examples": 10 + node, "loss": 0.5})
    return Message(RecordDict({"arrays": arrays_of(moved), "metrics": metrics}), reply_to=message)
