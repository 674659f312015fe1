"""What commands print: one JSON object on standard output or text for people, and errors on standard error.

Belongs here: the `--json` option and the plain printing that every command shares. What is printed belongs to
the commands.
"""

import json
import math
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from typer import Option

if TYPE_CHECKING:
    from rich.console import Console

JsonOption = Annotated[
    bool, Option("--json", help="Print one JSON object on standard output, all else on standard error.")
]
"""Annotation of a command's `as_json: JsonOption = False` parameter."""


def stderr_console() -> "Console":
    """A rich console on standard error, for progress and remarks: standard output stays clean for results.

    No console of ours makes pictures of words: `module:factory:key=value` stays what it is.
    """
    from rich.console import Console

    return Console(stderr=True, emoji=False)


def stdout_console() -> "Console":
    """A rich console on standard output, for tables that people read (never where `--json` was given)."""
    from rich.console import Console

    return Console(emoji=False)


def emit_json(result: Mapping[str, object]) -> None:
    """Prints one JSON object on one line of standard output; an infinite or undefined number becomes null."""
    print(json.dumps(_plain(result), allow_nan=False, ensure_ascii=False))


def tell(result: Mapping[str, object], as_json: bool, *lines: str) -> None:
    """Prints the object of `--json`, else the lines for people."""
    if as_json:
        emit_json(result)
    for line in () if as_json else lines:
        print(line)


def fail(sentence: str, as_json: bool) -> None:
    """Prints a sentence on standard error and, for `--json`, an object with `error` on standard output."""
    line = " ".join(sentence.split())
    print(f"secagg: {line}", file=sys.stderr)
    if as_json:
        emit_json({"error": line})


def _plain(value: object) -> object:
    """`value` in types that JSON has: mappings, lists, strings, numbers, booleans, null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    tolist = getattr(value, "tolist", None)  # NumPy scalars and arrays
    return _plain(tolist()) if callable(tolist) else str(value)
