"""The layers, in a module that imports no torch: a node that only unmasks loads nothing else."""

from typing import Any

from fl.network.site import Site
from secagg import SecAggPlus


def layers(site: Site) -> list[Any]:
    """Return the layers as one party runs them: with a roster, every client signs its session keys."""
    if site.signed is None:
        return [SecAggPlus(setup="reuse", dropout=0.2)]
    return [SecAggPlus(setup="reuse", dropout=0.2, threat="malicious", credentials=site.credentials())]
