"""Whether an example is seen to be held twice, by two clients or by one. What a loader serves is not read.

What does not belong here: equal values. Two people may have them, and one person's copies are not told from these.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import ChainDataset, ConcatDataset, Dataset, StackDataset, Subset, TensorDataset

from protocols.errors import Misuse

Places = NDArray[np.int64]
MEMORY, LISTED = -1, -2
"""In place of an object's id: an address in memory, and the id of an item of a list."""


def require_disjoint(layer: str, loaders: Mapping[str, Any]) -> None:
    """Raises Misuse for an example that is seen to be held twice, where all that it is made of is the same: rows of
    memory, also where tensors or arrays begin elsewhere in it; items of one data set, through `Subset`,
    `ConcatDataset` and one wrapper of the user's; items of lists that hold tensors; one object that is iterated. Copies
    and parts of rows are not seen.
    """
    held = defaultdict[int, list[tuple[str, Places]]](list)
    for name, loader in loaders.items():
        data = loader if (data := getattr(loader, "dataset", None)) is None else data
        for places in _places(data, np.arange(1 if (size := _size(data)) is None else size)):
            held[places.shape[1]].append((name, places))
    for shares in held.values():
        owners = np.repeat([name for name, _ in shares], [len(places) for _, places in shares])
        items = np.concatenate([places for _, places in shares])
        order = np.lexsort(items.T)
        if (twice := np.flatnonzero((np.diff(items[order], axis=0) == 0).all(axis=1))).size:
            one, other = owners[order[twice[0] : twice[0] + 2]]
            whose = f"client {str(one)!r} holds an example twice"
            if one != other:
                whose = f"clients {str(one)!r} and {str(other)!r} hold the same example"
            raise Misuse(
                f"{whose}, and {layer} prices an example as one item of one client: give each client a "
                "torch.utils.data.Subset of its own examples"
            )


def _places(data: Any, at: Places, wrapped: bool = False) -> Iterator[Places]:
    """Return where the items `at` of a data set come from: (items, 2 x parts), of each part what holds it (an object's
    id, `MEMORY`, `LISTED`) and the place there. wrapped: a wrapper was looked into.
    """
    inner = getattr(data, "dataset", None)
    if isinstance(data, Subset) and (size := _size(inner)) and (own := _indices(data)) is not None:
        yield from _places(inner, own[at] % size, wrapped)
    elif isinstance(data, ConcatDataset):
        ends = np.asarray(data.cumulative_sizes)
        for part, first, end in zip(data.datasets, [0, *ends], ends, strict=False):
            yield from _places(part, at[(at >= first) & (at < end)] - first, wrapped)
    elif isinstance(data, ChainDataset):
        for part in data.datasets:
            yield from _places(part, np.arange(1), wrapped)
    elif not wrapped and len(parts := _parts(data)) == 1 and isinstance(parts[0], Dataset):
        yield from _places(parts[0], at, True)
    else:
        found = sorted(filter(None, map(_layout, _parts(data)))) or [(id(data), 0, 1)]
        columns = [
            column for of, start, step in found for column in (np.full_like(at, of), start + step * at)
        ]
        if isinstance(data, list | tuple) and data and all(map(_holds_arrays, data)):
            columns = [np.full_like(at, LISTED), np.array([id(item) for item in data], np.int64)[at]]
        yield np.stack(columns, axis=1)


def _parts(data: Any) -> list[Any]:
    """Return what a data set's items are put together from: tensors, or what else in it is as long as it is."""
    if isinstance(data, TensorDataset):
        return list(data.tensors)
    if isinstance(data, StackDataset):
        return list(data.datasets.values() if isinstance(data.datasets, dict) else data.datasets)
    size = _size(data) if isinstance(data, Dataset) else None
    beside = [] if size is None else [part for part in vars(data).values() if _size(part) == size]
    return beside if any(isinstance(part, Dataset | torch.Tensor | np.ndarray) for part in beside) else [data]


def _layout(part: Any) -> tuple[int, int, int] | None:
    """Return what holds a part, where it begins there, and the step from an item to the next; None where all of its
    items are one, which tells none from another.
    """
    if isinstance(part, np.ndarray) and part.ndim:
        step, start = part.strides[0], int(part.__array_interface__["data"][0])
        return (MEMORY, start, step) if step and part.size else None
    if isinstance(part, torch.Tensor) and part.layout == torch.strided and part.ndim and not part.is_meta:
        step = part.stride(0) * part.element_size()
        index = part.device.index
        return (MEMORY if index is None else index, part.data_ptr(), step) if step and part.numel() else None
    return id(part), 0, 1


def _holds_arrays(item: Any) -> bool:
    several = (
        item.values() if isinstance(item, Mapping) else item if isinstance(item, list | tuple) else (item,)
    )
    return any(isinstance(part, torch.Tensor | np.ndarray) for part in several)


def _indices(data: Any) -> Places | None:
    try:
        return np.asarray(data.indices, np.int64)
    except (TypeError, ValueError):  # keys of a data set that is none of numbers
        return None


def _size(data: Any) -> int | None:
    """Return a length, None where there is none, or none is told."""
    try:
        return None if isinstance(data, str) else len(data)
    except Exception:  # the user's code, or another's: some have the method and no answer
        return None
