"""The training and evaluation loops used where the user gives none: classification with torch."""

from collections.abc import Callable
from typing import Any

import torch

from protocols.errors import Misuse

Evaluate = Callable[..., dict[str, float]]


def train_one_epoch(
    model: torch.nn.Module, loader: Any, optimizer: Any, criterion: Any, device: Any = "cpu"
) -> dict[str, float]:
    """One pass over the loader; returns mean loss and accuracy over its examples (of a text: over its characters)."""
    total = correct = seen = 0.0
    for batch in loader:
        inputs, labels = (part.to(device) for part in pair_of("train", batch))
        optimizer.zero_grad()
        logits = _fitting(model(inputs), labels)
        loss = criterion(logits, labels)
        loss.backward()
        optimizer.step()
        total += float(loss.detach()) * labels.numel()
        correct += float((logits.detach().argmax(1) == labels).sum())
        seen += labels.numel()
    return {"loss": total / seen, "accuracy": correct / seen} if seen else {}


@torch.no_grad()
def evaluate(model: torch.nn.Module, loader: Any, criterion: Any, device: Any = "cpu") -> dict[str, float]:
    """Mean loss and accuracy of a classifier over a loader; the model is left in training mode."""
    model.eval()
    total = correct = seen = 0.0
    for batch in loader:
        inputs, labels = (part.to(device) for part in pair_of("evaluate", batch))
        logits = _fitting(model(inputs), labels)
        total += float(criterion(logits, labels)) * labels.numel()
        correct += float((logits.argmax(1) == labels).sum())
        seen += labels.numel()
    model.train()
    return {"loss": total / seen, "accuracy": correct / seen} if seen else {}


def _fitting(logits: Any, labels: torch.Tensor) -> Any:
    """Return logits with a class for each label. Raises Misuse for others."""
    if logits.ndim < 2 or (logits.shape[0], *logits.shape[2:]) != tuple(labels.shape):
        raise Misuse(
            "expected a model whose outputs are logits of shape (examples, classes), with a place's number behind them "
            f"where examples are texts; it gave {tuple(logits.shape)} for labels of shape {tuple(labels.shape)}"
        )
    return logits


def pair_of(name: str, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a batch's inputs and labels. Raises Misuse for any other batch: these loops classify, and nothing else."""
    inputs, labels = tensors_of(name, batch)
    if labels.is_floating_point() or labels.ndim == 0:
        raise Misuse(
            f"the default loop classifies: it takes labels that are whole numbers, one per example, and got "
            f"{labels.dtype} of shape {tuple(labels.shape)}: make them labels.long() where they are classes, or give a "
            f"loop of your own, {name}=..., and a criterion"
        )
    return inputs, labels


def tensors_of(name: str, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a batch of two tensors. Raises Misuse, naming the argument that takes other ones, for any other batch."""
    parts = tuple(batch) if isinstance(batch, list | tuple) else ()
    if len(parts) != 2 or not all(isinstance(part, torch.Tensor) for part in parts):
        got = f"{type(batch).__name__}{f' of {len(batch)}' if isinstance(batch, list | tuple | dict) else ''}"
        raise Misuse(
            f"the default loop takes batches (inputs, labels), two tensors, and this one is a {got}: give a loop of "
            f"your own, {name}=..."
        )
    return parts[0], parts[1]
