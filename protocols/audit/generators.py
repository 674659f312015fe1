"""Whether statistical generators (Python's, NumPy's, torch's) are used while something runs. No property lives here.

Two nets: generators that exist before are compared by their state; making one is noticed, by whatever name a
module holds the maker. Instances of watched classes stay what they are, for `isinstance` too.
"""

import contextlib
import gc
import random
import sys
import tempfile
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import numpy as np

_FUNCTIONS = ("default_rng",)
_CLASSES = ("Generator", "RandomState", "PCG64", "PCG64DXSM", "Philox", "MT19937", "SFC64")


@contextlib.contextmanager
def watched(used: list[str]) -> Iterator[None]:
    """Add to `used` a sentence for every statistical generator that is made or drawn from inside."""
    before = _states()
    with contextlib.ExitStack() as stack:
        _watch_makers(stack, used)
        yield
    for key, (story, state) in _states().items():
        if key not in before:
            used.append(f"{story} was made")
        elif before[key][1] != state:
            used.append(f"{story} was drawn from")


def _states() -> dict[Any, tuple[str, Any]]:
    """Every living generator: itself -> (what it is, its state). Held as keys, so that none is freed meanwhile."""
    torch: Any = sys.modules.get("torch")
    found: dict[Any, tuple[str, Any]] = {}
    for one in gc.get_objects():
        kind = type(one)  # not isinstance: proxies answer that with code of their own
        if issubclass(kind, np.random.BitGenerator):
            found[_Same(one)] = f"a numpy.random.{kind.__name__}", str(one.state)
        elif issubclass(kind, random.Random) and not issubclass(kind, random.SystemRandom):
            found[_Same(one)] = f"a generator of Python's module random ({kind.__name__})", one.getstate()
    if hasattr(torch, "Generator"):
        for name, module in list(sys.modules.items()):
            for value in list(getattr(module, "__dict__", {}).values()):
                if type(value) is torch.Generator:
                    found[_Same(value)] = f"torch's generator in {name}", value.get_state().tolist()
    names = getattr(tempfile._get_candidate_names(), "_rng", None)  # type: ignore[attr-defined]  # names of files
    found.pop(_Same(names), None)
    return found


class _Same:
    """A key that stands for one object, whatever its own notion of equality."""

    def __init__(self, one: Any) -> None:
        self.one = one

    def __hash__(self) -> int:
        return id(self.one)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.one is other.one


def _watch_makers(stack: contextlib.ExitStack, used: list[str]) -> None:
    """Put watchers in the place of what makes generators, in every module that holds it by any name."""
    watchers: dict[Any, Any] = {}
    kinds = (type, type(np.random.default_rng))
    for name in _FUNCTIONS:
        original = getattr(np.random, name)
        watchers[_Same(original)] = _watching(original, f"numpy.random.{name}", used)
    for name in _CLASSES:
        original = getattr(np.random, name)
        watchers[_Same(original)] = _proxy(original, f"numpy.random.{name}", used)
    for module_name, module in list(sys.modules.items()):
        if module_name.startswith("numpy.") and module is not np.random:
            continue  # its own modules make classes for each other
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if type(value) in kinds and _Same(value) in watchers:
                stack.enter_context(patch.object(module, name, watchers[_Same(value)]))
    make = random.Random.__init__

    def made(self: random.Random, *arguments: Any, **named: Any) -> None:
        if not isinstance(self, random.SystemRandom):
            used.append("random.Random was called")
        make(self, *arguments, **named)

    stack.enter_context(patch.object(random.Random, "__init__", made))


def _watching(original: Any, label: str, used: list[str]) -> Any:
    def call(*arguments: Any, **named: Any) -> Any:
        used.append(f"{label} was called")
        return original(*arguments, **named)

    return call


def _proxy(original: Any, label: str, used: list[str]) -> Any:
    """A class that makes instances of `original`, is passed by the same instances, and notices being called."""

    class Watching(type(original)):  # type: ignore[misc]  # the metaclass is known at run time only
        def __call__(cls, *arguments: Any, **named: Any) -> Any:
            used.append(f"{label} was called")
            return original(*arguments, **named)

        def __instancecheck__(cls, one: Any) -> bool:
            return isinstance(one, original)

        def __subclasscheck__(cls, kind: Any) -> bool:
            return issubclass(kind, original)

    return Watching(original.__name__, (original,), {})
