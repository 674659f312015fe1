"""Checks of single numbers that a caller passes. What does not belong here: what a number means."""

import math
import operator
from collections.abc import Callable
from typing import Any

from protocols.errors import Misuse, require


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
    require(math.isfinite(number) and accept(number), f"a number {within}", f"{value!r}", name)
    return number


def positive(name: str, value: Any) -> float:
    """Return `value` as a finite float > 0. Raises Misuse."""
    return real(name, value, "> 0", lambda number: number > 0)


def between_0_and_1(name: str, value: Any) -> float:
    """Return `value` as a float in (0, 1). Raises Misuse."""
    return real(name, value, "in (0, 1)", lambda number: 0 < number < 1)
