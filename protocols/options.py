"""What a layer or a secure sum was made with, as plain values by name.

What belongs here: reading them. What does not: comparing runs (`fl.made_with`) or parties (`fl.round.terms`).
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

import numpy as np


def options_of(thing: object, changing: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the public options of an object: JSON values by attribute; those of a dataclass by its fields.

    Left out: names that begin with an underscore, what is in `changing`, what is no plain value (a ledger, a key), and
    dataclasses with a field that is never printed.
    """
    told = {k: v for k, v in vars(thing).items() if not k.startswith("_") and k not in (changing or {})}
    found = {key: plain(value) for key, value in told.items() if is_plain(value)}
    for key, value in told.items():
        if is_dataclass(value) and all(field.repr for field in fields(value)):
            for name, held in options_of(value).items():
                found[f"{key}.{name}" if name in found else name] = held
    return found


def is_plain(value: object) -> bool:
    """Whether a value is None, a number, a word or bytes, or a list of those."""
    if isinstance(value, tuple | list):
        return all(is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str | bytes | Enum | np.number)


def plain(value: Any) -> Any:
    """Return a plain value as JSON holds it."""
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Enum):
        return value.value
    return value.item() if isinstance(value, np.number) else value
