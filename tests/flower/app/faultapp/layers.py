"""The layers of the app, by name, alike on both sides."""

from typing import Any


def layers(name: str) -> list[Any]:
    if name == "none":
        return []
    if name == "secagg+":
        from secagg import SecAggPlus

        return [SecAggPlus(dropout=0.33)]
    raise ValueError(name)
