"""Every property of the audit, in the order it is checked and printed."""

from protocols.audit.prop import Property
from protocols.audit.properties import (
    active_client,
    active_server,
    copies,
    correctness,
    entropy,
    expiry,
    graphs,
    leaks,
    masks,
    odds,
    searched,
    secrets,
    views,
)
from protocols.errors import Misuse

_MODULES = (
    correctness,
    leaks,
    masks,
    entropy,
    odds,
    graphs,
    views,
    active_server,
    active_client,
    copies,
    secrets,
    expiry,
    searched,
)
PROPERTIES = tuple(
    found for module in _MODULES for found in vars(module).values() if isinstance(found, Property)
)


def find(name: str) -> Property:
    """Return a property by name. Raises Misuse listing the names."""
    for prop in PROPERTIES:
        if prop.name == name:
            return prop
    raise Misuse(f"there is no property {name!r}; properties: {', '.join(p.name for p in PROPERTIES)}")
