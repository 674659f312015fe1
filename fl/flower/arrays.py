"""A model and a configuration as Flower's records <-> a tree of NumPy arrays and the bytes that a session binds.

What does not belong here: messages, the round's arithmetic (`fl.round`).
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord
from numpy.typing import NDArray

from fl.network.npy import from_npy
from protocols.errors import Misuse, WireError


def to_numpy(name: str, array: Array) -> NDArray[Any]:
    """Return an Array's content. Raises WireError, before anything is allocated, if it is not a plain NumPy array."""
    if array.stype != "numpy.ndarray":
        raise WireError(f"{name}: expected a NumPy array, got {array.stype!r}")
    found = from_npy(name, array.data)
    if (array.dtype, tuple(array.shape)) != (
        str(found.dtype),
        found.shape,
    ):  # the content is what the session binds
        raise WireError(
            f"{name}: expected the labels {found.dtype} and {found.shape} that the content has, "
            f"got {array.dtype} and {array.shape}"
        )
    return found


def tree_of(arrays: ArrayRecord) -> dict[str, NDArray[Any]]:
    """Return name -> array."""
    return {name: to_numpy(name, array) for name, array in arrays.items()}


def arrays_of(tree: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    """Return the ArrayRecord of a tree."""
    return ArrayRecord({name: Array(np.ascontiguousarray(a).reshape(a.shape)) for name, a in tree.items()})


def config_bytes(config: ConfigRecord | None) -> bytes:
    """Return a training configuration as all nodes digest it. Raises Misuse for values of other types."""
    plain = None if config is None else dict(config)  # none is not an empty one
    return json.dumps(plain, sort_keys=True, default=_tagged).encode()


def _tagged(value: object) -> dict[str, str]:
    """Return bytes as no other value of a ConfigRecord looks in JSON: they hold no dicts. Raises Misuse for others."""
    if not isinstance(value, bytes):
        raise Misuse(f"a configuration: expected numbers, texts, bytes or lists, got {type(value).__name__}")
    return {"bytes": value.hex()}
