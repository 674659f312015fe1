"""What is asked of a loader and of the device before anything is trained. Training itself is the user's own."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from protocols.errors import Misuse
from protocols.layers import PrivacyLayer


def check_device(device: Any) -> None:
    """Raises Misuse for a device that torch does not know or this machine does not have."""
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, TypeError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise Misuse(f"device {str(device)!r} cannot be used: {said}") from None


def check_workers(workers: int, device: Any, layers: Sequence[PrivacyLayer]) -> None:
    """Raises Misuse where training cannot be given to other processes."""
    if workers == 1:
        return
    if not hasattr(os, "fork") or str(device) != "cpu":
        raise Misuse(
            f"workers: {workers} processes train on the CPU of a system that forks, not on {device!r}"
        )
    for layer in layers:
        if layer.needs_local():
            raise Misuse(
                f"workers: {layer.name} keeps its clients' accounts in this process: leave workers at 1"
            )


def checked_loader(whose: str, loader: Any) -> Any:
    """Return a loader of batches. Raises Misuse for a data set, which gives one example after the other, and for the
    data itself.
    """
    if isinstance(loader, list | tuple) and _is_data(loader):
        raise Misuse(
            f"{whose}: expected a loader of batches, got a {type(loader).__name__} of arrays: wrap it in a "
            "DataLoader(TensorDataset(x, y), batch_size=32)"
        )
    if isinstance(loader, torch.utils.data.Dataset) and not isinstance(
        loader, torch.utils.data.IterableDataset
    ):
        kind = type(loader).__name__
        raise Misuse(
            f"{whose}: expected a loader of batches, got the data set {kind}: wrap it in a "
            "DataLoader(..., batch_size=32)"
        )
    return loader


def _is_data(parts: Sequence[Any]) -> bool:
    """Whether these are inputs and labels, and no list of batches that are one tensor each."""
    ranks = [len(part.shape) for part in parts if hasattr(part, "shape")]
    return bool(ranks) and len(ranks) == len(parts) and (isinstance(parts, tuple) or len(set(ranks)) > 1)


def examples_in(loader: Any, whose: str = "a client") -> int:
    """Return how many examples a loader serves: those its (batch sampler's) sampler draws, its dataset holds, or, of a
    list of batches, those in them. Raises Misuse if it cannot tell.
    """
    if isinstance(loader, list | tuple):
        return sum(_in_batch(batch) for batch in loader)
    drawn = getattr(getattr(loader, "batch_sampler", None), "sampler", None)
    for holder in (drawn, getattr(loader, "sampler", None), getattr(loader, "dataset", None), loader):
        try:
            return len(holder)  # type: ignore[arg-type]  # what has no length is passed over
        except TypeError:
            continue
    raise Misuse(
        f"{whose}: its loader has no length ({type(loader).__name__}): give it a dataset with len(), "
        "or a loader with an attribute `dataset` that has one"
    )


def _in_batch(batch: Any) -> int:
    """Return the common first dimension of a batch's tensors; 1 where they have none: a single example."""
    several = list(batch.values()) if isinstance(batch, Mapping) else batch
    parts = several if isinstance(several, list | tuple) else [batch]
    # these come with tensors
    told = [part for part in parts if not isinstance(part, list | tuple | Mapping | None)]
    sizes = {tuple(getattr(part, "shape", ()))[:1] for part in told}
    (size,) = sizes.pop() or (1,) if len(sizes) == 1 else (1,)
    return int(size)
