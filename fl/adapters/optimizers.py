"""A template's optimizer, made again for a copy of its model, and the scheduler that follows it.

What does not belong here: whoever made the template.
"""

from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

from torch.optim.lr_scheduler import LambdaLR

from fl.schedules import followed
from protocols.errors import Misuse

Factory = Callable[[Iterable[Any]], Any]


def again(optimizer: Any, parameters: Iterable[Any]) -> Factory:
    """Return what makes a copy of `optimizer` as it is now, groups, numbers and all, for the parameters of another
    model, in the order of `parameters`, which are those of the optimizer's own model.
    """
    own = list(parameters)
    kept = _copied(optimizer, {id(mine): mine for mine in own})

    def make(others: Iterable[Any]) -> Any:
        return _copied(kept, {id(mine): other for mine, other in zip(own, others, strict=True)})

    return make


def _copied(optimizer: Any, memo: dict[int, Any]) -> Any:
    """torch copies groups, state and defaults alone: what a class of its own keeps beside them comes along here. Not
    `step`, around which a scheduler puts its own.
    """
    made = deepcopy(optimizer, memo)
    beside = vars(optimizer).keys() - vars(made).keys() - {"step"}
    vars(made).update(deepcopy({name: vars(optimizer)[name] for name in beside}, memo))
    return made


def following(scheduler: Any, optimizer: Any) -> Callable[[Any], Any]:
    """Return what makes a copy of a scheduler, as it is now, for another optimizer whose rates are those of its own.

    Raises Misuse for the scheduler of another optimizer, and for one that follows a metric.
    """
    if getattr(followed(scheduler), "optimizer", None) is not optimizer:
        raise Misuse(f"scheduler: expected one of the given optimizer, got {type(scheduler).__name__}")
    hole = object()
    kept = deepcopy(scheduler, {id(optimizer): hole})

    def make(other: Any) -> Any:
        rates = [group["lr"] for group in other.param_groups]
        LambdaLR(other, lambda _: 1.0)  # torch then knows that one watches it, and does not warn
        for group, rate in zip(other.param_groups, rates, strict=True):
            group["lr"] = rate  # which a warm-up begins with, and others go on from
        return deepcopy(kept, {id(hole): other})

    return make
