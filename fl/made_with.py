"""What a run was made with, as plain values, so that a resumed run is the same run or names the difference.

What does not belong here: keys, credentials, ledgers and whatever else is no plain public number or word.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from protocols.errors import Misuse
from protocols.options import is_plain, options_of, plain
from protocols.stack import Stack

if TYPE_CHECKING:  # it imports torch, which the server of an app without our training does not need
    from fl.federation_setup import FederationSetup

Settings = dict[str, Any]
LONGEST, MOST = 120, 3
"""Characters that a sentence spends on one differing value, and how many of these it names."""


def of(setup: FederationSetup) -> Settings:
    """Return the settings of a federation: JSON values by name; a layer's are named `<layer>.<option>`."""
    options = asdict(setup.options)
    for other in ("device", "workers", "client_timeout"):  # another machine may go on
        del options[other]
    found: Settings = {
        **options,
        "clients": list(setup.names),
        "strategy": setup.strategy.name,
        **({} if setup.stack.hides_sizes else _sizes(setup)),
        **_named(setup.strategy.name, setup.strategy),
        **of_stack(setup.stack),
    }
    return dict(json.loads(json.dumps(found)))


def of_stack(stack: Stack) -> Settings:
    """Return the public options of layers, numbers and secure sum, by name, as they are before any round."""
    found: Settings = {
        "layers": [layer.name for layer in stack.layers],
        "secure_sum": stack.secure_sum.tag,
        "numbers": [stack.numbers.bits, stack.numbers.range, stack.numbers.weight_cap],
        **_named(stack.secure_sum.name, stack.secure_sum),
    }
    for layer in stack.layers:
        found |= _named(layer.name, layer, layer.state())
        found[f"{layer.name}.description"] = layer.describe()
    return dict(json.loads(json.dumps(found)))


def of_optimizer(optimizer: Any) -> Settings:
    """Return the kind of an optimizer and its plain defaults, learning rate among them."""
    defaults = getattr(optimizer, "defaults", {})
    held = {f"optimizer.{key}": plain(value) for key, value in defaults.items() if is_plain(value)}
    return {"optimizer": type(optimizer).__name__, **held}


def same(kept: Mapping[str, Any], own: Mapping[str, Any], where: str) -> None:
    """Raises Misuse naming what differs; what only one of the two knows is passed over (older checkpoints)."""
    differ = [key for key in own if key in kept and kept[key] != own[key]]
    if differ:
        was, now = ({key: _shown(facts[key]) for key in differ[:MOST]} for facts in (kept, own))
        more = f" ({len(differ) - MOST} more options differ)" if len(differ) > MOST else ""
        raise Misuse(f"the run in {where} was made with {was}, this one is {now}{more}: resume it as it was")


def _named(name: str, thing: Any, changing: Mapping[str, Any] | None = None) -> Settings:
    """The public options of a layer, strategy or secure sum; those that change over rounds are left out."""
    return {f"{name}.{key}": value for key, value in options_of(thing, changing).items()}


def _sizes(setup: FederationSetup) -> Settings:
    """Numbers of examples and batch sizes, by client: a batch may hold all of a client's examples."""
    batches = {name: _batch_size(setup, name) for name in setup.sizes}
    return {"examples": dict(setup.sizes), "batch_size": batches}


def _batch_size(setup: FederationSetup, name: str) -> int | None:
    size = getattr(setup.loader_for(name), "batch_size", None)
    return size if isinstance(size, int) else None


def _shown(value: Any) -> Any:
    text = repr(value)
    return value if len(text) <= LONGEST else f"{text[:LONGEST]}..."
