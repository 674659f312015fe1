"""torch state dicts <-> trees of NumPy arrays. What does not belong here: what happens to the numbers.

bfloat16, which NumPy does not have, is widened to float32 and labelled; tensors of any device come to the
CPU; tensors that share storage travel once per name and come back equal.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from protocols.errors import Misuse, require
from protocols.updates import Flat, Schema, flatten, schema_of, walk

BFLOAT16 = "bfloat16"


def to_tree(state: Mapping[str, Any]) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Return (name -> array, name -> original dtype where NumPy has none) of a state dict.

    Raises Misuse naming the entry for anything that is neither a tensor, an array nor a number.
    """
    tree: dict[str, NDArray[Any]] = {}
    labels: dict[str, str] = {}
    require(isinstance(state, Mapping), "a state dict (module.state_dict())", type(state).__name__)
    for name, value in state.items():
        if isinstance(value, torch.Tensor):
            if value.layout != torch.strided or value.is_quantized or value.is_meta:
                raise Misuse(f"{name}: expected a dense tensor with values, got {_kind(value)}")
            tensor = value.detach().cpu()
            if tensor.dtype == torch.bfloat16:
                tensor, labels[name] = tensor.float(), BFLOAT16
            try:
                tree[name] = tensor.resolve_conj().resolve_neg().numpy()
            except TypeError:
                raise Misuse(
                    f"{name}: {_kind(value)} cannot be summed; convert it to a wider float"
                ) from None
        elif isinstance(value, np.ndarray | np.generic | int | float):
            tree[name] = np.asarray(value)
        else:
            raise Misuse(f"{name}: expected a tensor or an array, got {type(value).__name__}")
    return tree, labels


def _kind(tensor: torch.Tensor) -> str:
    return f"a tensor of {tensor.dtype}, {tensor.layout}, on {tensor.device}".replace("torch.", "")


def to_state(tree: Mapping[str, Any], schema: Schema, like: Mapping[str, Any]) -> dict[str, Any]:
    """Inverse of to_tree: tensors in their original dtype, on the device of `like`'s entry of the same name."""
    labels = {leaf.name: leaf.label for leaf in schema.leaves}
    state: dict[str, Any] = {}
    for path, array in walk(tree):
        name = ".".join(path)
        if not isinstance(like.get(name), torch.Tensor):
            state[name] = array
            continue
        tensor = torch.from_numpy(np.array(array))
        dtype = torch.bfloat16 if labels.get(name) == BFLOAT16 else tensor.dtype
        state[name] = tensor.to(dtype=dtype, device=like[name].device)
    return state


def schema_of_state(
    state: Mapping[str, Any], integers: str, rules: Mapping[str, str] | None = None
) -> Schema:
    """Return the schema of a state dict; dots in its names are part of the names. rules: as in `schema_of`."""
    tree, labels = to_tree(state)
    return schema_of(tree, integers, labels, rules)


def flatten_state(state: Mapping[str, Any], schema: Schema, finite: bool = True) -> Flat:
    """Return the flat form of a state dict. Raises Misuse naming a tensor with NaN, infinity or another shape."""
    return flatten(to_tree(state)[0], schema, finite)
