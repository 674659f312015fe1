"""What a model and a loss remember beside parameters and buffers: whatever their modules hold as attributes.

A model that takes a scale, a mean or a vocabulary from the batches that it sees mixes their examples, later in another
batch too, where no check of one batch finds it. What a pass writes is refused by name, unless every first pass writes
the same (a cache that follows from constants). One walk compares it all, each object once: values by their bits,
containers entry by entry, other objects by being the same ones; and the attributes of any of them, what functions have
as attributes and defaults, and the objects behind methods, partials and hooks. What `MACHINERY` makes, closures, slots,
class attributes, module-level variables, generators, optimizers and objects of C code are out of reach.
"""

import copy
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from enum import Enum
from functools import partial
from pathlib import PurePath
from types import BuiltinMethodType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

_OWN = frozenset(vars(nn.Module()))
"""Torch's own attributes of a module."""
_CALLED = tuple(key for key in _OWN if key.endswith("_hooks"))
"""Where a module keeps its hooks."""
_HELD = ("training", "_parameters", "_buffers", "_modules", *_CALLED)
"""Those that a module outside the model is compared by."""
_WORDS = (
    str, bytes, bool, int, type(None), Enum, type, slice, range, PurePath, np.dtype, torch.dtype, torch.device
)  # fmt: skip
"""What never changes and is equal to its like."""
_PLAIN = frozenset((str, bytes, bool, int, type(None), torch.dtype, torch.device))
"""Words of exactly these classes have nothing behind them."""
_FIXED = (*_WORDS, float, complex, np.generic)
_CONTAINERS = (Mapping, list, tuple, deque, set, frozenset)
_EXACTLY = (dict, list, tuple, deque, set, frozenset, bytearray, np.ndarray, OrderedDict, defaultdict)
"""Whose contents are put back; exactly these classes."""
_ENGINES = ("torch.optim", "torch.utils.data", "torch.autograd", "torch.distributed", "torch.profiler")
"""Parts of torch whose objects a loop runs by; the results of its operations and its distributions are looked into."""
_LOOPS = ("torch", "lightning", "pytorch_lightning", "lightning_fabric", "transformers", "accelerate")
MACHINERY = frozenset((*_LOOPS, "opacus", "logging"))
"""Packages whose objects a loop runs by (a Trainer that a module holds): they are not looked into."""
_HUNG = frozenset(("grad_sample", "factors", "total", "summed_grad", "_norm_sample", "_current_grad_sample"))
_HUNG |= {"_forward_counter"}
"""What gradients of examples are hung on a parameter as."""
_NOT_SET = frozenset(("", "training", "module", "forward()", *_CALLED))
"""What is compared and never put back."""


class Kept(NamedTuple):
    """What an attribute held: all that is reached from it, whether an object is, and a copy to put back."""

    leaves: list[Any]
    foreign: bool
    copy: Any


Memory = dict[tuple[str, str], Kept]
"""What was held, by the module's name and the attribute's."""


class It:
    """An object, equal to itself alone."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, It) and self.value is other.value


class Bits:
    """A tensor, equal to those of the same bits."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bits) and same(self.tensor, other.tensor)


def remembered(model: nn.Module, criterion: Any = None) -> Memory:
    """What the modules of a model and of a loss hold, and copies of it."""
    own = _own(model)
    found = {key: (leaves(value, own), value) for key, value in _held(model, criterion)}
    return {key: Kept(seen, _foreign(seen), _copied(value)) for key, (seen, value) in found.items()}


def written(
    model: nn.Module, before: Memory, constant: Memory, criterion: Any = None, passed: bool = False
) -> str | None:
    """Return the name of the first attribute that a pass wrote to, or None. The pass wrote to none where all
    attributes are as in `constant`, or, as long as no batch has `passed`, where all are as in `before`. An attribute
    that holds other objects than values must be as in `before` in either case: a pass that writes into an object fills
    no cache.
    """
    own = _own(model)
    now = {key: leaves(value, own, copies=False) for key, value in _held(model, criterion)}
    foreign = {key for key, seen in now.items() if _foreign(seen)}
    foreign |= {key for key, held in before.items() if held.foreign}
    first = {key: held.leaves for key, held in constant.items() if key not in foreign}
    first |= {key: before[key].leaves for key in foreign & before.keys()}
    begun = {key: held.leaves for key, held in before.items()}
    names = [_first(now, memory) for memory in ([first] if passed else [begun, first])]
    return None if None in names else names[0]


def _first(now: dict[tuple[str, str], Any], memory: dict[tuple[str, str], Any]) -> str | None:
    keys = [*now, *(key for key in memory if key not in now)]
    wrong = (key for key in keys if memory.get(key) != now.get(key))
    return next((".".join(part for part in key if part) for key in wrong), None)


def put_back(model: nn.Module, before: Memory, criterion: Any = None, objects: bool = True) -> None:
    """Give the modules what they held. objects: where an object of another kind stands in its place, too; not within a
    pass, which may go on by it (a module's Trainer).
    """
    owners, own = dict(_owners(model, criterion)), _own(model)
    now = {key: leaves(value, own, copies=False) for key, value in _held(model, criterion)}
    for name, attribute in now.keys() | before.keys():
        key, owner = (name, attribute), owners.get(name)
        if owner is None or attribute in _NOT_SET:
            continue
        stands = now.get(key, [It(None)] if attribute in vars(owner) else [])  # what is not held: machinery
        if _foreign(stands) and not objects:
            continue
        if key not in before:
            delattr(owner, attribute)
        elif before[key].leaves != stands:
            setattr(owner, attribute, _copied(before[key].copy))


def forgets(name: str) -> str:
    """Why an attribute that a pass writes stops a round."""
    return (
        f"{name} is an attribute of the model that a batch writes: what it remembers of one batch (a running "
        "statistic, a largest value, a count of calls) changes the gradients of others, and nothing clips or noises "
        "that. Take such constants from public data before training, and keep nothing between batches"
    )


def _own(model: nn.Module) -> frozenset[int]:
    return frozenset(id(each) for each in (*model.modules(), *model.parameters(), *model.buffers()))


def _owners(model: nn.Module, criterion: Any) -> Iterator[tuple[str, Any]]:
    yield from model.named_modules()
    yield from (*model.named_parameters(), *model.named_buffers())
    if isinstance(criterion, nn.Module):
        yield from criterion.named_modules(prefix="(criterion)")
    elif not isinstance(criterion, MethodType | partial | FunctionType):
        yield "(criterion)", criterion


def _held(model: nn.Module, criterion: Any) -> Iterator[tuple[tuple[str, str], Any]]:
    if isinstance(criterion, MethodType | partial | FunctionType):
        yield ("(criterion)", ""), criterion
    for name, owner in _owners(model, criterion):
        if isinstance(owner, nn.Module):
            root = criterion if name.startswith("(criterion)") else model
            yield (name, "module"), It(owner)
            yield (name, "training"), owner.training == root.training
            if _made(owner) not in MACHINERY:
                yield (name, "forward()"), type(owner).forward
        for attribute, value in _attributes(owner).items():
            if attribute in _CALLED:
                value = [each for each in value.values() if _remembers(each)]
            if (attribute in _CALLED and value) or (attribute not in _OWN and not _machinery(value)):
                yield (name, attribute), value
        for attribute, value in list(getattr(owner, "_buffers", {}).items()):
            if value is None or name.startswith("(criterion)"):  # the model's other ones are its state
                yield (name, attribute), value


def _remembers(hook: Any) -> bool:
    """Whether a hook can keep something, and is no engine's."""
    behind = hook
    while isinstance(behind, MethodType | partial):
        behind = behind.__self__ if isinstance(behind, MethodType) else behind.func
    engine = _made(behind) in MACHINERY or any(
        _package(kind) == "dp" for kind in (behind, *type(behind).__mro__)
    )
    return not engine and not (isinstance(hook, FunctionType) and not _reached(hook))


def _machinery(value: Any) -> bool:
    if isinstance(value, MethodType):
        return _machinery(value.__self__)
    for_trainer = isinstance(value, FunctionType) and str(value.__module__).startswith("fl.adapters.")
    made = _made(value)
    return for_trainer or (
        type(value).__module__.startswith(_ENGINES) if made == "torch" else made in MACHINERY
    )


def _made(value: Any) -> str:
    """The package that a function, or an object's class, comes from."""
    return _package(value if isinstance(value, FunctionType) else type(value))


def _package(made: Any) -> str:
    return str(getattr(made, "__module__", "")).partition(".")[0]


def leaves(value: Any, own: frozenset[int] = frozenset(), copies: bool = True) -> list[Any]:
    """All that is reached from a value, each object once, in one order: comparable by ==. own: objects that are not
    looked into; copies: of tensors, so that the list outlives a write into them."""
    found: list[Any] = []
    waiting, seen, alive = [value], dict[int, int](), list[Any]()  # an id is of an object that lives
    while waiting:
        each = waiting.pop()
        if type(each) in _PLAIN:
            found.append((type(each), each))
        elif id(each) in own or isinstance(each, It):
            found.append(each if isinstance(each, It) else It(each))
        elif id(each) in seen:
            found.append(("again", seen[id(each)]))
        else:
            if not isinstance(each, _FIXED):
                seen[id(each)] = len(found)
                alive.append(each)
            found += [_leaf(each, copies)] if _restored(each) else [_leaf(each, copies), It(each)]
            waiting += _reached(each)
    return found


def _restored(value: Any) -> bool:
    """Whether a copy can stand in a value's place: it is a value, or a container of exactly a usual kind."""
    return (
        (type(value) in _EXACTLY or _dense(value) or isinstance(value, (*_FIXED, tuple, frozenset)))
        and not _attributes(value)
        and not (isinstance(value, np.ndarray) and value.dtype.hasobject)
    )


def _dense(value: Any) -> bool:
    return (
        type(value) is torch.Tensor
        and value.layout == torch.strided
        and not value.is_meta
        and not value.is_quantized
    )


def _leaf(value: Any, copies: bool) -> Any:
    """What of a value itself is compared."""
    kind = type(value)
    match value:
        case float() | complex():
            return kind, complex(value).real.hex(), complex(value).imag.hex()
        case np.ndarray() | np.generic():
            bits = b"" if value.dtype.hasobject else value.tobytes()
            return kind, value.dtype.str, value.shape, bits
        case bytearray():
            return kind, bytes(value)
        case torch.Tensor():
            return _tensor(value, copies)
        case set() | frozenset():
            return kind, len(value), frozenset(each for each in value if isinstance(each, (*_WORDS, float)))
        case _ if isinstance(value, _CONTAINERS):
            return kind, len(value)
        case _ if isinstance(value, _WORDS):
            return kind, value
    return It(value)


def _tensor(value: torch.Tensor, copies: bool) -> Any:
    if not isinstance(value, nn.Parameter) and not _dense(value):
        return It(value), value._version  # of other kinds, how often it was written
    bits = Bits(value.detach().clone() if copies else value.detach())
    return (It(value), bits) if isinstance(value, nn.Parameter) else bits


def _reached(value: Any) -> list[Any]:
    """What stands behind a value: entries, attributes, what a method or a function is bound to."""
    if isinstance(value, type | ModuleType) or _machinery(value):
        return []
    found: list[Any] = []
    match value:
        case torch.Tensor():
            pass
        case MethodType():
            found += [value.__self__, value.__func__]
        case BuiltinMethodType():
            found += [value.__self__]
        case FunctionType():
            found += [given for given in (value.__defaults__, value.__kwdefaults__) if given]
        case partial():
            found += [value.func, value.args, value.keywords]
        case np.ndarray() if value.dtype.hasobject:
            found += list(value.flat)
        case set() | frozenset():
            found += sorted((each for each in value if not isinstance(each, (*_WORDS, float))), key=id)
        case Mapping():
            found += [*value.keys(), *value.values()]
        case _ if isinstance(value, _CONTAINERS):
            found += list(value)
    own = {key: each for key, each in _attributes(value).items() if key not in _OWN or key in _HELD}
    return [*found, *([tuple(own), *own.values()] if own else [])]


def _attributes(value: Any) -> dict[str, Any]:
    """The attributes of an object of its own, without what gradients of examples are hung on it as."""
    if isinstance(value, (type, ModuleType, Enum)):
        return {}
    try:
        found = vars(value)
        if isinstance(value, torch.Tensor):
            return {key: each for key, each in found.items() if key not in _HUNG}
        counts = (
            {"max_batch_len"} if type(value).__module__.startswith("opacus") else set()
        )  # padded rows, in each call
        return {key: each for key, each in found.items() if key not in counts}
    except Exception:  # of a user's class anything may be raised
        return {}


def _foreign(seen: Iterable[Any]) -> bool:
    """Whether anything but values and words was reached."""
    return any(isinstance(each, It) or (isinstance(each, tuple) and isinstance(each[0], It)) for each in seen)


def _copied(value: Any) -> Any:
    """The same values in containers and arrays of their own, every other object in its place."""
    memo: dict[int, Any] = {}
    waiting, seen = [value], dict[int, Any]()
    while waiting:
        each = waiting.pop()
        if _dense(each):
            memo[id(each)] = each.detach().clone()
        elif type(each) not in _EXACTLY or not _restored(each):
            memo[id(each)] = each
        elif id(each) not in seen:
            seen[id(each)] = each
            waiting += _reached(each)
    with suppress(RecursionError):  # what lies too deep stays in its place
        return memo[id(value)] if id(value) in memo else copy.deepcopy(value, memo)
    return value


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors have the same shape, dtype, device and bits (NaN equals NaN)."""
    alike = one.shape == other.shape and one.dtype == other.dtype and one.device == other.device
    return alike and bool(torch.equal(one, other) or torch.equal(_bits(one), _bits(other)))


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)
