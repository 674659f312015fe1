"""The client's local computation: the user's train function, called with what it asks for by name.

What does not belong here: privacy; layers wrap this computation through their `local` hook.
"""

import inspect
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, cast

import torch

from fl.schedules import Following
from fl.tensors.clone import clone
from protocols.errors import Misuse, require
from protocols.layers import LocalTask

CHANGES_GRADIENTS = {"clip_grad_norm_", "clip_grad_value_", "GradScaler"}
OFFERED = ("model", "loader", "optimizer", "criterion", "device", "epoch", "round", "rounds", "scheduler")


class TrainFunction:
    """The user's `train(model, loader, optimizer[, criterion, device, epoch, round, rounds, scheduler])`, arguments
    found by name; rounds: how many the run plans; scheduler: the loop steps it. unsaid: what
    nobody chose for the run: where the function has a default of its own for it, that stays.

    Raises Misuse for a required argument of another name, or where it takes neither model nor loader.
    """

    def __init__(self, function: Callable[..., Any], unsaid: Collection[str] = ()) -> None:
        self.function = function
        self.name = _name(function)
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            raise Misuse(
                f"train: expected a function whose arguments can be read, got {self.name}; give it as "
                "def train(model, loader, optimizer)"
            ) from None
        self.takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
        self.names = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        required = {p.name for p in parameters if p.default is p.empty and p.name in self.names}
        self.kept = (self.names - required) & set(unsaid)
        unknown = sorted(required - set(OFFERED))
        if unknown or not self.takes("model") or not self.takes("loader"):
            raise Misuse(
                f"{self.name} asks for {', '.join(unknown) or 'no model or no loader'}; a train function "
                f"takes its arguments by name out of {', '.join(OFFERED)}, model and loader among them"
            )

    def takes(self, name: str) -> bool:
        return self.takes_all or name in self.names

    @property
    def steps_schedule(self) -> bool:
        """Whether the loop steps the schedule itself."""
        return "scheduler" in self.names - self.kept

    def demand(self, owned: Mapping[str, str]) -> None:
        """Raises Misuse if something that a layer or strategy must own is not an argument. owned: argument
        -> owner.
        """
        for argument, owner in owned.items():
            if argument not in self.names:  # **rest takes it too, and may well leave it there
                instead = getattr(self.function, "own_steps", "") or (
                    f"it would build its own and {owner} would have no effect. Add an argument named {argument} to "
                    f"{self.name} and use it"
                )
                raise Misuse(f"{owner} must own the {argument}, but {self.name} does not take one: {instead}")

    def demand_private(self, owner: str) -> None:
        """Raises Misuse where an adapter knows what `owner`, which draws the batches, would leave undone, or where a
        loop changes gradients, whose rows are clipped and summed as they were before that.
        """
        check = getattr(self.function, "private", None)
        if check is not None:
            check(owner)
        elif found := sorted(CHANGES_GRADIENTS & names_in(self.function)):
            raise Misuse(
                f"{self.name} uses {found[0]}, and {owner} clips every example's own gradient before that: it would "
                "have no effect, or a wrong one; leave it out of the loop"
            )

    def __call__(self, offered: Mapping[str, Any]) -> dict[str, float]:
        given = {k: v for k, v in offered.items() if self.takes(k) and k not in self.kept}
        returned = self.function(**given)
        if returned is None:
            return {}
        if not isinstance(returned, Mapping):
            raise Misuse(
                f"{self.name} returned {type(returned).__name__}; expected a dict of floats, or None"
            )
        if arrays := [k for k, v in returned.items() if math.prod(getattr(v, "shape", ())) > 1]:
            raise Misuse(
                f"{self.name} returned arrays ({arrays[0]!r}): it trains the model that it is given, in place, and "
                "returns a dict of floats, or None"
            )
        return {str(k): float(v) for k, v in returned.items() if _is_number(v)}


def names_in(function: Any) -> set[str]:
    """The names that a loop uses, in functions of its own module that it calls too."""
    names, left, seen = set[str](), [inspect.unwrap(getattr(function, "func", function))], set[int]()
    while left:
        at = left.pop()
        at = getattr(at, "__func__", at)
        if not inspect.isfunction(at) or id(at) in seen:
            continue
        seen.add(id(at))
        codes = [at.__code__]
        while codes:
            code = codes.pop()
            names |= {*code.co_names, *code.co_freevars}
            codes += [constant for constant in code.co_consts if inspect.iscode(constant)]
        outer = at.__globals__ | dict(inspect.getclosurevars(at).nonlocals)
        used = [outer[name] for name in names if name in outer]
        names |= {type(value).__name__ for value in used}
        left += [value for value in used if getattr(value, "__module__", None) == at.__module__]
    return names


def by_name(
    name: str, function: Any, offered: tuple[str, ...], unsaid: Collection[str] = ()
) -> Callable[..., Any]:
    """Return a function of all that is offered, in order, that calls `function` with what it takes, found by name; one
    whose arguments cannot be told apart by name (`*rest`, a function written in C) is called in that order. unsaid: as
    in `TrainFunction`.

    Raises Misuse for one that asks for something else.
    """
    require(callable(function), f"a function of {', '.join(offered)}", type(function).__name__, name)
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return cast(Callable[..., Any], function)
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters) and not named:
        return cast(Callable[..., Any], function)
    if other := [p.name for p in parameters if p.default is p.empty and p in named and p.name not in offered]:
        raise Misuse(
            f"{name}: {_name(function)} asks for {', '.join(other)}; its arguments are found by name, out of "
            f"{', '.join(offered)}: call them so"
        )
    takes = {p.name for p in named if p.default is p.empty or p.name not in unsaid}
    everything = any(p.kind is p.VAR_KEYWORD for p in parameters)

    def call(*given: Any) -> Any:
        pairs = zip(offered, given, strict=True)
        return function(**{key: value for key, value in pairs if everything or key in takes})

    return call


def _name(function: Any) -> str:
    inner = getattr(function, "func", function)  # what a functools.partial wraps
    return str(getattr(inner, "__name__", type(inner).__name__))


def _is_number(value: Any) -> bool:
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def run_epochs(
    function: TrainFunction, round: int, rounds: int, schedule: Following, optimizer: Any
) -> Callable[[LocalTask], dict[str, float]]:
    """Return what a task's `run` does: the train function once per local epoch, the schedule's next epoch between two
    of them; the last epoch's metrics. optimizer: whose step sizes the schedule sets.
    """

    def run(task: LocalTask) -> dict[str, float]:
        metrics: dict[str, float] = {}
        schedule.begin(optimizer)
        for epoch in range(task.epochs):
            if epoch:
                schedule.next_epoch()
            offered = {
                "model": task.model,
                "loader": task.loader,
                "optimizer": task.optimizer,
                "criterion": task.criterion,
                "device": task.device,
                "epoch": epoch,
                "round": round,
                "rounds": rounds,
                "scheduler": schedule,
            }
            metrics = function(offered)
        return metrics

    return run


def fresh_model(template: torch.nn.Module, state: Mapping[str, Any], device: Any) -> torch.nn.Module:
    """Return a copy of the template with the broadcast weights, in training mode."""
    return clone(template, state, device).train()
