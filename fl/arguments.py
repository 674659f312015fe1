"""Checks of what a caller passes, each a sentence that names the argument. Nothing here knows a federation.

What does not belong here: checks that need more than the value itself, such as a layer's; they stay where that
is known.
"""

import inspect
import math
import operator
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from protocols.errors import Misuse
from protocols.policy import Policy
from protocols.stack import MAX_WEIGHT_CAP, Numbers

if TYPE_CHECKING:
    from dp.ledger import Ledger


def whole(name: str, value: Any, least: int | None = None, most: int | None = None) -> int:
    """Return `value` as an int within [least, most]. Raises Misuse for anything but a whole number, True included."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    low, high = -math.inf if least is None else least, math.inf if most is None else most
    if number is None or isinstance(value, bool) or not low <= number <= high:
        limits = "" if least is None else f" from {least} to {most}" if most is not None else f" >= {least}"
        raise Misuse(f"{name}: expected a whole number{limits}, got {value!r}")
    return number


def real(name: str, value: Any, within: str, accept: Callable[[float], bool]) -> float:
    """Return `value` as a finite float that `accept` accepts; `within` says what that is. Raises Misuse."""
    try:
        number = math.nan if isinstance(value, str | bytes | bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not (math.isfinite(number) and accept(number)):
        raise Misuse(f"{name}: expected a number {within}, got {value!r}")
    return number


def positive(name: str, value: Any) -> float:
    """Return `value` as a finite float > 0. Raises Misuse."""
    return real(name, value, "> 0", lambda number: number > 0)


def delta(value: Any) -> float | None:
    """Return delta, within (0, 1), or None. Raises Misuse."""
    return None if value is None else real("delta", value, "in (0, 1)", lambda number: 0 < number < 1)


def numbers(bits: Any, range: Any, weight_cap: Any) -> Numbers:
    """Return how floats become integers. Raises Misuse naming the argument."""
    return Numbers(
        whole("bits", bits, 2, 32),
        None if range is None else positive("range", range),
        whole("weight_cap", weight_cap, 1, MAX_WEIGHT_CAP),
    )


def patterns(name: str, value: Any) -> str | tuple[str, ...]:
    """Return a word or a tuple of patterns of names. Raises Misuse."""
    if isinstance(value, str) and value:
        return value
    if not isinstance(value, Sequence) or not value or not all(isinstance(v, str) and v for v in value):
        raise Misuse(
            f'{name}: expected "trained", "all", or patterns of names such as "head.*", got {value!r}'
        )
    return tuple(value)


def takes(name: str, function: Any, wanted: str, count: int) -> None:
    """Raises Misuse unless `function` can be called with `count` positional arguments; `wanted` shows the call."""
    if not callable(function):
        raise Misuse(f"{name}: expected {wanted}, got {type(function).__name__}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some functions written in C do not tell
        return
    try:
        signature.bind(*[None] * count)
    except TypeError:
        called = getattr(function, "__name__", type(function).__name__)
        raise Misuse(f"{name}: expected {wanted}, got {called}{signature}") from None


def ledger(value: Any) -> "Ledger | None":
    """Return a ledger, or None. Raises Misuse for a path or anything else that is none."""
    if value is None or all(callable(getattr(value, name, None)) for name in ("charge_all", "entries")):
        return cast("Ledger | None", value)
    path = isinstance(value, str | Path)
    advice = f"open it with dp.Ledger({str(value)!r}, epsilon=..., delta=...)" if path else "see dp.Ledger"
    raise Misuse(f"ledger: expected a dp.Ledger or None, got {value!r}: {advice}")


def policy(value: Any) -> Policy | None:
    """Return a policy, or None. Raises Misuse."""
    if value is not None and not isinstance(value, Policy):
        raise Misuse(f"policy: expected a protocols.Policy or None, got {value!r}")
    return value


def folder(value: Any) -> Path | None:
    """Return the folder that a run writes to, or None. Raises Misuse where a file is in its place."""
    if value is None:
        return None
    if not isinstance(value, str | Path):
        raise Misuse(f"output: expected a folder's path, got {value!r}")
    path = Path(value)
    for place in (path, *path.parents):
        if place.exists() and not place.is_dir():
            raise Misuse(f"output: {place} is a file; name a folder")
    return path
