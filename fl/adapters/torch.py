"""A torch loop as it stands: a module, an optimizer and a scheduler that exist already, as a Federation.

What does not belong here: anything that `Federation` does with factories; this makes them of what is there.
"""

import dis
import inspect
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch

from fl import arguments
from fl.adapters.optimizers import again, following
from fl.federation import Federation
from fl.federation_setup import Loaders
from protocols.errors import Misuse, require


def from_torch(
    model: torch.nn.Module,
    train: Callable[..., Any],
    clients: Loaders,
    optimizer: torch.optim.Optimizer,
    scheduler: Any = None,
    **options: Any,
) -> Federation:
    """Return a federation around a module, its optimizer and its loop; `result.model` is the trained module.

    - model: where the run begins. It stays as it is, and every client trains a copy.
    - train: `train(model, loader, optimizer[, criterion, device, epoch, round])` as `Federation` takes it, called
      once per local epoch.
    - clients: loaders by name, as `Federation` takes them.
    - optimizer: of the model's parameters; every client has a copy of it in every round.
    - scheduler: of that optimizer, stepped after every local epoch of the run, or as `scheduler_per=` says
      (default: None).
    - options: of `Federation`.

    Raises Misuse for an optimizer of other parameters, a scheduler of another optimizer, a loop that uses the outer
    model, and what `Federation` raises.

        federation = from_torch(model, train, {"a": one, "b": other, "c": third}, optimizer, privacy=[SecAgg()])
        trained = federation.fit(rounds=10).model
    """
    arguments.instance("model", model, torch.nn.Module, "a torch module")
    arguments.no_class("optimizer", optimizer)
    arguments.no_class("scheduler", scheduler)
    require(callable(train), "a function train(model, loader, optimizer)", type(train).__name__, "train")
    if isinstance(optimizer, list | tuple):
        raise Misuse(
            "optimizer: a loop with several of them builds them itself, inside train: Federation(train=...)"
        )
    _require_own(train, {"model": model, "optimizer": optimizer, "scheduler": scheduler})
    held = {id(p) for group in getattr(optimizer, "param_groups", []) for p in group["params"]}
    if not held or held - {id(p) for p in model.parameters()}:
        raise Misuse(f"optimizer: expected one of the model's parameters, got {type(optimizer).__name__}")
    given: dict[str, Any] = {"device": str(next(model.parameters()).device), **options}
    if scheduler is not None:
        given["scheduler"] = following(scheduler, optimizer)
    made = again(optimizer, model.parameters())
    return Federation(lambda: deepcopy(model), clients, train, optimizer=made, **given)


def _require_own(train: Any, held: dict[str, Any]) -> None:
    """Raises Misuse for a loop that reads the outer model, optimizer or scheduler: it would not train its copy."""
    function = inspect.unwrap(getattr(train, "func", train))
    code = getattr(function, "__code__", None)
    if code is None:
        return
    read = {line.argval for line in dis.get_instructions(code) if line.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    outer = {name: function.__globals__[name] for name in read if name in function.__globals__}
    outer |= inspect.getclosurevars(function).nonlocals
    for name, value in outer.items():
        for argument, mine in held.items():
            if mine is not None and value is mine:
                raise Misuse(
                    f"train: {function.__name__} uses {name!r} from outside, and every client trains a copy of it: "
                    f"take it as the argument {argument!r}"
                )
