"""The files of a federation's run, from torch's side: the model's file, and checkpoints that version 1 wrote.

What does not belong here: what is kept, in which order and why (`fl.round.kept`).
"""

import json
from pathlib import Path
from typing import Any

from fl.round.kept import CHECKPOINT, KeptRun, load, result_from_json
from fl.tensors import to_tree
from protocols.errors import Misuse, SecAggError
from protocols.extras import needs
from protocols.statement import PrivacyEvent

MODEL, OLD = "model.safetensors", "checkpoint.safetensors"


def model_bytes(state: dict[str, Any]) -> bytes:
    """Return a state dict as a safetensors file."""
    with needs("torch", "Saving a model"):
        from safetensors.torch import save
    # tensors that share storage are written once per name
    return save({name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()})


def rounds_in(folder: Path) -> int:
    """Return how many rounds the checkpoint in `folder` holds: 0 for a run that was cut off before its first
    ended, or where there is none. Raises SecAggError if it is damaged.
    """
    return load_run(folder).rounds if begun(folder) else 0


def begun(folder: Path) -> bool:
    """Return whether `folder` holds a checkpoint to go on from."""
    return (folder / CHECKPOINT).exists() or (folder / OLD).exists()


def load_run(folder: Path) -> KeptRun:
    """Return the run in `folder`. Raises Misuse if there is none, SecAggError if it is damaged."""
    kept = load(folder) or _load_old(folder / OLD)
    if kept is None:
        raise Misuse(f"nothing to resume in {folder}: there is no {CHECKPOINT}")
    return kept


def _load_old(path: Path) -> KeptRun | None:
    """Read what version 1 wrote: one safetensors file, the facts in its metadata."""
    if not path.exists():
        return None
    with needs("torch", "Reading a checkpoint of version 1"):
        from safetensors import SafetensorError, safe_open
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {})["run"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    except (SafetensorError, KeyError, json.JSONDecodeError, OSError) as error:
        raise SecAggError(f"{path} is not a checkpoint of this toolkit: {error}") from None
    if facts.get("version") != 1:
        raise SecAggError(f"{path}: expected a checkpoint of version 1, got {facts.get('version')!r}")
    tree, _ = to_tree(tensors)
    layers = facts["layers"]
    return KeptRun(
        [result_from_json(entry) for entry in facts["history"]],
        {n.removeprefix("model/"): a for n, a in tree.items() if n.startswith("model/")},
        {n.removeprefix("strategy/"): a for n, a in tree.items() if n.startswith("strategy/")},
        made_with=facts["facts"],
        events=tuple(PrivacyEvent(**event) for event in layers.pop("events")),
        run=layers.pop("run"),
        layers={name: held["state"] for name, held in layers.items()},
        source=path.name,
    )
