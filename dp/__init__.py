"""Differential privacy: clipping, noise, accounts, layers and empirical audits.

Imports nothing heavy by itself: a name is loaded when it is first asked for. `opacus` and `torch` are
imported under `dp.sample` only, so that accounting and auditing work without them.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dp.client import ClientDP
    from dp.distributed import DistributedDP
    from dp.ledger import Ledger
    from dp.local import LocalDP
    from dp.norm_bound import NormBound
    from dp.sample import SampleDP
    from dp.suggestion import suggest

_HOMES = {
    "Ledger": "dp.ledger",
    "SampleDP": "dp.sample",
    "ClientDP": "dp.client",
    "DistributedDP": "dp.distributed",
    "LocalDP": "dp.local",
    "NormBound": "dp.norm_bound",
    "suggest": "dp.suggestion",
}
__all__ = ["ClientDP", "DistributedDP", "Ledger", "LocalDP", "NormBound", "SampleDP", "suggest"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'dp' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
