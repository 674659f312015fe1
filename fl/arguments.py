"""Checks of what a caller passes, each a sentence that names the argument. Nothing here knows a federation.

What does not belong here: checks that need more than the value itself, such as a layer's; they stay where that
is known.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from dp.ledger import Ledger
from protocols.errors import Misuse, require
from protocols.numbers import positive, real, whole
from protocols.policy import Policy
from protocols.stack import MAX_WEIGHT_CAP

Check = Callable[[str, Any], Any]
"""From an option's name and value to the value as it is kept. Raises Misuse."""


def kind(wanted: str, accept: Callable[[Any], bool]) -> Check:
    """Return a check for what `accept` accepts, which `wanted` names; a list becomes a tuple."""

    def check(name: str, value: Any) -> Any:
        if not accept(value):
            raise Misuse(f"{name}: expected {wanted}, got {value!r}")
        return tuple(value) if isinstance(value, list) else value

    return check


def one_of(*words: str) -> Check:
    """Return a check for one of some words."""
    return kind(" or ".join(map(repr, words)), lambda value: isinstance(value, str) and value in words)


def _texts(value: Any) -> bool:
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    return listed and all(isinstance(item, str) for item in value)


def _named(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str | Mapping) for item in value)


def _patterns(value: Any) -> bool:
    return bool(value) and (isinstance(value, str) or (_texts(value) and all(value)))


CHECKS: dict[str, Check] = {
    "sampling": one_of("fixed", "poisson", "round-robin", "cyclic", "arrivals"),
    "scheduler_per": one_of("epoch", "round", "step"),
    "integers": one_of("keep", "sum", "refuse"),
    "buffers": one_of("sum", "local"),
    "fraction": lambda name, value: real(name, value, "in (0, 1]", lambda share: 0 < share <= 1),
    "dropout": lambda name, value: real(name, value, "in [0, 1)", lambda share: 0 <= share < 1),
    "delta": lambda name, value: real(name, value, "in (0, 1)", lambda number: 0 < number < 1),
    **dict.fromkeys(
        ("spare", "delays"), lambda name, value: real(name, value, ">= 0", lambda number: number >= 0)
    ),
    "bits": lambda name, value: whole(name, value, 2, 32),
    "weight_cap": lambda name, value: whole(name, value, 1, MAX_WEIGHT_CAP),
    "seed": whole,
    "parameters": kind('"trained", "all", or patterns of names such as "head.*"', _patterns),
    **dict.fromkeys(
        ("data", "model", "strategy"),
        kind("text or a table with a name", lambda value: isinstance(value, str | Mapping)),
    ),
    "privacy": kind("names of layers or tables [[privacy]]", _named),
    "callbacks": kind("names, module:function, or tables [[callbacks]]", _named),
    "policy": kind("a protocols.Policy or None", lambda value: value is None or isinstance(value, Policy)),
    **dict.fromkeys(("metrics", "stay_local", "windows"), kind("a list of names", _texts)),
    **dict.fromkeys(("range", "learning_rate", "budget", "client_timeout", "stage_timeout"), positive),
    **dict.fromkeys(
        (
            "partition",
            "engine",
            "data_dir",
            "output",
            "train",
            "optimizer",
            "scheduler",
            "criterion",
            "loss",
            "evaluate",
            "test",
        ),
        kind("text", lambda value: isinstance(value, str)),
    ),
    **dict.fromkeys(
        ("rounds", "local_epochs", "min_survivors", "workers", "clients", "batch_size", "threads"),
        lambda name, value: whole(name, value, 1),
    ),
}
"""What each option that is a plain value must be, wherever it is given."""


def checked(name: str, value: Any) -> Any:
    """Return an option's value as its check makes it; one without a check as it is. Raises Misuse."""
    no_class(name, value)
    return CHECKS[name](name, value) if name in CHECKS else value


def optional(name: str, value: Any) -> Any:
    """Return an option's value, or None. Raises Misuse."""
    return None if value is None else checked(name, value)


def takes(name: str, function: Any, wanted: str, count: int) -> None:
    """Raises Misuse unless `function` can be called with `count` positional arguments; `wanted` shows the call."""
    require(callable(function), wanted, type(function).__name__, name)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some functions written in C do not tell
        return
    try:
        signature.bind(*[None] * count)
    except TypeError:
        called = getattr(function, "__name__", type(function).__name__)
        raise Misuse(f"{name}: expected {wanted}, got {called}{signature}") from None


def no_class(name: str, value: Any) -> None:
    """Raises Misuse for a class in place of an object of it."""
    if isinstance(value, type):
        raise Misuse(
            f"{name}: expected an object, got the class {value.__name__}: write {value.__name__}(...)"
        )


def instance(name: str, value: Any, kind: type, wanted: str) -> None:
    """Raises Misuse for a class in place of an object, and for anything that is no `kind`, which `wanted` names."""
    no_class(name, value)
    require(isinstance(value, kind), wanted, type(value).__name__, name)


def ledger(value: Any) -> Ledger | None:
    """Return a ledger, or None. Raises Misuse for a path or anything else that is none."""
    no_class("ledger", value)
    if value is None or all(callable(getattr(value, name, None)) for name in ("charge_all", "entries")):
        return cast(Ledger | None, value)
    path = isinstance(value, str | Path)
    advice = f"open it with dp.Ledger({str(value)!r}, epsilon=..., delta=...)" if path else "see dp.Ledger"
    raise Misuse(f"ledger: expected a dp.Ledger or None, got {value!r}: {advice}")


def folder(value: Any) -> Path | None:
    """Return the folder that a run writes to, or None. Raises Misuse where a file is in its place."""
    if value is None:
        return None
    require(isinstance(value, str | Path), "a folder's path", f"{value!r}", "output")
    path = Path(value)
    for place in (path, *path.parents):
        if place.exists() and not place.is_dir():
            raise Misuse(f"output: {place} is a file; name a folder")
    return path
