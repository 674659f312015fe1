"""The training and evaluation loops used where the user gives none: classification with torch."""

from collections.abc import Callable
from typing import Any

import torch

Evaluate = Callable[..., dict[str, float]]


def train_one_epoch(
    model: torch.nn.Module, loader: Any, optimizer: Any, criterion: Any, device: Any = "cpu"
) -> dict[str, float]:
    """One pass over the loader; returns mean loss and accuracy over its examples."""
    total = correct = seen = 0.0
    for inputs, labels in loader:
        inputs, labels = inputs.to(device), labels.to(device)
        optimizer.zero_grad()
        logits = model(inputs)
        loss = criterion(logits, labels)
        loss.backward()
        optimizer.step()
        total += float(loss.detach()) * len(labels)
        correct += float((logits.detach().argmax(1) == labels).sum())
        seen += len(labels)
    return {"loss": total / seen, "accuracy": correct / seen} if seen else {}


@torch.no_grad()
def evaluate(model: torch.nn.Module, loader: Any, criterion: Any, device: Any = "cpu") -> dict[str, float]:
    """Mean loss and accuracy of a classifier over a loader; the model is left in training mode."""
    model.eval()
    total = correct = seen = 0.0
    for inputs, labels in loader:
        inputs, labels = inputs.to(device), labels.to(device)
        logits = model(inputs)
        total += float(criterion(logits, labels)) * len(labels)
        correct += float((logits.argmax(1) == labels).sum())
        seen += len(labels)
    model.train()
    return {"loss": total / seen, "accuracy": correct / seen} if seen else {}
