"""A module's copy with other values, made by its tensors. What does not belong here: training.

`copy.deepcopy` asks every attribute of every submodule how it is copied, which costs more than a step of a small
model. Here tensors are copied once, plain values are shared, and only what is left is deep-copied, so that a copy
shares nothing that can change.
"""

import copy
from collections import OrderedDict
from collections.abc import Mapping
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from torch import nn

from protocols.errors import Misuse

_PLAIN = frozenset(
    (bool, int, float, complex, str, bytes, type(None), type, FunctionType, BuiltinFunctionType)
)
"""Types whose values are shared, by exact type: a subclass may hold what can change."""


def clone(module: nn.Module, values: Mapping[str, Any], device: Any) -> nn.Module:
    """Return a copy of a module on `device` that holds `values`, its state dict, and shares nothing that can change.

    Tied tensors stay tied; two tensors that are views of one storage become two. Raises RuntimeError, as
    `load_state_dict` does, for values of another shape, and Misuse for a model that cannot be copied.
    """
    named, kinds, memo = dict[str, torch.Tensor](), set[type](), dict[int, Any]()
    for prefix, part in module.named_modules(remove_duplicate=False):
        kinds.add(type(part))
        for name, held in (*part._parameters.items(), *part._buffers.items()):
            if held is not None:
                named[f"{prefix}.{name}" if prefix else name] = held
    for name, own in named.items():
        if id(own) not in memo and type(own) in (nn.Parameter, torch.Tensor):
            memo[id(own)] = _copied(own, values.get(name, own), device)
    usual = frozenset(kind for kind in kinds if _is_usual(kind))
    try:
        made: nn.Module = _clone(module, memo, usual)
    except (TypeError, RuntimeError, RecursionError) as error:  # what deepcopy raises
        raise Misuse(
            f"the model cannot be copied for a client ({type(error).__name__}: {error}): leave what has no copy out of "
            "its attributes (a lock, an open file, a generator, a tensor with a history)"
        ) from error
    known = values.keys() <= named.keys() and all(id(own) in memo for own in named.values())
    # other names, or modules or tensors that know themselves how they are copied
    if not known or usual != kinds:
        made.load_state_dict(dict(values))
        made.to(device)
    return made


def _copied(own: torch.Tensor, given: Any, device: Any) -> torch.Tensor:
    if not isinstance(given, torch.Tensor) or given.shape != own.shape:
        raise RuntimeError(
            f"expected a tensor of shape {tuple(own.shape)}, got {getattr(given, 'shape', given)!r}"
        )
    with torch.no_grad():
        data = torch.empty_like(own, device=device, requires_grad=False).copy_(given)
    return nn.Parameter(data, own.requires_grad) if isinstance(own, nn.Parameter) else data


def _clone(value: Any, memo: dict[int, Any], usual: frozenset[type]) -> Any:
    """What `copy.deepcopy(value, memo)` returns, for modules of `usual` classes, and whatever they hold."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if (known := memo.get(id(value))) is not None:
        return known
    if kind in (dict, OrderedDict):
        made = memo[id(value)] = kind()
        for key, item in value.items():
            if (of := type(item)) in _PLAIN:
                made[key] = item
            elif of in (dict, OrderedDict) and not item:  # nearly all that a module holds: its hooks
                made[key] = memo.setdefault(id(item), of())
            else:
                made[key] = _clone(item, memo, usual)
        return made
    if kind in (tuple, set) and all(type(item) in _PLAIN for item in value):
        return value if kind is tuple else set(value)
    if kind in usual:
        made = memo[id(value)] = object.__new__(kind)
        made.__setstate__(_clone(value.__dict__, memo, usual))
        return made
    return copy.deepcopy(value, memo)


def _is_usual(kind: type) -> bool:
    """Whether modules of this class are copied as `nn.Module` says, and not in a way of their own."""
    own = ("__deepcopy__", "__getstate__", "__reduce__", "__reduce_ex__")
    return all(getattr(kind, name, None) is getattr(nn.Module, name, None) for name in own)
