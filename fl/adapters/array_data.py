"""Weights that are NumPy arrays, and data that is no loader, in the shape that a Federation takes.

What does not belong here: anybody's loop (`numpy`, `sklearn`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fl.loaders import examples_in
from protocols.errors import Misuse

Weights = Mapping[str, Any] | Sequence[Any]
"""A dict, list or tuple of arrays or numbers."""
Array = NDArray[Any]


class Arrays(torch.nn.Module):
    """Weights as a torch module: real arrays are its parameters, integers its buffers. weights: a dict, list or tuple
    of arrays or numbers. Raises Misuse by name for what torch cannot hold, and where there is none.
    """

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self._container: type = dict if isinstance(weights, Mapping) else type(weights)
        self._entries: dict[Any, str] = {}
        for name, array in _named(weights).items():
            entry = self._entries[name] = str(name).replace(".", "/")  # dots are torch's own
            if entry in self._parameters or entry in self._buffers:
                raise Misuse(f"weights: {name!r} is named like another array, once dots are read as slashes")
            tensor = _tensor(name, array)
            # past register_parameter, for any name will do
            if tensor.is_floating_point() or tensor.is_complex():
                self._parameters[entry] = torch.nn.Parameter(tensor)
            else:
                self._buffers[entry] = tensor

    def weights(self) -> Any:
        """Return a copy in the container that it was made from: a dict, list or tuple of arrays."""
        held = {
            name: self._held(entry).detach().cpu().numpy().copy() for name, entry in self._entries.items()
        }
        if self._container is dict:
            return held
        return getattr(self._container, "_make", self._container)(held.values())  # _make: of a named tuple

    def take(self, weights: Any, whose: str) -> None:
        """Take over weights. Raises Misuse naming `whose` and the array for other names or shapes."""
        named = _named(weights)
        if named.keys() != self._entries.keys():
            raise Misuse(f"{whose}: expected the weights {list(self._entries)}, got {list(named)}")
        for name, array in named.items():
            mine, given = self._held(self._entries[name]), _tensor(name, array)
            if given.shape != mine.shape:
                raise Misuse(f"{whose}: {name}: expected shape {tuple(mine.shape)}, got {tuple(given.shape)}")
            if not torch.can_cast(given.dtype, mine.dtype):
                raise Misuse(
                    f"{whose}: {name}: it began as {_dtype(mine)} and would lose what {_dtype(given)} holds: begin "
                    f"with weights of that kind, such as np.zeros(..., {_dtype(given)})"
                )
            with torch.no_grad():
                mine.copy_(given)

    def _held(self, entry: str) -> torch.Tensor:
        held = self._parameters.get(entry)
        return self._buffers[entry] if held is None else held  # type: ignore[return-value]  # no buffer is None


def _named(weights: Any) -> dict[Any, Any]:
    if isinstance(weights, Mapping):
        return dict(weights)
    if isinstance(weights, list | tuple):
        return dict(enumerate(weights))
    raise Misuse(f"weights: expected a dict or list of arrays, got {type(weights).__name__}")


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _tensor(name: Any, array: Any) -> torch.Tensor:
    try:
        return torch.from_numpy(np.array(array))
    except (TypeError, ValueError):
        raise Misuse(
            f"weights: {name}: expected an array of numbers, got {getattr(array, 'dtype', type(array).__name__)}"
        ) from None


def no_outputs(options: Mapping[str, Any]) -> None:
    """Raises Misuse for a `ClientEvaluation`: it calls a torch module."""
    if options.get("evaluation") is not None:
        raise Misuse(
            "evaluation: it measures the outputs of a torch module, and these weights are none: give test="
        )


class ClientData:
    """One client's data, whatever it is, and how many examples it holds (`examples_of` unless given)."""

    def __init__(self, whose: str, data: Any, examples: int | None = None) -> None:
        self.data, self._examples = data, examples_of(whose, data) if examples is None else examples

    def __len__(self) -> int:
        return self._examples


def examples_of(whose: str, data: Any) -> int:
    """Return how many examples data holds: the first dimension of an array; the common one of what a tuple or dict
    holds, or a list with arrays in it; else its length. Raises Misuse naming `whose` if it cannot tell.
    """
    parts = list(data.values()) if isinstance(data, Mapping) else data
    several = isinstance(parts, list | tuple)
    shapes = [tuple(part.shape) for part in parts if getattr(part, "shape", ())] if several else []
    if isinstance(data, list) and not shapes:
        return len(data)  # examples: pairs, or rows of a table
    sizes = {_rows(part) for part in (parts if several else [data])} - {None}
    size = sizes.pop() if len(sizes) == 1 else None
    alike = isinstance(data, list) and len(set(shapes)) == 1 and len(shapes) == len(data)
    # arrays of one shape may be examples, or columns of them
    if size is None or (alike and size != len(data)):
        raise Misuse(
            f"{whose}: cannot tell how many examples {type(data).__name__} holds: give an array, or a tuple or dict of "
            "arrays whose first dimensions agree, or an object with len()"
        )
    return size


def _rows(part: Any) -> int | None:
    shape: Any = getattr(part, "shape", None)
    if shape is not None:
        return int(shape[0]) if len(shape) else None
    if hasattr(part, "dataset"):  # a DataLoader, whose length is its batches
        return examples_in(part)
    return len(part) if hasattr(part, "__len__") and not isinstance(part, str | bytes | Mapping) else None
