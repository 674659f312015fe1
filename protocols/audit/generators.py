"""Whether statistical generators (Python's, NumPy's, torch's) are used while something runs, and what seeds they and
other watched functions are given. No property lives here.

Two nets: generators that exist before are compared by their state; making one is noticed, by whatever name a
module holds the maker, with its seed and its caller. Instances of watched classes stay what they are, for `isinstance`
too.
"""

import contextlib
import functools
import gc
import importlib
import random
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np

from protocols.audit.pieces import Malformed
from protocols.audit.standing_in import Same, standing_in

_FUNCTIONS = ("default_rng",)
_CLASSES = ("Generator", "RandomState", "PCG64", "PCG64DXSM", "Philox", "MT19937", "SFC64")


class Seeded(NamedTuple):
    """A call of a watched function: its name, the seed that it was given, and who called it, where."""

    what: str
    seed: bytes | None
    caller: str


@contextlib.contextmanager
def recorded(watch: Iterable[Any], seen: list[Seeded]) -> Iterator[None]:
    """Add to `seen` every call of these functions ("module:name", or themselves); the seed is the first argument.

    Raises Malformed for what no module or class holds by a name: its calls would not be seen.
    """
    watchers: dict[Same, Any] = {}
    with contextlib.ExitStack() as stack:
        for one in watch:
            holder, name = _held(one)
            original = getattr(holder, name)
            watcher = _watching(original, name, seen.append)
            stack.enter_context(patch.object(holder, name, watcher))
            watchers[Same(original)] = watcher
        stack.enter_context(standing_in(watchers, lambda module: False))
        yield


def _held(one: Any) -> tuple[Any, str]:
    """The module or class that holds a function, and its name there."""
    said = one if isinstance(one, str) else f"{one.__module__}:{one.__qualname__}"
    module, _, path = said.partition(":")
    *outer, name = path.split(".")
    try:
        holder = functools.reduce(getattr, outer, importlib.import_module(module))
        found = getattr(holder, name)
    except (ImportError, AttributeError, ValueError) as error:
        raise Malformed(f"watch: no module holds {said!r}; name a function of a module or class") from error
    if not callable(found):
        raise Malformed(f"watch: {said!r} is a {type(found).__name__}, not a function")
    return holder, name


def _seed(arguments: tuple[Any, ...], named: dict[str, Any]) -> bytes | None:
    """The first argument that is bytes or an int, as bytes."""
    for value in (*arguments, *named.values()):
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value)
        if isinstance(value, int | np.integer) and not isinstance(value, bool):
            return abs(int(value)).to_bytes((abs(int(value)).bit_length() + 7) // 8, "big")
    return None


def _caller() -> str:
    """Who called the watched function, past this module."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename in (__file__, functools.__file__):
        frame = frame.f_back
    return f"{frame.f_code.co_name} ({frame.f_code.co_filename}, line {frame.f_lineno})"


def _said(used: list[str]) -> Callable[[Seeded], None]:
    """Notes in words; of a seed, its width."""

    def say(one: Seeded) -> None:
        seed = "" if one.seed is None else f" with a seed of {8 * len(one.seed)} bits"
        used.append(f"{one.what} was called{seed} by {one.caller}")

    return say


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


def living() -> list[Any]:
    """Every object that the collector knows, those that a program set aside (`gc.freeze`) taken back: they stay so."""
    gc.unfreeze()
    return gc.get_objects()


def _states() -> dict[Any, tuple[str, Any]]:
    """Every living generator: itself -> (what it is, its state). Held as keys, so that none is freed meanwhile."""
    torch: Any = sys.modules.get("torch")
    found: dict[Any, tuple[str, Any]] = {}
    objects = living()
    kinds = set(map(type, objects))  # not isinstance: proxies answer that with code of their own
    numpys = {kind for kind in kinds if issubclass(kind, np.random.BitGenerator)}
    pythons = {
        kind
        for kind in kinds
        if issubclass(kind, random.Random) and not issubclass(kind, random.SystemRandom)
    }
    wanted = numpys | pythons
    for one in [one for one in objects if type(one) in wanted]:
        name = type(one).__name__
        if type(one) in numpys:
            found[Same(one)] = f"a numpy.random.{name}", str(one.state)
        else:
            found[Same(one)] = f"a generator of Python's module random ({name})", one.getstate()
    if hasattr(torch, "Generator"):
        for name, module in list(sys.modules.items()):
            for value in list(getattr(module, "__dict__", {}).values()):
                if type(value) is torch.Generator:
                    found[Same(value)] = f"torch's generator in {name}", value.get_state().tolist()
    names = getattr(tempfile._get_candidate_names(), "_rng", None)  # type: ignore[attr-defined]  # names of files
    found.pop(Same(names), None)
    return found


def _watch_makers(stack: contextlib.ExitStack, used: list[str]) -> None:
    """Put watchers in the place of what makes generators, in every module that holds it by any name."""
    watchers: dict[Same, Any] = {}
    for name in _FUNCTIONS:
        original = getattr(np.random, name)
        watchers[Same(original)] = _watching(original, f"numpy.random.{name}", _said(used))
    for name in _CLASSES:
        original = getattr(np.random, name)
        watchers[Same(original)] = _proxy(original, f"numpy.random.{name}", _said(used))
    # numpy's own modules make classes for each other
    stack.enter_context(standing_in(watchers, lambda m: m.startswith("numpy.") and m != "numpy.random"))
    make = random.Random.__init__

    def made(self: random.Random, *arguments: Any, **named: Any) -> None:
        if not isinstance(self, random.SystemRandom):
            _said(used)(Seeded("random.Random", _seed(arguments, named), _caller()))
        make(self, *arguments, **named)

    stack.enter_context(patch.object(random.Random, "__init__", made))


def _watching(original: Any, label: str, note: Callable[[Seeded], None]) -> Any:
    @functools.wraps(original, updated=())
    def call(*arguments: Any, **named: Any) -> Any:
        note(Seeded(label, _seed(arguments, named), _caller()))
        return original(*arguments, **named)

    return call


def _proxy(original: Any, label: str, note: Callable[[Seeded], None]) -> Any:
    """A class that makes instances of `original`, is passed by the same instances, and notices being called."""

    class WatchedGenerator(type(original)):  # type: ignore[misc]  # the metaclass is known at run time only
        def __call__(cls, *arguments: Any, **named: Any) -> Any:
            note(Seeded(label, _seed(arguments, named), _caller()))
            return original(*arguments, **named)

        def __instancecheck__(cls, one: Any) -> bool:
            return isinstance(one, original)

        def __subclasscheck__(cls, kind: Any) -> bool:
            return issubclass(kind, original)

    return WatchedGenerator(original.__name__, (original,), {})
