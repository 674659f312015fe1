"""What a run keeps on disk, so that a killed one goes on: one checkpoint file, replaced whole, from which
all others follow.

Files of a run's folder: checkpoint.safetensors (the truth: model, strategy's vectors, history, layers'
state), model.safetensors, metrics.jsonl, statement.json, config.toml, record.jsonl. Everything but the
record is rewritten from the checkpoint when a run is resumed.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from fl.round import RoundResult
from protocols.errors import Misuse, SecAggError
from protocols.extras import needs
from protocols.guarantee import price_from_json, price_to_json
from protocols.store import write_atomic

CHECKPOINT, MODEL, METRICS, STATEMENT, CONFIG = (
    "checkpoint.safetensors",
    "model.safetensors",
    "metrics.jsonl",
    "statement.json",
    "config.toml",
)
VERSION = 1


def save_tensors(path: Path, tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> None:
    """Write torch tensors as one safetensors file, atomically. Raises StoreError (the old file is whole)."""
    with needs("torch", "Saving a model"):
        from safetensors.torch import save
    # tensors that share storage are written once per name
    plain = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    write_atomic(path, save(plain, dict(metadata or {})), 0o644)


def save(
    folder: Path,
    model: Mapping[str, Any],
    strategy: Mapping[str, np.ndarray],
    layers: Mapping[str, Any],
    history: list[RoundResult],
    facts: Mapping[str, Any],
) -> None:
    """Replace the checkpoint. facts: further JSON values (planned rounds, seed) that a resumed run must
    agree with.
    """
    import torch

    tensors = {f"model/{name}": value for name, value in model.items()}
    tensors |= {f"strategy/{name}": torch.from_numpy(np.array(v)) for name, v in strategy.items()}
    metadata = {
        "version": VERSION,
        "layers": dict(layers),
        "history": [asdict(result) | {"epsilon": price_to_json(result.epsilon)} for result in history],
        "facts": dict(facts),
    }
    save_tensors(folder / CHECKPOINT, tensors, {"run": json.dumps(metadata)})


def rounds_in(folder: Path) -> int:
    """Return how many rounds the checkpoint in `folder` holds: 0 for a run that was cut off before its first
    ended, or where there is none. Raises SecAggError if it is damaged.
    """
    return len(load(folder)[3]) if (folder / CHECKPOINT).exists() else 0


def load(
    folder: Path,
) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, Any], list[RoundResult], dict[str, Any]]:
    """Inverse of save: model, strategy, layers, history, facts. Raises Misuse if there is none, SecAggError
    if it is damaged.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        raise Misuse(f"nothing to resume in {folder}: there is no {CHECKPOINT}")
    with needs("torch", "Resuming a run"):
        from safetensors import SafetensorError, safe_open
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {})["run"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    except (SafetensorError, KeyError, json.JSONDecodeError, OSError) as error:
        raise SecAggError(f"{path} is not a checkpoint of this toolkit: {error}") from None
    if metadata.get("version") != VERSION:
        raise SecAggError(
            f"{path}: expected a checkpoint of version {VERSION}, got {metadata.get('version')!r}"
        )
    model = {n.removeprefix("model/"): t for n, t in tensors.items() if n.startswith("model/")}
    strategy = {
        n.removeprefix("strategy/"): t.numpy() for n, t in tensors.items() if n.startswith("strategy/")
    }
    history = [_result(entry) for entry in metadata["history"]]
    return model, strategy, metadata["layers"], history, metadata["facts"]


def _result(entry: dict[str, Any]) -> RoundResult:
    known = {f.name for f in fields(RoundResult)}
    entry = {k: v for k, v in entry.items() if k in known}
    entry["epsilon"] = price_from_json(entry.get("epsilon"))
    return RoundResult(**{**entry, "asked": tuple(entry["asked"]), "survivors": tuple(entry["survivors"])})


def metrics_line(result: RoundResult) -> dict[str, Any]:
    """Return one round as a JSON object of metrics.jsonl."""
    return {
        "round": result.number,
        **result.metrics,
        "train": result.train_metrics,
        "asked": len(result.asked),
        "survivors": len(result.survivors),
        "bytes_up_per_client": result.bytes_up_per_client,
        "bytes_down_per_client": result.bytes_down_per_client,
        "seconds": result.seconds,
        "clipped_share": result.clipped_share,
        "weights_capped": result.weights_capped,
        "epsilon": price_to_json(result.epsilon),
        "abandoned": result.abandoned,
    }


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: null stands for them."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_metrics(folder: Path, history: list[RoundResult]) -> None:
    """Replace metrics.jsonl: a JSON object per round."""
    text = "".join(json.dumps(_finite(metrics_line(result)), allow_nan=False) + "\n" for result in history)
    write_atomic(folder / METRICS, text.encode(), 0o644)
