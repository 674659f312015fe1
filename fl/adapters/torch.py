"""A torch loop as it stands: a module, an optimizer and a scheduler that exist already, as a Federation.

What does not belong here: anything that `Federation` does with factories; this makes them of what is there.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch

from fl.adapters.optimizers import again, following
from fl.federation import Federation
from fl.federation_setup import Loaders
from protocols.errors import Misuse


def from_torch(
    model: torch.nn.Module,
    train: Callable[..., Any],
    clients: Loaders,
    optimizer: torch.optim.Optimizer,
    scheduler: Any = None,
    **options: Any,
) -> Federation:
    """Return a federation around a module, its optimizer and its loop; `result.model` is the trained module.

    model: where the run begins; it stays as it is, every client trains a copy. train: `train(model, loader,
    optimizer[, criterion, device, epoch, round])` as in `Federation`, once per local epoch. clients: loaders by name,
    as in `Federation`. optimizer: of the model's parameters; every client's, every round, is a copy of it. scheduler:
    of that optimizer, stepped after every local epoch of the run (`scheduler_per="round"`: every round), or None.
    options: of `Federation`.

    Raises Misuse for an optimizer of other parameters, a scheduler of another optimizer, and as `Federation` does.

        federation = from_torch(model, train, {"a": one, "b": other}, optimizer, scheduler, privacy=[SecAgg()])
    """
    if not isinstance(model, torch.nn.Module):
        raise Misuse(f"model: expected a torch module, got {type(model).__name__}")
    held = {id(p) for group in getattr(optimizer, "param_groups", []) for p in group["params"]}
    if not held or held - {id(p) for p in model.parameters()}:
        raise Misuse(f"optimizer: expected one of the model's parameters, got {type(optimizer).__name__}")
    given: dict[str, Any] = {"device": str(next(model.parameters()).device), **options}
    if scheduler is not None:
        given["scheduler"] = following(scheduler, optimizer)
    made = again(deepcopy(optimizer, {id(p): p for p in model.parameters()}), model.parameters())
    return Federation(lambda: deepcopy(model), clients, train, optimizer=made, **given)
