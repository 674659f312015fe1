"""Example-level differential privacy in a client's own loop, through Opacus. The only place that imports
Opacus.

Belongs here: per-example gradients, their exact sums, private optimizers, loaders and criteria, the engine
that lives across rounds, and the layer `SampleDP`. Names are loaded when they are asked for: options and
planning work without torch.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dp.sample.engine import ClientEngine as ClientEngine
    from dp.sample.layer import SampleDP as SampleDP
    from dp.sample.layer import repaired as repaired
    from dp.sample.options import AdaptiveClip as AdaptiveClip
    from dp.sample.options import Clipping as Clipping

_HOMES = {
    "SampleDP": "dp.sample.layer",
    "repaired": "dp.sample.layer",
    "ClientEngine": "dp.sample.engine",
    "AdaptiveClip": "dp.sample.options",
    "Clipping": "dp.sample.options",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'dp.sample' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
