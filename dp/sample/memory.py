"""What a model and a loss remember beside parameters and buffers: whatever their modules hold as attributes.

A model that takes a scale, a mean or a vocabulary from the batches that it sees mixes their examples, later in another
batch too, where no check of one batch finds it. What a pass writes is refused by name, unless every first pass writes
the same (a cache that follows from constants). Values and words are compared in containers too, entry by entry; other
objects, modules and parameters in containers among them, and the objects behind methods, partials and hooks, must be
the same ones with the same attributes. What `MACHINERY` makes, closures, slots and module-level variables are out of
reach.
"""

import copy
import math
from collections import deque
from collections.abc import Iterator, Mapping
from functools import partial
from types import MethodType
from typing import Any

import numpy as np
import torch
from torch import nn

Memory = dict[tuple[str, str], Any]
"""Values by the module's name and the attribute's."""
_OWN = frozenset(vars(nn.Module()))
"""Torch's own attributes of a module."""
_PLAIN = (
    bool | int | float | complex | str | bytes | bytearray | np.generic | np.ndarray | torch.Tensor | None
)
_ABSENT = object()
MACHINERY = (
    "torch",
    "lightning",
    "pytorch_lightning",
    "lightning_fabric",
    "transformers",
    "accelerate",
    "opacus",
)
"""Packages whose objects a loop runs by (a Trainer that a module holds): they are not looked into."""
_HUNG = frozenset(
    (
        "grad_sample",
        "factors",
        "total",
        "summed_grad",
        "_forward_counter",
        "_norm_sample",
        "_current_grad_sample",
    )
)
"""What gradients of examples are hung on a parameter as."""
_CALLED = tuple(key for key in _OWN if key.endswith("_hooks"))
"""Where a module keeps its hooks."""


class InPlace:
    """An object in its place, with copies of its attributes; without, where it is one of `within`: looked at already,
    or a module of the model itself."""

    def __init__(self, value: Any, within: frozenset[int] = frozenset()) -> None:
        self.value, self.within = value, within
        self.state = {key: copied(each, within | {id(value)}) for key, each in self._now().items()}

    def _now(self) -> dict[str, Any]:
        return {} if id(self.value) in self.within else _state(self.value)

    def same(self, other: Any) -> bool:
        """Whether the same object stands there, with the same attributes."""
        return self.value is other and same(self.state, self._now())


def remembered(model: nn.Module, criterion: Any = None) -> Memory:
    """Copies of what the modules of a model and of a loss hold."""
    own = frozenset(id(each) for each in (*model.modules(), *model.parameters(), *model.buffers()))
    return {key: copied(value, own) for key, value in _held(model, criterion)}


def written(
    model: nn.Module, before: Memory, constant: Memory, criterion: Any = None, passed: bool = False
) -> str | None:
    """The first attribute where not all are as the constants are, nor, unless a batch has `passed`, all as before; or
    None. Objects never change: a pass that writes into one is no cache."""
    now = dict(_held(model, criterion))
    foreign = {key for key in [*now, *before] if _foreign(now.get(key)) or _foreign(before.get(key))}
    first = {key: value for key, value in constant.items() if key not in foreign}
    first |= {key: before[key] for key in foreign & before.keys()}
    names = [_first(now, memory) for memory in ([first] if passed else [before, first])]
    return None if None in names else names[0]


def _first(now: Memory, memory: Memory) -> str | None:
    keys = [*now, *(key for key in memory if key not in now)]
    wrong = (key for key in keys if not same(memory.get(key, _ABSENT), now.get(key, _ABSENT)))
    return next((".".join(part for part in key if part) for key in wrong), None)


def put_back(model: nn.Module, before: Memory, criterion: Any = None, objects: bool = True) -> None:
    """Give the modules what they held. objects: where an object of another kind stands in its place, too; not within a
    pass, which may go on by it (a module's Trainer).
    """
    owners = dict(_owners(model, criterion))
    for name, attribute in dict(_held(model, criterion)).keys() - before.keys():
        if not attribute or attribute in _CALLED:
            continue  # whose, or whatever it calls
        if objects or not _foreign(getattr(owners[name], attribute)):
            delattr(owners[name], attribute)
    for (name, attribute), value in before.items():
        if not attribute or attribute in _CALLED:
            continue
        now = getattr(owners[name], attribute, _ABSENT)
        if not same(value, now) and (objects or now is _ABSENT or not _foreign(now)):
            setattr(owners[name], attribute, restored(value))


def forgets(name: str) -> str:
    """Why an attribute that a pass writes stops a round."""
    return (
        f"{name} is an attribute of the model that a batch writes: what it remembers of one batch (a running "
        "statistic, a largest value, a count of calls) changes the gradients of others, and nothing clips or noises "
        "that. Take such constants from public data before training, and keep nothing between batches"
    )


def _owners(model: nn.Module, criterion: Any) -> Iterator[tuple[str, Any]]:
    yield from model.named_modules()
    yield from (*model.named_parameters(), *model.named_buffers())
    if isinstance(criterion, nn.Module):
        yield from criterion.named_modules(prefix="(criterion)")
    elif criterion is not None and _looked_into(criterion):
        yield "(criterion)", criterion


def _held(model: nn.Module, criterion: Any) -> Iterator[tuple[tuple[str, str], Any]]:
    if isinstance(criterion, MethodType | partial):
        yield ("(criterion)", ""), criterion
    for name, owner in _owners(model, criterion):
        opacus = type(owner).__module__.startswith("opacus")  # counts its padded rows in each call
        own = _HUNG if isinstance(owner, torch.Tensor) else {"max_batch_len"} if opacus else frozenset()
        for attribute, value in list(vars(owner).items()):
            if attribute not in _OWN and not _machinery(value) and attribute not in own:
                yield (name, attribute), value
            elif attribute in _CALLED and (called := [each for each in value.values() if _remembers(each)]):
                yield (name, attribute), called
        for attribute, value in list(getattr(owner, "_buffers", {}).items()):
            if value is None or name.startswith("(criterion)"):  # the model's other ones are its state
                yield (name, attribute), value


def _remembers(hook: Any) -> bool:
    """Whether a hook has attributes to keep something in, and is no engine's."""
    behind = hook
    while isinstance(behind, MethodType | partial):
        behind = behind.__self__ if isinstance(behind, MethodType) else behind.func
    made = str(getattr(behind, "__module__", "")).partition(".")[0]
    engine = made in MACHINERY or any(kind.__module__.startswith("dp.") for kind in type(behind).__mro__)
    return not engine and (behind is not hook or _looked_into(hook))


def _machinery(value: Any) -> bool:
    if isinstance(value, MethodType):
        return _machinery(value.__self__)
    if hasattr(value, "__code__"):  # a function that an adapter of ours lends a module, for its Trainer
        return str(value.__module__).startswith("fl.adapters.")
    made = type(value).__module__.partition(".")[0] in MACHINERY
    return made and not isinstance(value, torch.Tensor | nn.Module | torch.Size)


def _looked_into(value: Any) -> bool:
    return hasattr(value, "__dict__") and not isinstance(value, type) and not hasattr(value, "__code__")


def _state(value: Any) -> dict[str, Any]:
    """The attributes of an object, and the tensors of a module."""
    if isinstance(value, MethodType):
        return {"self": value.__self__}
    if isinstance(value, partial):
        return {"func": value.func, "args": value.args, "keywords": value.keywords}
    if isinstance(value, nn.Parameter):
        return {"data": value.detach(), **vars(value)}
    if isinstance(value, nn.Module):
        own = {key: each for key, each in vars(value).items() if key not in _OWN}
        return own | {f"_{key}": dict(getattr(value, key)) for key in ("_parameters", "_buffers", "_modules")}
    return {} if _machinery(value) or not _looked_into(value) else dict(vars(value))


def _entries(value: Any) -> Iterator[Any]:
    """What a container holds, containers in it opened; what is none as it is."""
    if isinstance(value, Mapping):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple | set | frozenset | deque):
        for each in value:
            yield from _entries(each)
    else:
        yield value


def _foreign(value: Any) -> bool:
    """Whether there is anything but values and words in it."""
    return any(not isinstance(each, _PLAIN) or isinstance(each, nn.Parameter) for each in _entries(value))


def copied(value: Any, within: frozenset[int] = frozenset()) -> Any:
    """The same values in containers and arrays of their own, and `InPlace` for every other object."""
    memo: dict[int, Any] = {}
    for each in _entries(value):
        if _foreign(each):
            memo[id(each)] = InPlace(each, within)
        elif isinstance(each, torch.Tensor):
            memo[id(each)] = each.detach().clone()
    return memo[id(value)] if id(value) in memo else copy.deepcopy(value, memo)


def restored(value: Any) -> Any:
    """What was copied, with objects in their places."""
    memo: dict[int, Any] = {}
    for each in _entries(value):
        if isinstance(each, InPlace):
            memo[id(each)] = each.value
        elif isinstance(each, torch.Tensor):
            memo[id(each)] = each.clone()
    return memo[id(value)] if id(value) in memo else copy.deepcopy(value, memo)


def same(one: Any, other: Any) -> bool:
    """Whether a copy and a value have the same type and every bit alike (NaN equals NaN), containers entry by entry."""
    if isinstance(one, InPlace):
        return one.same(other)
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
