"""A user's loop of another framework as the local computation of a `Federation`. Names load when they are asked for.

What belongs here: one file per framework, the only one that imports it, each a function that returns a Federation.
What does not: rounds, layers, strategies; whatever a Federation does, it does for these loops too.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fl.adapters.lightning import from_lightning
    from fl.adapters.numpy import from_numpy
    from fl.adapters.scaler import fit_scaler
    from fl.adapters.sklearn import from_sklearn
    from fl.adapters.torch import from_torch
    from fl.adapters.trainer import from_trainer

_HOMES = {
    "from_torch": ("torch", "fl.adapters.torch"),
    "from_trainer": ("trainer", "fl.adapters.trainer"),
    "from_lightning": ("lightning", "fl.adapters.lightning"),
    "from_numpy": ("torch", "fl.adapters.numpy"),
    "from_sklearn": ("torch", "fl.adapters.sklearn"),
    "fit_scaler": ("torch", "fl.adapters.scaler"),
}
"""Name -> (the extra that brings what it needs, its module)."""
__all__ = ["fit_scaler", "from_lightning", "from_numpy", "from_sklearn", "from_torch", "from_trainer"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fl.adapters' has no attribute {name!r}")
    from protocols.extras import needs

    extra, home = _HOMES[name]
    with needs("torch", f"fl.adapters.{name}"), needs(extra, f"fl.adapters.{name}"):
        return getattr(importlib.import_module(home), name)
