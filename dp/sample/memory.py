"""What a model remembers beside its parameters and buffers: numbers, tensors, arrays and containers of them that its
modules hold as plain attributes.

A model that takes a scale, a mean or a vocabulary from the batches that it sees mixes their examples, later in another
batch too, where no check of one batch finds it. What a pass writes is refused by name, unless every first pass writes
the same (a cache that follows from constants). Objects of other kinds, closures and module-level variables are out of
reach.
"""

import copy
import math
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

Memory = dict[tuple[str, str], Any]
"""Values by the module's name and the attribute's."""
_OWN = frozenset(vars(nn.Module())) | {"activations", "max_batch_len"}
"""Torch's own attributes of a module, and those that Opacus' hooks leave."""
_PLAIN = bool | int | float | complex | np.generic | np.ndarray | torch.Tensor | None
_ABSENT = object()


def remembered(model: nn.Module) -> Memory:
    """Copies of what the modules hold."""
    return {key: copied(value) for key, value in _held(model)}


def written(model: nn.Module, before: Memory, constant: Memory) -> str | None:
    """The first attribute that is not as it was before and not as the constants are, or None."""
    now = dict(_held(model))
    for key in [*now, *before]:
        value = now.get(key, _ABSENT)
        if not any(same(value, memory.get(key, _ABSENT)) for memory in (before, constant)):
            return ".".join(part for part in key if part)
    return None


def put_back(model: nn.Module, before: Memory, objects: bool = True) -> None:
    """Give the modules what they held. objects: where an object of another kind stands in its place, too; not within a
    pass, which may go on by it (a module's Trainer).
    """
    modules = dict(model.named_modules())
    for name, attribute in dict(_held(model)).keys() - before.keys():
        delattr(modules[name], attribute)
    for (name, attribute), value in before.items():
        now = vars(modules[name]).get(attribute, _ABSENT)
        if not same(now, value) and (objects or now is _ABSENT or _plain(now)):
            setattr(modules[name], attribute, copied(value))


def forgets(name: str) -> str:
    """Why an attribute that a pass writes stops a round."""
    return (
        f"{name} is an attribute of the model that a batch writes: what it remembers of one batch (a running "
        "statistic, a largest value, a count of calls) changes the gradients of others, and nothing clips or noises "
        "that. Take such constants from public data before training, and keep nothing between batches"
    )


def _held(model: nn.Module) -> Iterator[tuple[tuple[str, str], Any]]:
    for name, module in model.named_modules():
        for attribute, value in list(vars(module).items()):
            if attribute not in _OWN and not isinstance(value, str) and _plain(value):
                yield (name, attribute), value


def _plain(value: Any) -> bool:
    """Whether it is a value, or a container of values and names alone; parameters are the optimizer's."""
    if isinstance(value, Mapping):
        return all(_plain(each) for each in value.values())
    if isinstance(value, list | tuple | set | frozenset | deque):
        return all(_plain(each) for each in value)
    return isinstance(value, _PLAIN | str) and not isinstance(value, nn.Parameter)


def copied(value: Any) -> Any:
    """The same values in containers and arrays of their own; what is none of either as it is."""
    if not _plain(value):
        return value
    leaves = torch.utils._pytree.tree_leaves(value)
    return copy.deepcopy(value, {id(t): t.detach().clone() for t in leaves if isinstance(t, torch.Tensor)})


def same(one: Any, other: Any) -> bool:
    """Whether two values have the same type and every bit alike (NaN equals NaN), containers entry by entry."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        alike = one.shape == other.shape and one.dtype == other.dtype and one.device == other.device
        return alike and bool(torch.equal(one, other) or torch.equal(_bits(one), _bits(other)))
    if type(one) is not type(other):
        return False
    if isinstance(one, Mapping):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple | deque):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, np.ndarray):
        return bool(
            one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
        )
    return bool(one == other) or (isinstance(one, float) and math.isnan(one) and math.isnan(float(other)))


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8) if tensor.numel() else tensor
